"""Install the harness into an environment of its own: constraints.txt, but for what was asked for.

    install.py      BENCH_TRL, BENCH_TRANSFORMERS, BENCH_PEFT: a release instead of the pinned one
                    BENCH_TRL_PATH, BENCH_PEFT_PATH: a checkout instead, in the workspace
                    BENCH_TORCH_INDEX: one more package index, e.g. of CPU wheels of torch

The environment lies in RUNNER_TEMP and is not put on the path, so that nothing of the caller's Python
changes; later steps find its commands in HARNESS_BIN. Everything that was not asked for stays pinned: one
thing differs at a time. If the asked release needs other versions of the rest, pip says which, and nothing
is loosened silently. Standard library only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
PACKAGES = ("trl", "transformers", "peft")


def main() -> None:
    """Make the environment and tell later steps where it is."""
    asked = requirements(os.environ)
    home = Path(os.environ["RUNNER_TEMP"]) / "lora-harness"
    home.mkdir(parents=True, exist_ok=True)
    constraints = home / "constraints.txt"
    pinned = (SOURCE / "constraints.txt").read_text(encoding="utf-8")
    constraints.write_text(without(pinned, asked), encoding="utf-8")
    venv.create(home / "venv", with_pip=True, clear=True)  # another call may have left one
    binaries = home / "venv" / "bin"
    command = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    command += ["--progress-bar=off", "--constraint", str(constraints)]
    command += [f"{SOURCE}[smollm2]", *asked.values()]
    done = subprocess.run(command, env=with_index(os.environ), check=False)
    if done.returncode:
        raise SystemExit(
            "install.py: pip could not install the harness with "
            f"{', '.join(asked.values()) or 'its pinned versions'}; what is above says what does not fit. "
            "Give that package's release too (inputs trl, transformers, peft), or leave it pinned"
        )
    sys.stdout.write(f"HARNESS_BIN={binaries}\n")
    if path := os.environ.get("GITHUB_ENV"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"HARNESS_BIN={binaries}\n")


def requirements(inputs: Mapping[str, str]) -> dict[str, str]:
    """What to install instead of the pinned releases: package → requirement."""
    found = {}
    for package in PACKAGES:
        version = inputs.get(f"BENCH_{package.upper()}", "").strip()
        folder = inputs.get(f"BENCH_{package.upper()}_PATH", "").strip()
        if version and folder:
            raise SystemExit(
                f"install.py: {package} is asked for as release {version!r} and as folder {folder!r}; "
                "expected one of them"
            )
        if version:
            if not re.fullmatch(r"[0-9][0-9a-zA-Z.+]*", version):
                raise SystemExit(
                    f"install.py: {package} is {version!r}; expected a version such as 1.16.0"
                )
            found[package] = f"{package}=={version}"
        if folder:
            found[package] = checkout(package, Path(inputs.get("GITHUB_WORKSPACE", ".")) / folder)
    return found


def checkout(package: str, folder: Path) -> str:
    """A folder to install from, as pip takes it."""
    if not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise SystemExit(
            f"install.py: {package}-path is {str(folder)!r}, which holds neither pyproject.toml nor "
            "setup.py; expected a checkout in the workspace, made by an earlier step"
        )
    return f"{package} @ {folder.resolve().as_uri()}"


def without(constraints: str, packages: Mapping[str, str]) -> str:
    """The constraints without the lines of some packages."""
    lines = constraints.splitlines(keepends=True)
    return "".join(line for line in lines if line.partition("==")[0] not in packages)


def with_index(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for pip, with one more index where one was given."""
    index = environment.get("BENCH_TORCH_INDEX", "").strip()
    known = environment.get("PIP_EXTRA_INDEX_URL", "")
    return {**environment, "PIP_EXTRA_INDEX_URL": f"{known} {index}".strip()}


if __name__ == "__main__":
    main()
