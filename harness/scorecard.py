"""The forecast scorecard: what each run was forecast to hold while it trains, and what it held.

A run's measured figure is the highest value in its training phases: growth of RSS above the imported
worker on a CPU; torch's reserved and allocated memory and NVML's device figure on a GPU, of the GPU with
most where there are several. What a forecast leaves out (docs/memory.md) is not taken off what was
measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from pydantic import Field

from harness.forecasts import Forecasts
from harness.frozen import Count, Frozen, PositiveInt
from harness.lenses import ALLOCATED, DEVICE, RESERVED, RSS, TRAINING, Lens
from harness.record import PlannedRun, Record, Status
from harness.summary import RunSummary

LENSES: tuple[Lens, ...] = (DEVICE, RESERVED, ALLOCATED, RSS)


class Score(Frozen):
    """One run by one lens."""

    run_id: str
    cell: str
    pair: str
    arm: str
    lens: str
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


class LensScore(Frozen):
    """All runs by one lens."""

    lens: str
    runs: Count
    inside: Count
    median_error: float = Field(description="of the errors without their signs")
    largest_error: float = Field(description="with its sign")


def score(
    forecasts: Forecasts | None, runs: Iterable[tuple[PlannedRun, Record | None, RunSummary | None]]
) -> list[Score]:
    """Set each run that ended ok beside its arm's forecast, lens by lens."""
    rows = []
    for planned, record, summary in runs:
        kept = forecasts.of(planned.pair, planned.arm) if forecasts else None
        made = kept.forecast if kept else None
        if made is None or summary is None or record is None or record.status is not Status.OK:
            continue
        for lens in LENSES:
            estimate, measured = made.lens(lens), measured_bytes(summary, lens)
            if estimate is None or measured is None or measured <= 0:
                continue
            rows.append(
                Score(
                    run_id=planned.run_id,
                    cell=planned.cell,
                    pair=planned.pair,
                    arm=planned.arm,
                    lens=lens,
                    source=made.source,
                    forecast_bytes=estimate.bytes,
                    low_bytes=estimate.low_bytes,
                    high_bytes=estimate.high_bytes,
                    measured_bytes=measured,
                )
            )
    return rows


def measured_bytes(summary: RunSummary, lens: Lens) -> int | None:
    """Return what a forecast of a lens speaks of; of several GPUs the highest. None if not measured."""
    if lens == RSS:
        return summary.growth(RSS)
    if lens == DEVICE and summary.peak_bytes_by_device:
        return max(summary.peak_bytes_by_device.values())
    return summary.peak_bytes.get(lens, {}).get(TRAINING)


def by_lens(rows: Sequence[Score]) -> list[LensScore]:
    """Sum the runs of each lens up."""
    found = []
    for lens in LENSES:
        own = [row for row in rows if row.lens == lens]
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
