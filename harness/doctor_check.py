"""A finding of `harness doctor`: what every part of it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.errors import MachineError

Word = Literal["ok", "note", "problem"]
Section = Literal["software", "machine", "gpu", "disk", "hub", "docker", "matrix", "matrices"]


@dataclass(frozen=True)
class Check:
    """One finding about the machine."""

    section: Section
    name: str
    word: Word
    text: str  # what was found, and where it matters what was expected
    advice: str = ""  # what to do
    value: Mapping[str, Any] = field(default_factory=dict)  # the figures, for --json

    @property
    def sentence(self) -> str:
        """Finding and advice as a person reads them."""
        return f"{self.text}; {self.advice}" if self.advice else self.text

    @property
    def exit_code(self) -> int:
        """The exit code this finding asks for."""
        return MachineError.exit_code if self.word == "problem" else 0

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data; `text` is the whole sentence."""
        return {
            "section": self.section,
            "name": self.name,
            "word": self.word,
            "text": self.sentence,
            "advice": self.advice or None,
            "value": dict(self.value),
        }


def word_if(is_needed: bool) -> Word:
    """Say how grave a lack is: a problem where the matrix needs the thing, else a note."""
    return "problem" if is_needed else "note"


def gigabytes(size_bytes: float) -> str:
    """Write the size of files and disks in GB, as `harness plan` and the Hub do."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:,.1f} GB"
    return f"{size_bytes / 1e6:,.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:,.0f} kB"
