"""The forecast scorecard: what each run was forecast to hold while it trains, and what it held.

A run's measured figure is the highest value in its training phases: growth of RSS above the imported
worker on a CPU; on a GPU torch's reserved and allocated memory, and NVML's device figure above what was in
use before the run, since that is what a forecast of the device speaks of; of several GPUs the one with
most. It is held against the forecast for the device that the run ran on.

Which runs fell out, and why, is counted (`tally`): a run that ended because its GPU was full has no peak to
compare, and if it was forecast to fit, no error is worse. A lens whose measurement is of grade D keeps its
row and is in no sum. What a forecast leaves out (docs/memory.md) is not taken off what was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from pydantic import Field

from harness.forecast import fit
from harness.forecasts import ArmMemory, Device, Forecasts, device_of
from harness.frozen import Count, Frozen, PositiveInt
from harness.grade_bounds import Grade
from harness.lenses import ABOVE_IDLE, ALLOCATED, DEVICE, RESERVED, RSS, TRAINING, Lens
from harness.record import PlannedRun, Record, Status
from harness.summary import RunSummary

LENSES: tuple[Lens, ...] = (ABOVE_IDLE, RESERVED, ALLOCATED, RSS)
FORECAST_AS: dict[Lens, Lens] = {ABOVE_IDLE: DEVICE}  # a forecast's name for a lens, where another
UNFIT: Grade = "D"
NOT_RUN, NOT_FORECAST, NOT_MEASURED = "not run", "without a forecast", "not measured"
OF_GRADE_D = "of grade D"


class Ran(NamedTuple):
    """A planned run and what is known of it."""

    planned: PlannedRun
    record: Record | None
    summary: RunSummary | None
    environment: Mapping[str, Any]


class Score(Frozen):
    """One run by one lens."""

    run_id: str
    cell: str
    pair: str
    arm: str
    device: str = Field(description="'cpu', or the name of the GPU that the run ran on")
    lens: str
    grade: Grade | None = Field(None, description="of the measurement; null: not graded")
    source: str = Field(description="traced, or formulas")
    forecast_bytes: Count
    low_bytes: Count
    high_bytes: Count
    measured_bytes: PositiveInt

    @property
    def error(self) -> float:
        """How far the forecast lay from what was measured, as a share of it: 0.1 is 10 % too high."""
        return self.forecast_bytes / self.measured_bytes - 1

    @property
    def is_inside(self) -> bool:
        """Whether the interval held what was measured."""
        return self.low_bytes <= self.measured_bytes <= self.high_bytes

    @property
    def is_judged(self) -> bool:
        """Whether the measurement is good enough to hold a forecast against."""
        return self.grade != UNFIT


class LensScore(Frozen):
    """All runs by one lens, but those that it measured with grade D."""

    lens: str
    runs: Count
    inside: Count
    median_error: float = Field(description="of the errors without their signs")
    largest_error: float = Field(description="with its sign")


class FullGpu(Frozen):
    """A run that ended oom-gpu, beside what it was forecast to hold in training."""

    run_id: str
    cell: str
    pair: str
    arm: str
    device: str | None = Field(description="name of its GPU; null: not recorded")
    gpu_bytes: Count | None = Field(description="all memory of that GPU")
    idle_bytes: Count = Field(description="of it in use before the run began")
    forecast_bytes: Count | None = Field(description="null: no forecast for that GPU")
    low_bytes: Count | None
    high_bytes: Count | None
    fits: str | None = Field(
        description="what the forecast said of what was free on that GPU, by the rule of `plan`: yes, "
        "perhaps or no; null: no forecast"
    )


class Tally(Frozen):
    """How many of a study's runs a scorecard compares, and what became of the others."""

    runs: Count = Field(description="planned")
    compared: Count = Field(description="with at least one lens that is judged")
    left_out: dict[str, Count] = Field(description="why → runs")
    full: tuple[FullGpu, ...] = Field((), description="runs that ended oom-gpu")


def score(forecasts: Forecasts | None, runs: Iterable[Ran]) -> list[Score]:
    """Set each run that ended ok beside its arm's forecast on its device, lens by lens."""
    return [row for ran in runs for row in _scores(forecasts, ran)]


