"""Every error that a user can meet, with its exit code.

HarnessError (1)
├── ConfigError (2)       the command or a matrix asks for something impossible; lists every problem
├── RunsFailed (3)        some runs failed; the others are finished and recorded
├── MachineError (7)      the machine or an access is unfit: GPU, driver, disk, gated repository
└── StudyError (8)        a study folder is locked, or a record in it is corrupted
    └── NewerFormatError  written by a newer harness: upgrade, nothing is damaged

A message says what was found, what was expected and what to do. 130 is an interrupt (SIGINT).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """An error whose message is meant for the user; shown without a traceback.

    Carries every problem found, so that one pass mends all.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        if len(problems) == 1:
            message = problems[0]
        else:
            message = f"{len(problems)} problems:\n" + "\n".join(f"  - {p}" for p in problems)
        super().__init__(message)


class ConfigError(HarnessError):
    """A usage or configuration error."""

    exit_code = 2


class RunsFailed(HarnessError):  # noqa: N818 - it says what happened
    """Some runs failed; everything that finished is recorded."""

    exit_code = 3


class MachineError(HarnessError):
    """The machine or an access is unfit for what was asked."""

    exit_code = 7


class StudyError(HarnessError):
    """A study folder is locked by another process, or a record in it can't be read."""

    exit_code = 8


class NewerFormatError(StudyError):
    """A file is whole, but a newer harness wrote it; it must not be treated as damaged."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean …?)' for the closest known word, or an empty string."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
