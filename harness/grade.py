"""How far the measurement of a run can be trusted: a grade from A to D with reasons, lens by lens.

A lens is graded by what touches memory: gaps, rate, few steps, other processes on the device, a
device that was lost, an old memory query, figures that contradict one another. The run is graded by
the lens that memory is judged by and by what touches its speed too: throttling and clocks that
drift. What an older study did not record reads 'not measured' and is never taken as good. The bounds
stand in `grade_bounds`. What this leaves out: the faults themselves (`grade_faults`, `gpu_faults`,
`strangers`).
"""

from __future__ import annotations

from pydantic import Field

from harness.frozen import Frozen
from harness.gpu_faults import (
    clock_faults,
    counter_faults,
    device_faults,
    disagreement,
    throttle_faults,
)
from harness.grade_bounds import Grade, worst
from harness.grade_faults import Fault, Watch, baseline_faults, pace_faults, step_faults
from harness.lenses import (
    ABOVE_IDLE,
    COUNTED,
    DEVICE,
    PROCESS,
    RSS,
    SAMPLED,
    WHOLE_RUN,
    Lens,
    judged_order,
)
from harness.strangers import foreign_faults, stands_above_idle

GPU_LENSES: tuple[Lens, ...] = (DEVICE, ABOVE_IDLE, PROCESS)


class MeasurementGrade(Frozen):
    """How far a measurement can be trusted, and why it is not better."""

    grade: Grade
    reasons: tuple[str, ...] = Field((), description="sentences, the gravest first; none at A")


def grade_run(watch: Watch) -> dict[str, MeasurementGrade]:
    """Grade every lens that answered, and the run: lens, or 'run' → grade."""
    lenses = {lens: _lens_faults(watch, lens) for lens in watch.statistics}
    order = judged_order(is_above_idle=stands_above_idle(watch))
    judged = next((lens for lens in order if lens in lenses), None)
    if judged is None:
        return {}
    whole = [*lenses[judged]]
    if watch.has_gpu:
        others = foreign_faults(watch, ABOVE_IDLE if judged == ABOVE_IDLE else DEVICE)
        whole += [*others, *throttle_faults(watch), *clock_faults(watch)]
    grades = {lens: _grade(faults) for lens, faults in lenses.items()}
    return {**grades, WHOLE_RUN: _grade(whole)}


def _lens_faults(watch: Watch, lens: str) -> list[Fault]:
    faults = step_faults(watch)
    # Before the gap that a lost device leaves: of equals the cause is said first.
    if lens in GPU_LENSES:
        faults += device_faults(watch, lens)
    if lens in (*SAMPLED, ABOVE_IDLE):
        faults += pace_faults(watch, lens)
    if lens in (RSS, ABOVE_IDLE):  # growth above a baseline
        faults += baseline_faults(watch, lens)
    if lens in GPU_LENSES:
        faults += disagreement(watch, lens)
    if lens in (DEVICE, ABOVE_IDLE):
        faults += foreign_faults(watch, lens)
    if lens in COUNTED:
        faults += counter_faults(watch)
    return faults


def _grade(faults: list[Fault]) -> MeasurementGrade:
    grave = sorted(faults, key=lambda fault: fault.grade, reverse=True)
    return MeasurementGrade(
        grade=worst([fault.grade for fault in faults]),
        reasons=tuple(dict.fromkeys(fault.reason for fault in grave)),
    )
