"""The faults, as data: which line becomes which, and where training has to come out otherwise."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from harness.frozen import Frozen

LIST = Path(__file__).with_name("faults.yaml")


class Where(Frozen):
    """Which cells a fault can reach at all, by reading the code."""

    task: Literal["sft", "grpo", "both"]
    arms: Literal["all", "lora", "full"]
    reason: str = ""


class Fault(Frozen):
    """One edit of one file."""

    name: str
    package: Literal["trl", "peft", "transformers"]
    file: str = Field(description="below site-packages")
    old: str = Field(description="text of the file")
    new: str
    which: int = Field(1, ge=1, description="of so many places where it stands")
    of: int = Field(1, ge=1)
    kind: str
    where: Where
    note: str = ""


def read_faults(path: Path = LIST) -> tuple[Fault, ...]:
    """Read a list of faults; pydantic's error says what is wrong with it."""
    return tuple(Fault(**row) for row in yaml.safe_load(path.read_text()))


def installed(package: str) -> Path:
    """Return the folder of an installed package without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise LookupError(f"{package} is not installed")
    return Path(found.submodule_search_locations[0])


def plant(fault: Fault, folder: Path) -> Path:
    """Copy the package into a folder and make the edit; returns the copy."""
    copy = folder / fault.package
    shutil.copytree(
        installed(fault.package), copy, ignore=shutil.ignore_patterns("__pycache__"),
        dirs_exist_ok=True,
    )  # fmt: skip
    file = folder / fault.file
    file.write_text(edited(fault, file.read_text()))
    return copy


def edited(fault: Fault, text: str) -> str:
    """Return a file's text with the fault in it. Raises: ValueError if the line is not where it was."""
    parts = text.split(fault.old)
    if len(parts) != fault.of + 1:
        raise ValueError(
            f"{fault.name}: found {len(parts) - 1} times in {fault.file}, not {fault.of}"
        )
    before, after = parts[: fault.which], parts[fault.which :]
    changed = fault.old.join(before) + fault.new + fault.old.join(after)
    compile(changed, fault.file, "exec")
    return changed
