"""Memory: growth of the worker step by step, and how high it climbs.

A leak is a slope, the Theil–Sen estimate over the steps after warm-up, and it has to show in what the steps
add, one by one. torch's own counters repeat on one machine, so there a small ratio says something; of RSS
only a large one does. A lens graded D is left out, and where too little is left, that is said. What this
leaves out: many seeds (`statistics`), counting what is alive (`held`), which grades count (`trust`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from scipy import stats

from harness.compare.burden import Spread, Suspect, settle
from harness.compare.grouping import CellRuns
from harness.compare.held import held_leaks
from harness.compare.limits import Limits
from harness.compare.model import Difference
from harness.compare.side import RunSide
from harness.compare.statistics import LEAST_SEEDS
from harness.compare.trust import growth_refusal, lens_name, own_lenses, refusal
from harness.lenses import PROCESS, RSS, TRAINING
from harness.stats import median
from harness.text import memory

LEAK, PEAK = "rss/slope", "growth"
LEAST_STEPS = 5
# A leak is certain in a run, or likely and so in its like.
CERTAIN_P, LIKELY_P = 1e-5, 1e-3
NOISE_TIMES = 2.0  # a limit allows so many times what reruns were apart
# A counter of torch: it repeats, so that a tenth more is more.
COUNTER_RATIO = 1.1
_COUNTERS = ("torch-allocated", "torch-reserved")


def compare_memory(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    """Return by cell what takes more memory, and what can't be told; less of it is no difference."""
    leaks = [s for cell in cells for s in (*held_leaks(cell, limits), *_leak(cell, limits, spread))]
    peaks = [s for cell in cells for s in _peaks(cell, limits, spread)]
    found = settle(leaks, cells, "memory", limits.alone)
    for name, each in settle(peaks, cells, "memory", limits.alone).items():
        found.setdefault(name, []).extend(each)
    for cell in cells:
        if unmeasured := list(_unmeasured(cell)):
            found.setdefault(cell.name, []).extend(unmeasured)
    return found


def memory_spread(cells: Iterable[CellRuns], warmup_steps: int) -> tuple[float, float]:
    """Return how far apart reruns are: the largest difference of slopes, and ratio of RSS growth."""
    pairs = [pair for cell in cells for pair in cell.ok_pairs.values()]
    slopes = [(slope_of(b, warmup_steps), slope_of(c, warmup_steps)) for b, c in pairs]
    apart = [abs(c - b) for b, c in slopes if b is not None and c is not None]
    trusted = [(b, c) for b, c in pairs if not (refusal(b, RSS) or refusal(c, RSS))]
    grown = [(b.growth_bytes.get(RSS), c.growth_bytes.get(RSS)) for b, c in trusted]
    ratios = [max(b / c, c / b) for b, c in grown if b and c and b > 0 and c > 0]
    return max(apart, default=0.0), max(ratios, default=1.0)


def slope_of(run: RunSide, warmup_steps: int) -> float | None:
    """Estimate by how many bytes the worker's RSS grows a step; None with too few steps."""
    steps = [s for s in run.probe.steps if s.step > warmup_steps] if run.probe else []
    if len(steps) < LEAST_STEPS:
        return None
    found = stats.theilslopes([s.rss_bytes for s in steps], [s.step for s in steps])
    return float(found[0])


def growth_p(base: RunSide, candidate: RunSide, warmup_steps: int) -> float:
    """Return the one-sided p value of a run's steps adding no more memory than the base's; 1 of too few.

    What a step adds is what is independent of the step before; the RSS itself is not. A few large steps or
    many small ones: Welch's test sees the first, Mann and Whitney's the second.
    """
    ours, theirs = _increments(base, warmup_steps), _increments(candidate, warmup_steps)
    if min(len(ours), len(theirs)) < LEAST_STEPS:
        return 1.0
    p_values = [stats.mannwhitneyu(theirs, ours, alternative="greater").pvalue]
    if len({*ours}) > 1 or len({*theirs}) > 1:
        p_values.append(
            stats.ttest_ind(theirs, ours, equal_var=False, alternative="greater").pvalue
        )
    return float(min(p_values))