def tally(forecasts: Forecasts | None, runs: Iterable[Ran]) -> Tally:
    """Count the runs that are compared, and those that are not by the reason."""
    each = list(runs)
    reasons = [_left_out(forecasts, ran) for ran in each]
    return Tally(
        runs=len(each),
        compared=reasons.count(None),
        left_out=dict(Counter(reason for reason in reasons if reason is not None)),
        full=tuple(
            _full_gpu(forecasts, ran, ran.record)
            for ran in each
            if ran.record is not None and ran.record.status is Status.OOM_GPU
        ),
    )


def _scores(forecasts: Forecasts | None, ran: Ran) -> list[Score]:
    planned, record, summary, _ = ran
    if summary is None or record is None or record.status is not Status.OK:
        return []
    device, kept = _forecast_of(forecasts, ran)
    made = kept.forecast if kept else None
    if made is None or device is None:
        return []
    rows = []
    for lens in LENSES:
        estimate = made.lens(FORECAST_AS.get(lens, lens))
        measured, grade = measured_bytes(summary, lens), summary.grade_of(lens)
        if estimate is None or measured is None or measured <= 0:
            continue
        rows.append(
            Score(
                run_id=planned.run_id,
                cell=planned.cell,
                pair=planned.pair,
                arm=planned.arm,
                device=device.name,
                lens=lens,
                grade=grade.grade if grade else None,
                source=made.source,
                forecast_bytes=estimate.bytes,
                low_bytes=estimate.low_bytes,
                high_bytes=estimate.high_bytes,
                measured_bytes=measured,
            )
        )
    return rows


def _forecast_of(forecasts: Forecasts | None, ran: Ran) -> tuple[Device | None, ArmMemory | None]:
    """The device that a run ran on, and its arm's forecast there."""
    device = device_of(ran.record, ran.environment) if ran.record else None
    if device is None or forecasts is None:
        return device, None
    return device, forecasts.of(ran.planned.pair, ran.planned.arm, device.name)


def _left_out(forecasts: Forecasts | None, ran: Ran) -> str | None:
    """Why a run is in no sum; None if it is in one."""
    if ran.record is None:
        return NOT_RUN
    if ran.record.status is not Status.OK:
        return f"ended {ran.record.status.value}"
    _, kept = _forecast_of(forecasts, ran)
    if kept is None or kept.forecast is None:
        return NOT_FORECAST
    rows = _scores(forecasts, ran)
    if not rows:
        return NOT_MEASURED
    return None if any(row.is_judged for row in rows) else OF_GRADE_D


def _full_gpu(forecasts: Forecasts | None, ran: Ran, record: Record) -> FullGpu:
    device, kept = _forecast_of(forecasts, ran)
    made = kept.forecast.lens(DEVICE) if kept and kept.forecast else None
    devices = record.sampler.devices if record.sampler else ()
    idle = max((each.idle_bytes or 0 for each in devices), default=0)
    free = device.gpu_bytes - idle if device else 0
    fits = fit(kept.forecast, {DEVICE: free})[DEVICE] if made and kept and kept.forecast else None
    return FullGpu(
        run_id=ran.planned.run_id,
        cell=ran.planned.cell,
        pair=ran.planned.pair,
        arm=ran.planned.arm,
        device=device.name if device else None,
        gpu_bytes=device.gpu_bytes if device else None,
        idle_bytes=idle,
        forecast_bytes=made.bytes if made else None,
        low_bytes=made.low_bytes if made else None,
        high_bytes=made.high_bytes if made else None,
        fits=fits,
    )


def measured_bytes(summary: RunSummary, lens: Lens) -> int | None:
    """Return what a forecast of a lens speaks of; of several GPUs the highest. None if not measured."""
    if lens == RSS:
        return summary.growth(RSS)
    if lens == ABOVE_IDLE:
        several = [of.get(ABOVE_IDLE, {}) for of in summary.device_statistics.values()]
        each = several or [summary.memory_statistics.get(ABOVE_IDLE, {})]
        return max((of[TRAINING].peak_bytes for of in each if TRAINING in of), default=None)
    return summary.peak_bytes.get(lens, {}).get(TRAINING)


def by_lens(rows: Sequence[Score]) -> list[LensScore]:
    """Sum the runs of each lens up, but those of grade D."""
    found = []
    for lens in LENSES:
        own = [row for row in rows if row.lens == lens and row.is_judged]
        if own:
            found.append(
                LensScore(
                    lens=lens,
                    runs=len(own),
                    inside=sum(row.is_inside for row in own),
                    median_error=median(abs(row.error) for row in own),
                    largest_error=max((row.error for row in own), key=abs),
                )
            )
    return found
