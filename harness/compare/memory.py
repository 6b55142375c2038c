"""Memory: growth of the worker step by step, and how high it climbs.

A leak is a slope: the Theil–Sen estimate over the steps after warm-up, which a few jumps of the allocator
don't move, with an interval that has to lie above the base's. torch's own counters repeat on one machine,
so there a small ratio says something; RSS doesn't. What this leaves out: many seeds (`statistics`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from harness.compare.burden import Spread, Suspect, settle
from harness.compare.grouping import CellRuns
from harness.compare.limits import Limits
from harness.compare.model import Difference
from harness.compare.side import RunSide
from harness.stats import median
from harness.summary import LENS_NAMES
from harness.text import memory

LEAK, PEAK = "rss/slope", "growth"
LEAST_STEPS = 5
CONFIDENCE = 0.95
NOISE_TIMES = 2.0  # a limit allows so many times what reruns were apart
# A counter of torch: it repeats, so that a tenth more is more.
COUNTER_RATIO = 1.1
_COUNTERS = ("torch-allocated", "torch-reserved")


@dataclass(frozen=True)
class Slope:
    """Bytes a step, with the interval."""

    value: float
    low: float
    high: float


def compare_memory(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    """Return by cell what takes more memory; less of it is no difference."""
    leaks = [s for cell in cells for s in _leak(cell, limits, spread)]
    peaks = [s for cell in cells for s in _peaks(cell, limits, spread)]
    # The allocator's luck makes slopes that differ; it takes more to believe one that is alone.
    found = settle(leaks, "memory", "memory", limits.alone**2)
    for name, each in settle(peaks, "memory", "memory", limits.alone).items():
        found.setdefault(name, []).extend(each)
    return found


def memory_spread(cells: Iterable[CellRuns], warmup_steps: int) -> tuple[float, float]:
    """Return how far apart reruns are: the largest difference of slopes, and ratio of RSS growth."""
    pairs = [pair for cell in cells for pair in cell.ok_pairs.values()]
    slopes = [(slope_of(b, warmup_steps), slope_of(c, warmup_steps)) for b, c in pairs]
    apart = [abs(c.value - b.value) for b, c in slopes if b and c]
    grown = [(b.growth_bytes.get("rss"), c.growth_bytes.get("rss")) for b, c in pairs]
    ratios = [max(b / c, c / b) for b, c in grown if b and c and b > 0 and c > 0]
    return max(apart, default=0.0), max(ratios, default=1.0)


def slope_of(run: RunSide, warmup_steps: int) -> Slope | None:
    """Estimate by how many bytes the worker's RSS grows a step; None with too few steps."""
    steps = [s for s in run.probe.steps if s.step > warmup_steps] if run.probe else []
    if len(steps) < LEAST_STEPS:
        return None
    found = stats.theilslopes(
        [s.rss_bytes for s in steps], [s.step for s in steps], alpha=CONFIDENCE
    )
    return Slope(float(found[0]), float(found[2]), float(found[3]))


def _leak(cell: CellRuns, limits: Limits, spread: Spread) -> Iterable[Suspect]:
    slopes = [
        (b, c)
        for ours, theirs in cell.ok_pairs.values()
        if (b := slope_of(ours, limits.warmup_steps))
        and (c := slope_of(theirs, limits.warmup_steps))
    ]
    if not slopes:
        return
    allowed = max(float(limits.leak_bytes), NOISE_TIMES * spread.slope_bytes)
    more = median([c.value - b.value for b, c in slopes]) or 0.0
    if more <= allowed or not all(c.low > b.high for b, c in slopes):
        return
    base = median([b.value for b, _ in slopes]) or 0.0
    candidate = median([c.value for _, c in slopes]) or 0.0
    text = (
        f"RSS grows by {candidate / 2**10:,.0f} KiB a step after warm-up, {base / 2**10:,.0f} KiB "
        "before"
    )
    yield Suspect(cell, LEAK, more / allowed, base, candidate, None, text)


def _peaks(cell: CellRuns, limits: Limits, spread: Spread) -> Iterable[Suspect]:
    pairs = list(cell.ok_pairs.values())
    for lens in sorted({lens for b, c in pairs for lens in b.growth_bytes.keys() & c.growth_bytes}):
        values = [(b.growth_bytes[lens], c.growth_bytes[lens]) for b, c in pairs
                  if lens in b.growth_bytes and lens in c.growth_bytes]  # fmt: skip
        known = [(b, c) for b, c in values if b and c and b > 0 and c > 0]
        if not known:
            continue
        base, candidate = median([b for b, _ in known]) or 0.0, median([c for _, c in known]) or 0.0
        is_counter = lens in _COUNTERS
        allowed = COUNTER_RATIO if is_counter else limits.peak_ratio
        allowed = max(allowed, spread.peak_ratio**NOISE_TIMES if lens == "rss" else 1.0)
        ratio = candidate / base
        if ratio <= allowed or candidate - base < limits.peak_bytes:
            continue
        name = next((text for key, text in LENS_NAMES.items() if key == lens), lens)
        text = (
            f"peak growth of {name} in training: {memory(base)} became {memory(candidate)} "
            f"({ratio:.2f} times)"
        )
        yield Suspect(
            cell, f"{PEAK}/{lens}", ratio / allowed, base, candidate, ratio - 1, text, is_counter
        )
