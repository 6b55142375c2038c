"""One environment on the disk: a layer of packages above this installation, which it hides where they meet.

The layer is a virtual environment without anything in it but a `.pth` file, which puts this installation's
packages behind its own: torch and all that nobody asked to change are found there and never fetched again.
pip, run inside it, sees both. A folder with source is copied, not built: no build tool, no network.
What this leaves out: which layers there are, and when one is whole (`environments`).
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import site
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

from harness.errors import ConfigError, MachineError, did_you_mean
from harness.packages import Package, package_files
from harness.pins import NEEDS_HUB_1, move_pins
from harness.text import harmless

PTH = "_harness_base.pth"
CONSTRAINTS = "constraints.txt"
_LAST_LINES = 6
_PINNED = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+_-]*")
_NO_RELEASE = re.compile(r"requirement ([^ ]+)==([^ ]+) \(from versions: ([^)]*)\)")
# What pip says when it can't reach its index.
_OFFLINE = (
    "NewConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "NameResolutionError",
    "ProxyError",
)
# Where pip would put things elsewhere than into the layer.
_ELSEWHERE = ("PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH")


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    error: str = ""

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.out + self.error


# Runs a program with these variables, and waits for it.
Commands = Callable[[Sequence[str], Mapping[str, str]], Done]


def run_command(command: Sequence[str], variables: Mapping[str, str]) -> Done:
    """Run a program to its end."""
    done = subprocess.run(
        list(command), env=dict(variables), stdin=subprocess.DEVNULL, check=False, capture_output=True
    )  # fmt: skip
    out, error = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return Done(done.returncode, out, error)


@dataclass(frozen=True)
class Base:
    """The installation that layers stand on."""

    folders: tuple[str, ...]  # its site-packages
    versions: Mapping[str, str]  # what is installed there
    lock: Mapping[str, str]  # constraints.txt; empty where the harness was installed without it


@dataclass(frozen=True)
class Change:
    """What a layer changes: what pip is told, and what of the base is hidden."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    hidden: tuple[str, ...]  # can't be imported beside what was asked for


def base_folders() -> tuple[str, ...]:
    """List the site-packages of this interpreter, the user's own first where it counts."""
    own = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return tuple(folder for folder in (*own, *site.getsitepackages()) if Path(folder).is_dir())


def plan_change(packages: Sequence[Package], base: Base) -> Change:
    """Decide what changes: what was asked for, what must move along, all else as it is here.

    The lock says only of which release what is not installed here comes.
    """
    asked = {p.name: p.version for p in packages}
    pins = {**base.lock, **base.versions}
    chosen = move_pins(pins, asked)
    moved = {n: v for n, v in chosen.items() if n not in asked and pins.get(n) != v}
    requirements = [line for p in packages for line in _requirements(p)]
    requirements += [f"{name}=={version}" for name, version in moved.items()]
    lines = (f"{n}=={v}" for n, v in sorted(chosen.items()) if n not in asked)
    return Change(
        tuple(requirements),
        tuple(filter(_PINNED.fullmatch, lines)),
        tuple(n for n in NEEDS_HUB_1 if n in base.versions and n not in chosen),
    )


def _requirements(package: Package) -> tuple[str, ...]:
    if package.kind == "folder":
        return package.requires
    return (package.place or f"{package.name}=={package.version}",)


def make_layer(
    folder: Path, packages: Sequence[Package], base: Base, commands: Commands = run_command
) -> None:
    """Make a layer in an empty or absent folder.

    Raises: ConfigError if there is no such release or releases exclude each other; MachineError if
    the index can't be reached, or pip fails; OSError if the disk does.
    """
    change, own = plan_change(packages, base), site_packages(folder)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (own / PTH).write_text(_pth(base.folders, change.hidden), encoding="utf-8")
    (folder / CONSTRAINTS).write_text("\n".join(change.constraints) + "\n", encoding="utf-8")
    for package in packages:
        if package.kind == "folder":
            copy_package(package, own)
    wheels = [str(p.place) for p in packages if p.kind == "wheel"]
    if wheels:  # without force pip leaves out a wheel of the release that is here
        _install(folder, ["--no-deps", "--force-reinstall"], wheels, commands)
    if change.requirements:
        _install(folder, [], change.requirements, commands)
    copied = [own / _module(p) for p in packages if p.kind == "folder"]
    for module in copied:
        _reuse_byte_code(module, [Path(f) / module.name for f in base.folders])
    if copied:  # pip compiles the others: the first run of an environment is as quick as the next
        commands([str(python(folder)), "-m", "compileall", "-q", *map(str, copied)], _variables())


