"""Environments of other releases on this machine: made once, found again by what is in them.

An environment's name is a hash of what was asked for (releases, and the contents of wheels and folders), of
this installation and of the lock; an edit, an upgrade here or another Python makes another one. It is made
under a lock, and its note `environment.json` is written last: without it, it is made anew. What this leaves
out: what is in one (`layers`), and images (`launch/docker`).
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness import installed, layers
from harness.caches import cache_dir
from harness.errors import ConfigError, MachineError
from harness.files import write_atomically
from harness.frozen import Frozen, content_hash
from harness.installed import Installed
from harness.layers import Base, Commands, base_folders, last_lines, make_layer, run_command
from harness.packages import Package
from harness.pins import read_pins

FORMAT = 1
FOLDER = "environments"  # in the cache
NOTE = "environment.json"
_TREE = Path(__file__).parent.parent


class Note(Frozen):
    """`environment.json`: what an environment is. Written last."""

    format: int = FORMAT
    label: str
    packages: tuple[Package, ...]
    hidden: tuple[str, ...] = ()
    python: str
    created_utc: str


class _Key(Frozen):
    """What decides which environment it is."""

    format: int = FORMAT
    packages: tuple[tuple[str, str, str], ...]
    python: str
    base: dict[str, str]
    folders: tuple[str, ...]
    lock: dict[str, str]


@dataclass(frozen=True)
class Environment:
    """One that is there."""

    folder: Path
    note: Note

    @property
    def name(self) -> str:
        """The hash that it is called by."""
        return self.folder.name

    @property
    def python(self) -> str:
        """The interpreter that runs train with."""
        return str(layers.python(self.folder))

    @property
    def used_utc(self) -> datetime:
        """When a command last asked for it."""
        return datetime.fromtimestamp((self.folder / NOTE).stat().st_mtime, UTC)

    def size_bytes(self) -> int:
        """Count the bytes of its own files."""
        files = (p for p in self.folder.rglob("*") if p.is_file() and not p.is_symlink())
        return sum(file.stat().st_size for file in files)


def find_base() -> Base:
    """Look at this installation, and for the lock beside it."""
    folders = base_folders()
    lock = _TREE / "constraints.txt"
    is_tree = lock.is_file() and (_TREE / "pyproject.toml").is_file()
    pins = read_pins(lock.read_text(encoding="utf-8")) if is_tree else {}
    return Base(folders, installed.look(folders).versions, pins)


def name_of(packages: Sequence[Package], base: Base) -> str:
    """Return the name of the environment of some packages above a base."""
    key = _Key(
        packages=tuple(sorted(p.identity for p in packages)),
        python=f"{sys.base_prefix} {platform.python_implementation()} {sys.version}",
        base=dict(base.versions),
        folders=base.folders,
        lock=dict(base.lock),
    )
    return content_hash(key)[:16]


def make_environment(
    packages: Sequence[Package],
    label: str,
    tell: Callable[[str], None],
    *,
    base: Base | None = None,
    commands: Commands = run_command,
) -> Environment:
    """Return the environment of some packages, made if it is not there yet.

    Raises: ConfigError or MachineError if it can't be made; nothing is left that passes for one.
    """
    base = base or find_base()
    folder = _home() / name_of(packages, base)
    with _cache_errors(), _locked(folder, tell):
        found = _read(folder)
        if found is None:
            tell(f"making an environment of {label}, once: {_told(packages, base)}")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                make_layer(folder, packages, base, commands)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            found = _complete(folder, packages, label, base)
        os.utime(folder / NOTE)
    return found


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"can't make an environment in the cache: {error.strerror or error}; make room there, or set "
            "HARNESS_CACHE to a folder that can be written"
        ) from error


def _complete(folder: Path, packages: Sequence[Package], label: str, base: Base) -> Environment:
    note = Note(
        label=label,
        packages=tuple(p.model_copy(update={"place": None, "metadata": None}) for p in packages),
        hidden=layers.plan_change(packages, base).hidden,
        python=platform.python_version(),
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    write_atomically(folder / NOTE, note.model_dump_json(indent=1).encode() + b"\n")
    return Environment(folder, note)


def look_into(environment: Environment, commands: Commands = run_command) -> Installed:
    """Ask an environment's interpreter what it has, as a worker would find it.

    Raises: MachineError if it does not find the harness, or another release than was asked for.
    """
    done = commands([environment.python, "-m", "harness.installed"], dict(os.environ))
    try:
        found = installed.parse(done.out if done.code == 0 else "")
    except (ValueError, KeyError, TypeError):
        said = "".join(f"\n    {line}" for line in last_lines(done.said))
        raise MachineError(
            f"the environment of {environment.note.label} does not start; remove it with `harness "
            f"environments rm {environment.name}` and try again. It said:{said}"
        ) from None
    wrong = [
        f"{p.name} {found.versions.get(p.name, '(none)')} in place of {p.version}"
        for p in environment.note.packages
        if _differs(found.versions.get(p.name), p.version)
    ]
    if wrong:
        why = (
            "; PYTHONPATH has packages that hide it: unset it" if "PYTHONPATH" in os.environ else ""
        )
        raise MachineError(
            f"the environment of {environment.note.label} has {', '.join(wrong)}{why}, or remove the "
            f"environment with `harness environments rm {environment.name}`"
        )
    return found


def list_environments() -> list[Environment]:
    """List the environments of this machine, the one that was used last first."""
    folders = _home().iterdir() if _home().is_dir() else ()
    found = [e for e in map(_read, (f for f in folders if f.is_dir())) if e is not None]
    return sorted(found, key=lambda e: e.used_utc, reverse=True)


def remove_environment(environment: Environment) -> None:
    """Remove an environment. Raises: ConfigError if a process works in it."""
    try:
        with FileLock(_lock_path(environment.folder), timeout=0):
            users = _processes(environment.python)
            if users:
                raise ConfigError(
                    f"environment {environment.name} ({environment.note.label}) is used by process "
                    f"{users[0]}; wait for its end"
                )
            (environment.folder / NOTE).unlink(missing_ok=True)
            shutil.rmtree(environment.folder, ignore_errors=True)
    except Timeout:
        raise ConfigError(f"environment {environment.name} is being made; wait for it") from None


def _processes(python: str) -> list[int]:
    found = psutil.process_iter(["pid", "cmdline"])
    return [p.pid for p in found if (p.info["cmdline"] or [""])[0] == python]


def _home() -> Path:
    return cache_dir().resolve() / FOLDER


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _locked(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_path(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"waiting for another command that makes environment {folder.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(folder: Path) -> Environment | None:
    try:
        note = Note.model_validate_json((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
    return Environment(folder, note)


def _told(packages: Sequence[Package], base: Base) -> str:
    what = ", ".join(f"{p.name} {p.label}" for p in packages)
    rest = "everything else is this installation's"
    if not base.lock:
        rest += ", and what it lacks is the newest that fits (no constraints.txt lies beside this harness)"
    return f"{what}; {rest}"


def _differs(found: str | None, asked: str) -> bool:
    """Whether a release is another than was asked for; 1.16 is 1.16.0."""
    return found is None or _trimmed(found) != _trimmed(asked)


def _trimmed(version: str) -> str:
    while version.endswith(".0"):
        version = version[:-2]
    return version
