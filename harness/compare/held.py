"""Leaks by counting: what is alive after each step, and whether that grows more than it did.

Counts repeat from run to run, so that one tensor a step more is a leak, in one run, and shows long before
the worker's RSS says anything. What this leaves out: leaks of libraries, which only RSS sees (`memory`).
"""

from __future__ import annotations

from collections.abc import Iterable

from scipy import stats

from harness.compare.burden import Suspect
from harness.compare.grouping import CellRuns
from harness.compare.limits import Limits
from harness.compare.side import RunSide
from harness.stats import median

LEAST_STEPS = 5
# From what tells most to what tells least: a leaked tensor is an object and some blocks too.
NAMES = {
    "tensors": "tensors that are alive",
    "tensor_bytes": "bytes of live tensors",
    "objects": "objects that are alive",
    "blocks": "blocks of Python's memory in use",
}


def held_leaks(cell: CellRuns, limits: Limits) -> Iterable[Suspect]:
    """Return the leak that is told best, if any; none of runs that were not counted or are short."""
    allowed = {
        "tensors": limits.leak_tensors,
        "tensor_bytes": limits.leak_tensor_bytes,
        "objects": limits.leak_objects,
        "blocks": limits.leak_blocks + limits.leak_blocks_a_key * _more_keys(cell),
    }
    for name, limit in allowed.items():
        slopes = [
            (before, after)
            for base, candidate in cell.ok_pairs.values()
            if (before := _slope(base, name, limits)) is not None
            and (after := _slope(candidate, name, limits)) is not None
        ]
        more = median([after - before for before, after in slopes])
        if more is None or more <= limit:
            continue
        before, after = (median(list(each)) or 0.0 for each in zip(*slopes, strict=True))
        text = f"{NAMES[name]} grow by {after:,.1f} a step after warm-up, {before:,.1f} before"
        yield Suspect(
            cell, f"held/{name}", more / limit, True, before, after, None, text, is_repeatable=True
        )
        return


def _slope(run: RunSide, name: str, limits: Limits) -> float | None:
    """Estimate by how much a count grows a step (Theil-Sen)."""
    steps = run.probe.steps if run.probe else ()
    known = [(s.step, s.held[name]) for s in steps if name in s.held]
    known = [each for each in known if each[0] > limits.warmup_memory_steps]
    if len(known) < LEAST_STEPS:
        return None
    numbers, values = zip(*known, strict=True)
    return float(stats.theilslopes(values, numbers)[0])


def _more_keys(cell: CellRuns) -> int:
    """How many more series the candidate logs: each is kept for as long as the trainer lives."""
    return max(
        (len(c.series.keys() - b.series.keys()) for b, c in cell.ok_pairs.values()), default=0
    )
