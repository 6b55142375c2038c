"""Which runs the memory figures of an arm rest on: those that a lens measured with grade D are left out.

Whoever shows such a figure says how many runs that were. Where none is left the figure stays as it was
read, and is marked. A run that was never graded counts. What this leaves out: that a verdict refuses a
comparison with such a run (`ratios`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness import text
from harness.summary import RunSummary

GRADED_D = "graded D"


class Trusted(NamedTuple):
    """The runs that count, and what to say behind the name of their lens."""

    runs: list[RunSummary]
    note: str = ""  # empty where nothing was left out


def is_graded_d(run: RunSummary, lens: str) -> bool:
    """Whether a lens's figures of a run are too poor to rest anything on."""
    grade = run.grade_of(lens)
    return grade is not None and grade.grade == "D"


def trusted(runs: Sequence[RunSummary], lens: str) -> Trusted:
    """Leave out what a lens measured with grade D, unless that is all there is."""
    good = [run for run in runs if not is_graded_d(run, lens)]
    return Trusted(good or list(runs), left_out_note(len(good), len(runs), "run"))


def trusted_seeds(
    ours: Mapping[int, RunSummary], theirs: Mapping[int, RunSummary], lens: str
) -> tuple[list[int], str]:
    """List the seeds of two arms that can be compared by a lens, with what to say of the others."""
    shared = [seed for seed in ours if seed in theirs]
    good = [s for s in shared if not (is_graded_d(ours[s], lens) or is_graded_d(theirs[s], lens))]
    return good or shared, left_out_note(len(good), len(shared), "seed")


def left_out_note(good: int, every: int, what: str) -> str:
    """Say how many were left out, in brackets; that nothing better was there; or nothing."""
    if good == every:
        return ""
    if not good:
        return f" ({GRADED_D})"
    return f" ({every - good} of {text.plural(every, what)} left out: {GRADED_D})"
