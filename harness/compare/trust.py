"""Which memory figures of a run may be compared: none of a lens that is graded D, with one exception.

Others on the device, a GPU that was lost, a lens that contradicts torch's counters: the figure is wrong,
and a verdict refuses it too. RSS meets none of that: its D says that the sampler saw little of training.
Where training is over in a moment no sampler sees much, so that RSS is compared all the same; its limits
are wide. What was not graded, as in a baseline of before, is taken as it is. What NVML read beside a run
that trained on the CPU is not that run's, and nothing is compared by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.compare.grouping import is_ok
from harness.compare.side import RunSide, Side
from harness.grade import GPU_LENSES
from harness.lenses import ABOVE_IDLE, DEVICE, LENS_NAMES, RSS
from harness.text import plural

BRIEF_S = 1.0  # of steps: 50 samples at the sampler's rate, and few on a busy machine


def own_lenses(run: RunSide) -> frozenset[str]:
    """Return the lenses that read this run."""
    foreign = GPU_LENSES if run.config.get("device") == "cpu" else ()
    return frozenset(run.peak_bytes.keys() | run.growth_bytes.keys()) - frozenset(foreign)


def refusal(run: RunSide, lens: str) -> str | None:
    """Say why a lens of a run can't be compared; None if it can."""
    grade = run.grades.get(lens)
    if grade is None or grade.grade != "D" or (lens == RSS and _is_brief(run)):
        return None
    return grade.reasons[0].rstrip(".") if grade.reasons else "no reason was noted"


def growth_refusal(run: RunSide, lens: str) -> str | None:
    """Say why a lens's growth can't be compared: the device's is that above idle, and as good as it."""
    return refusal(run, ABOVE_IDLE if lens == DEVICE and ABOVE_IDLE in run.grades else lens)


def refusal_note(sides: Sequence[Side]) -> str | None:
    """Say once of how many runs, repeats among them, memory is left out, and of the first one why."""
    poor = [
        (side.label, run.cell, *told)
        for side in sides
        for run in side.runs
        if is_ok(run) and (told := next(_refused(run), None))
    ]
    if not poor:
        return None
    label, cell, lens, why = poor[0]
    first = "" if len(poor) == 1 else "first "
    return (
        f"Memory of {plural(len(poor), 'run')} graded D: not compared by that lens "
        f"({first}{label}, {cell}, {lens_name(lens)}: {why})."
    )


def lens_name(lens: str) -> str:
    """How texts call a lens."""
    return next((name for key, name in LENS_NAMES.items() if key == lens), lens)


def _refused(run: RunSide) -> Iterator[tuple[str, str]]:
    for lens in sorted(own_lenses(run)):
        if (why := growth_refusal(run, lens)) is not None:
            yield lens, why


def _is_brief(run: RunSide) -> bool:
    return sum(s for s in run.step_wall_s if s is not None) < BRIEF_S