def python(folder: Path) -> Path:
    """Return a layer's interpreter."""
    return folder / "bin" / "python"


def site_packages(folder: Path) -> Path:
    """Return where a layer's own packages lie."""
    variables = {"base": str(folder), "platbase": str(folder)}
    return Path(sysconfig.get_path("purelib", "venv", variables))


def copy_package(package: Package, target: Path) -> None:
    """Copy a folder's package, and say beside it which distribution and release it is."""
    source, module = Path(package.place or ""), target / _module(package)
    for file in package_files(source):
        copy = module / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    written = f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n"
    written += "".join(f"Requires-Dist: {line}\n" for line in package.requires)
    info = target / f"{_module(package)}-{package.version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(package.metadata or written, encoding="utf-8")
    (info / "INSTALLER").write_text("lora-harness\n", encoding="utf-8")
    (info / "top_level.txt").write_text(f"{_module(package)}\n", encoding="utf-8")


def _reuse_byte_code(module: Path, originals: Sequence[Path]) -> None:
    """Take over the byte code of files that are the base's, byte for byte: transformers has thousands.

    Python holds byte code for current by the time of its source.
    """
    for file in module.rglob("*.py"):
        for original in (folder / file.relative_to(module) for folder in originals):
            code = Path(cache_from_source(str(original)))
            if code.is_file() and filecmp.cmp(original, file, shallow=False):
                times = original.stat()
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
                target = Path(cache_from_source(str(file)))
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(code, target)
                break


def _module(package: Package) -> str:
    return package.name.replace("-", "_")


def _pth(folders: Sequence[str], hidden: Sequence[str]) -> str:
    """Lines that Python runs at its start: the base's packages last, with the base's own `.pth` files."""
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders]
    names = (name.replace("-", "_") for name in hidden)
    lines += [f"import sys; sys.modules[{name!r}] = None" for name in names]
    return "\n".join(lines) + "\n"


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}


def _install(
    folder: Path, options: Sequence[str], requirements: Sequence[str], commands: Commands
) -> None:
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    pinned = ["--constraint", str(folder / CONSTRAINTS)]
    pip = [str(python(folder)), "-m", "pip", "install", *quiet, *pinned]
    done = commands([*pip, *options, *requirements], _variables())
    if done.code:
        raise _explain(done, requirements)


def _explain(done: Done, requirements: Sequence[str]) -> ConfigError | MachineError:
    """Say what pip's failure means."""
    asked = " ".join(_short(line) for line in requirements)
    if "No module named pip" in done.said:
        return MachineError(
            "pip is not installed beside the harness, and environments of other releases are made by it; "
            "install pip (e.g. `uv pip install pip`), or use --launcher docker"
        )
    found = _NO_RELEASE.search(done.said)
    versions = [v for v in found[3].split(", ") if v != "none"] if found else []
    if found and versions:
        near = did_you_mean(found[2], reversed(versions)) or f" (the newest is {versions[-1]})"
        return ConfigError(f"the package index has no {found[1]} {found[2]}{near}")
    said = "".join(f"\n    {line}" for line in last_lines(done.said))
    if found or any(sign in done.said for sign in _OFFLINE):
        return MachineError(
            f"can't get {asked}: the package index can't be reached, or has no such package; go online, "
            f"or give a wheel or a folder (--trl PATH, --with PATH). pip said:{said}"
        )
    if "ResolutionImpossible" in done.said or "conflicting dependencies" in done.said:
        return ConfigError(
            f"{asked} can't be installed beside what is here; move what is in the way along with --with "
            f"NAME==VERSION. pip said:{said}"
        )
    return MachineError(f"pip could not install {asked}; it said:{said}")


def last_lines(output: str) -> list[str]:
    """Return the last lines that pip printed, without addresses of its index."""
    lines = [harmless(line).strip()[:300] for line in output.splitlines() if line.strip()]
    return [re.sub(r"https?://\S+", "(address)", line) for line in lines[-_LAST_LINES:]]


def _short(requirement: str) -> str:
    return Path(requirement).name if requirement.endswith(".whl") else requirement
