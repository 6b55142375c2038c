"""Finds a Python package in a folder: which, where, of which version, and what it requires.

Takes a checkout (`pyproject.toml` or `setup.py`, the package at the top or below `src/`), a folder that
holds the package as site-packages does, and the package itself. Nothing of it is run: files are read, so
a version or a requirement that a `setup.py` computes is not known.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.pins import normalize

_SETUP_NAME = re.compile(r"""^\s*name\s*=\s*["']([A-Za-z0-9._-]+)["']""", re.M)
_SETUP_VERSION = re.compile(r"""^\s*version\s*=\s*["']([^"']+)["']""", re.M)
_DUNDER_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.M)
_VERSION = re.compile(r"\d+(\.\d+)*[A-Za-z0-9.+]*")


@dataclass(frozen=True)
class Source:
    """A package's folder and what is written about it."""

    name: str
    folder: Path
    version: str | None = None
    requires: tuple[str, ...] = ()
    metadata: str | None = None  # of a distribution that lies beside it


@dataclass(frozen=True)
class _Written:
    """What the files at the top of a folder say of its project."""

    name: str | None = None
    version: str | None = None
    requires: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)  # name → METADATA of a *.dist-info


def find_source(option: str, name: str | None, path: Path, here: Mapping[str, str]) -> Source:
    """Find a package in a folder; by its name, where one is given.

    `here` has the packages that are installed: a name that a folder alone can stand for. Raises:
    ConfigError that begins with `option`.
    """
    if (path / "__init__.py").is_file():
        return _of_package(option, name, path, here)
    written = _read_written(path)
    name = name or written.name or _only(written.metadata)
    packages = _packages(path)
    known = [module for module in packages if normalize(module) in here]
    if name is None and len(known) == 1:
        name = normalize(known[0])
    if name is None:
        found = f"holds {', '.join(sorted(packages))}" if packages else "holds no package"
        raise ConfigError(f"{option}: {found}; say which package it is: --with NAME=PATH")
    folder = packages.get(_module(name))
    if folder is None:
        raise ConfigError(
            f"{option}: holds no package {_module(name)}; expected {_module(name)}/__init__.py or "
            f"src/{_module(name)}/__init__.py in it"
        )
    is_project = written.name == name
    metadata = written.metadata.get(name)
    return Source(
        name=name,
        folder=folder,
        version=_header(metadata, "Version")
        or (written.version if is_project else None)
        or _own_version(folder),
        requires=_required(metadata) if metadata else written.requires if is_project else (),
        metadata=metadata,
    )


def _of_package(option: str, name: str | None, path: Path, here: Mapping[str, str]) -> Source:
    found = name or normalize(path.name)
    if name is None and found not in here:
        raise ConfigError(
            f"{option}: no package {found} is installed here; say which package it is: --with NAME=PATH"
        )
    # Beside it stands what goes with it only under the name it is imported by.
    is_in_place = path.name == _module(found)
    metadata = _read_written(path.parent).metadata.get(found) if is_in_place else None
    version = _header(metadata, "Version") or _own_version(path)
    return Source(found, path, version, _required(metadata) if metadata else (), metadata)


def _packages(path: Path) -> dict[str, Path]:
    """Map the packages of a folder, and of its `src`, by the name they are imported by."""
    found: dict[str, Path] = {}
    for parent in (path / "src", path):
        if parent.is_dir():
            for child in sorted(parent.iterdir()):
                if (child / "__init__.py").is_file():
                    found.setdefault(child.name, child)
    return found


def _read_written(path: Path) -> _Written:
    project = _project(path / "pyproject.toml")
    setup = _text(path / "setup.py") or ""
    named = project.get("name") or _found(_SETUP_NAME, setup)
    version = (
        project.get("version") or _first_line(path / "VERSION") or _found(_SETUP_VERSION, setup)
    )
    metadata: dict[str, str] = {}
    for folder in sorted(path.glob("*.dist-info")):
        text = _text(folder / "METADATA")
        if listed := _header(text, "Name"):
            metadata[normalize(listed)] = text or ""
    requires = tuple(str(line) for line in project.get("dependencies") or ())
    name = normalize(str(named)) if named else None
    return _Written(name, str(version) if version else None, requires, metadata)


def _project(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_version(folder: Path) -> str | None:
    """Read the version that a package's own files say."""
    written = _found(_DUNDER_VERSION, _text(folder / "__init__.py") or "")
    return written or _first_line(folder / "VERSION")


def _required(metadata: str) -> tuple[str, ...]:
    """List what a distribution requires, without its extras."""
    lines = HeaderParser().parsestr(metadata).get_all("Requires-Dist") or []
    return tuple(line for line in lines if "extra ==" not in line)


def _header(metadata: str | None, key: str) -> str | None:
    found = HeaderParser().parsestr(metadata).get(key) if metadata else None
    return None if found is None else str(found)


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def _first_line(path: Path) -> str | None:
    lines = (_text(path) or "").split()
    return lines[0] if lines and _VERSION.fullmatch(lines[0]) else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _only(metadata: Mapping[str, str]) -> str | None:
    return next(iter(metadata)) if len(metadata) == 1 else None


def _module(name: str) -> str:
    return name.replace("-", "_")
