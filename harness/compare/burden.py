"""More memory or more time than the base: suspicions, and which of them are changes.

No machine measures memory or time twice the same. What training really takes more of, it takes in all runs
that go that way; what a machine does, it does to a run here and there. So a cell that is beyond a limit
counts if another cell of its task or of its adapter is too, or if it is beyond by far.
What this leaves out: the measures (`memory`, `speed`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.grouping import CellRuns
from harness.compare.model import Difference, Kind, Layer
from harness.stats import median


@dataclass(frozen=True)
class Suspect:
    """One cell beyond a limit."""

    cell: CellRuns
    what: str
    excess: float  # how many times the limit
    base: float
    candidate: float
    ratio: float | None
    text: str
    is_repeatable: bool = False  # measured the same each time, so that it needs no company


@dataclass(frozen=True)
class Spread:
    """How far apart reruns of one side were: what a limit must at least allow. 1 and 0 if unknown."""

    step_ratio: float = 1.0
    construct_ratio: float = 1.0
    slope_bytes: float = 0.0
    peak_ratio: float = 1.0


def settle(
    suspects: Sequence[Suspect], layer: Layer, kind: Kind, alone: float
) -> dict[str, list[Difference]]:
    """Return the differences by cell: `changed` in company or by far, otherwise shown and no change."""
    found: dict[str, list[Difference]] = defaultdict(list)
    for each in suspects:
        has_company = any(_is_like(each, other) for other in suspects if other is not each)
        counts = each.is_repeatable or has_company or each.excess >= alone
        why = "" if counts else "; in this run alone, as a busy machine does"
        found[each.cell.name].append(
            Difference(
                layer=layer,
                kind=kind,
                what=each.what,
                word="changed" if counts else "same",
                base=each.base,
                candidate=each.candidate,
                relative=each.ratio,
                sentence=each.text + why,
            )
        )
    return dict(found)


def shared_drift(ratios: Sequence[tuple[CellRuns, float]]) -> float:
    """Return by how much every group of cells is heavier alike, at least 1.

    That is a busy machine, or what all of them share.
    A group is a task trained one way. With a single group nothing can be told apart, so it is 1.
    """
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell, ratio in ratios:
        groups[cell.task, cell.method].append(ratio)
    if len(groups) < 2:
        return 1.0
    middles = [middle for each in groups.values() if (middle := median(each)) is not None]
    return max(1.0, min(middles))


def _is_like(one: Suspect, other: Suspect) -> bool:
    """Whether two cells share what could have changed in both."""
    is_adapter = one.cell.method == other.cell.method == "lora"
    return one.what == other.what and (one.cell.task == other.cell.task or is_adapter)
