"""Turns the one lock into the requirements of one image: another TRL, and what must move with it.

Why: `constraints.txt` was solved as a whole. An image for another release changes a few of its pins and
keeps the rest, so that two images differ in what was asked for and in little else. The Dockerfile runs
this before anything is installed, hence the standard library alone:

    python -m harness.pins --variant cpu --trl 1.14.2 OUTPUT

writes `constraints.txt`, `requirements.txt`, `torch.txt` (torch alone, which is installed first) and
`moving.txt` (what differs between images, and gets a layer of its own) to the folder OUTPUT. What this
leaves out: whether the index has a release and whether a set resolves, which pip says, and how
arguments are passed to a release (`translation`).
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.releases import is_before, unfit_pairing

VARIANTS = ("cuda", "cpu")
CHOOSABLE = ("trl", "transformers", "peft", "vllm")
IMAGE = "lora-harness"  # repository of the images that the Makefile builds
EXTRAS = ("smollm2", "trackio")
NO_VLLM = "none"  # VLLM=none: a CUDA image without vLLM
# transformers 4 needs a huggingface_hub before 1.0: the newest of each that goes with it.
BEFORE_TRANSFORMERS_5 = {
    "datasets": "4.8.5",
    "fsspec": "2026.2.0",
    "huggingface-hub": "0.36.2",
    "tokenizers": "0.22.2",
}
NEEDS_HUB_1 = ("trackio", "gradio-client")
MOVING = ("trl", "transformers", "peft", *BEFORE_TRANSFORMERS_5, *NEEDS_HUB_1)
_VERSION = re.compile(r"\d+(\.\d+)+((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(>=(?P<oldest>[\d.]+))?")


@dataclass(frozen=True)
class Project:
    """What pyproject.toml asks for: requirements as written, of the harness and of its extras."""

    dependencies: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]

    def installed(self) -> tuple[str, ...]:
        """Return the requirements of an image, in which the extras are."""
        return (*self.dependencies, *(line for extra in EXTRAS for line in self.extras[extra]))

    def oldest(self) -> dict[str, str | None]:
        """Return the oldest release that each requirement takes, None where any will do."""
        found = (_REQUIREMENT.match(line) for line in self.installed())
        return {normalize(m["name"]): m["oldest"] for m in found if m}


def normalize(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def read_project(text: str) -> Project:
    """Read the requirements out of a pyproject.toml."""
    project = tomllib.loads(text)["project"]
    extras = {e: tuple(lines) for e, lines in project["optional-dependencies"].items()}
    return Project(tuple(project["dependencies"]), extras)


def read_pins(text: str) -> dict[str, str]:
    """Read lines of name==version.

    Raises: ConfigError on any other line, and on a package that is pinned twice.
    """
    pins: dict[str, str] = {}
    for line in text.splitlines():
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        name, pinned, version = requirement.partition("==")
        if not pinned or ";" in version or normalize(name) in pins:
            raise ConfigError(
                f"constraints.txt has the line {line!r}; expected every package once, as "
                "name==version: run `make lock`"
            )
        pins[normalize(name)] = version
    return pins


def choose_pins(
    pins: Mapping[str, str], asked: Mapping[str, str], variant: str, project: Project
) -> dict[str, str]:
    """Return an image's pins: what was asked for, what must move along, and the rest as locked.

    Raises: ConfigError naming every version that can't be had, or releases that can't train together.
    """
    _check_asked(asked, variant, project)
    chosen = dict(pins)
    if asked.get("vllm", pins["vllm"]) not in (NO_VLLM, pins["vllm"]):
        # A release of vLLM pins torch and most of its tree; the lock was solved for another one.
        kept = set(project.oldest()) - {"torch", "transformers", "huggingface-hub"}
        chosen = {name: version for name, version in pins.items() if name in kept}
    chosen = move_pins(chosen, {n: version for n, version in asked.items() if version != NO_VLLM})
    for task in ("sft", "grpo"):
        problem = unfit_pairing(task, chosen, has_triton=variant == "cuda")
        if problem:
            raise ConfigError(f"{problem} (build arguments TRL and TRANSFORMERS)")
    return chosen


def move_pins(pins: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """Return pins with what was asked for, what must move along, and the rest as it is.

    What is missing from them afterwards is free, or can't be had beside what was asked for.
    """
    chosen = dict(pins)
    if asked.get("transformers", pins.get("transformers")) != pins.get("transformers"):
        chosen.pop("tokenizers", None)  # of which every release takes a range
    chosen |= asked
    was_old, is_old = (is_before(p, "transformers", "5.0") for p in (pins, chosen))
    if is_old and not was_old:
        chosen = {n: v for n, v in chosen.items() if n not in NEEDS_HUB_1}
        chosen |= {**BEFORE_TRANSFORMERS_5, **asked}
    elif was_old and not is_old:
        chosen = {n: v for n, v in chosen.items() if n in asked or n not in BEFORE_TRANSFORMERS_5}
    return chosen


def list_requirements(
    project: Project, pins: Mapping[str, str], asked: Mapping[str, str], variant: str
) -> list[str]:
    """List what an image installs: what the harness needs, its extras, torch, and vLLM for CUDA."""
    lines = []
    for line in project.installed():
        name = _name(line)
        if name in asked:
            # Where the index has no such release, pip says so clearly of a requirement alone.
            lines.append(f"{name}=={pins[name]}")
        elif name not in NEEDS_HUB_1 or name in pins:
            lines.append(line)
    if variant == "cuda" and asked.get("vllm") != NO_VLLM:
        lines.append(f"vllm=={pins['vllm']}")
    return [*lines, *torch_requirement(pins, variant)]


def torch_requirement(pins: Mapping[str, str], variant: str) -> list[str]:
    """Return the line that asks for torch's CPU build by name: no index can answer with CUDA's.

    Empty where vLLM is to decide.
    """
    if "torch" not in pins:
        return []
    return [f"torch=={pins['torch']}{'+cpu' if variant == 'cpu' else ''}"]


def _name(requirement: str) -> str:
    return normalize(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _check_asked(asked: Mapping[str, str], variant: str, project: Project) -> None:
    problems = []
    oldest = project.oldest()
    for name, version in asked.items():
        argument = name.upper()
        if name == "vllm" and variant == "cpu":
            problems.append(
                f"{argument}={version}: the CPU image has no vLLM; leave {argument} out"
            )
        elif name == "vllm" and version == NO_VLLM:
            continue
        elif not _VERSION.fullmatch(version):
            also = f", or '{NO_VLLM}'" if name == "vllm" else ""
            problems.append(
                f"{argument}={version!r} is no version; expected a release such as 1.16.0{also}, "
                "or nothing for the one in constraints.txt"
            )
        elif (bound := oldest.get(name)) and is_before(asked, name, bound):
            problems.append(f"{argument}={version}: the harness needs {name} {bound} or newer")
    if problems:
        raise ConfigError(*problems)


def make_command(image: str, trl: str | None = None) -> str | None:
    """Name the command that builds an image of ours, of that TRL; None if its name is not ours."""
    versions = "".join(rf"(?:-{name}-([\w.]+))?" for name in CHOOSABLE)
    ours = re.fullmatch(rf"{re.escape(IMAGE)}:(cuda|cpu){versions}", image)
    if ours is None:
        return None
    variant, *found = ours.groups()
    asked = dict(zip(CHOOSABLE, found, strict=True)) | ({"trl": trl} if trl else {})
    words = "".join(f" {name.upper()}={version}" for name, version in asked.items() if version)
    return f"`make image{'-cpu' if variant == 'cpu' else ''}{words}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files of one image, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness.pins", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the files")
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    for name in CHOOSABLE:
        parser.add_argument(
            f"--{name}", default="", metavar="VERSION", help="empty: the locked one"
        )
    parser.add_argument("--project", type=Path, default=Path(), metavar="DIR", help="default: here")
    options = parser.parse_args(arguments)
    asked = {name: version for name in CHOOSABLE if (version := getattr(options, name).strip())}
    try:
        project = read_project((options.project / "pyproject.toml").read_text(encoding="utf-8"))
        locked = read_pins((options.project / "constraints.txt").read_text(encoding="utf-8"))
        pins = choose_pins(locked, asked, options.variant, project)
    except ConfigError as error:
        sys.stderr.write(f"harness.pins: {error}\n")
        return error.exit_code
    files = {
        "constraints.txt": [f"{n}=={v}" for n, v in sorted(pins.items()) if n not in asked],
        "requirements.txt": list_requirements(project, pins, asked, options.variant),
        "torch.txt": torch_requirement(pins, options.variant),
        "moving.txt": list(MOVING),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (options.output / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