def _leak(cell: CellRuns, limits: Limits, spread: Spread) -> Iterable[Suspect]:
    warmup = limits.warmup_memory_steps
    known = [
        (b, c, growth_p(ours, theirs, warmup))
        for ours, theirs in cell.ok_pairs.values()
        if (b := slope_of(ours, warmup)) is not None and (c := slope_of(theirs, warmup)) is not None
    ]
    if not known:
        return
    allowed = max(float(limits.leak_bytes), NOISE_TIMES * spread.slope_bytes)
    more = median([c - b for b, c, _ in known]) or 0.0
    if more <= allowed / 2:
        return
    p = max(p for _, _, p in known) if more > allowed else 1.0
    base = median([b for b, _, _ in known]) or 0.0
    candidate = median([c for _, c, _ in known]) or 0.0
    text = (
        f"RSS grows by {candidate / 2**10:,.0f} KiB a step after warm-up, {base / 2**10:,.0f} KiB "
        "before"
    )
    yield Suspect(cell, LEAK, 0.0, p < LIKELY_P, base, candidate, None, text, p < CERTAIN_P)


def _increments(run: RunSide, warmup_steps: int) -> list[int]:
    sizes = [s.rss_bytes for s in run.probe.steps if s.step > warmup_steps] if run.probe else []
    return [after - before for before, after in pairwise(sizes)]


def _grown(run: RunSide, lens: str) -> int | None:
    """Return a lens's growth; of a process on a GPU its peak, whatever an older baseline took off it.

    It held nothing before its context, and baselines once counted from its first reading, after that.
    """
    if lens == PROCESS:
        return run.peak_bytes.get(lens, {}).get(TRAINING)
    return run.growth_bytes.get(lens)


def _unmeasured(cell: CellRuns) -> Iterable[Difference]:
    """Say which lenses can't be compared, as no seed is left of them, or too few for statistics are."""
    for lens in _lenses(cell):
        poor = [
            (seed, who, why)
            for seed, pair in cell.ok_pairs.items()
            for who, run in zip(("base", "candidate"), pair, strict=True)
            if (why := growth_refusal(run, lens)) is not None
        ]
        seeds = len(cell.ok_pairs)
        left = seeds - len({seed for seed, _, _ in poor})
        if not poor or left >= (LEAST_SEEDS if seeds >= LEAST_SEEDS else 1):
            continue
        seed, who, why = poor[0]
        more = f", and {len(poor) - 1} more" if len(poor) > 1 else ""
        yield Difference(
            layer="missing",
            kind="missing",
            what=f"memory/{lens}",
            word="undecided",
            sentence=(
                f"{lens_name(lens)} not compared, not enough evidence: graded D in the {who}, seed "
                f"{seed}{more}: {why}; measure again without that"
            ),
        )


def _lenses(cell: CellRuns) -> list[str]:
    pairs = cell.ok_pairs.values()
    both = (
        b.growth_bytes.keys() & c.growth_bytes & own_lenses(b) & own_lenses(c) for b, c in pairs
    )
    return sorted(set().union(*both))


def _peaks(cell: CellRuns, limits: Limits, spread: Spread) -> Iterable[Suspect]:
    for lens in _lenses(cell):
        pairs = [
            (b, c)
            for b, c in cell.ok_pairs.values()
            if growth_refusal(b, lens) is None and growth_refusal(c, lens) is None
        ]
        values = [(_grown(b, lens), _grown(c, lens)) for b, c in pairs]
        known = [(b, c) for b, c in values if b and c and b > 0 and c > 0]
        if not known:
            continue
        base, candidate = median([b for b, _ in known]) or 0.0, median([c for _, c in known]) or 0.0
        is_counter = lens in _COUNTERS
        allowed = COUNTER_RATIO if is_counter else limits.peak_ratio
        allowed = max(allowed, spread.peak_ratio**NOISE_TIMES if lens == RSS else 1.0)
        ratio = candidate / base
        if ratio <= allowed or candidate - base < limits.peak_bytes:
            continue
        text = (
            f"peak growth of {lens_name(lens)} in training: {memory(base)} became {memory(candidate)} "
            f"({ratio:.2f} times)"
        )
        yield Suspect(
            cell,
            f"{PEAK}/{lens}",
            ratio / allowed,
            True,
            base,
            candidate,
            ratio - 1,
            text,
            is_counter,
        )
