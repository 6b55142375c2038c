"""More memory or more time than the base: suspicions, and which of them are changes.

No machine measures memory or time twice the same. What training really takes more of, it takes in most runs
that go that way: of a task trained one way, or of a pair in all its arms. What a machine does, it does to a
run here and there. So a suspicion counts if most of its like are suspected, or if it is beyond by far.
What this leaves out: the measures (`memory`, `speed`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.compare.grouping import CellRuns
from harness.compare.model import Difference
from harness.stats import median

HALF, MOST, NEARLY_ALL = 0.5, 0.75, 0.9


@dataclass(frozen=True)
class Suspect:
    """One cell beyond a limit, or half-way to it."""

    cell: CellRuns
    what: str
    excess: float  # how many times the limit
    is_strong: bool  # beyond it; if not, it counts only where its like are
    base: float
    candidate: float
    ratio: float | None
    text: str
    is_repeatable: bool = False  # measured the same each time, so that it needs no company
    is_heavy: bool = False  # by so much that the arms of its pair need no other company
    # By so little that it is nothing by itself, and its pair no company, as it ran at the same time.
    is_light: bool = False


@dataclass(frozen=True)
class Spread:
    """How far apart reruns of one side were: what a limit must at least allow. 1 and 0 if unknown."""

    step_ratio: float = 1.0
    construct_ratio: float = 1.0
    slope_bytes: float = 0.0
    peak_ratio: float = 1.0


def settle(
    suspects: Sequence[Suspect],
    measured: Sequence[CellRuns],
    kind: Literal["memory", "speed"],
    alone: float,
) -> dict[str, list[Difference]]:
    """Return the differences by cell: `changed` among like ones or by far, otherwise shown and no change.

    `measured` are all cells that were looked at.
    """
    found: dict[str, list[Difference]] = defaultdict(list)
    for each in suspects:
        rest = [s for s in suspects if s.what == each.what]
        by_far = each.excess >= alone and not each.is_light
        counts = each.is_repeatable or by_far or _is_shared(each, rest, measured)
        if not counts and not each.is_strong:
            continue
        why = "" if counts else "; in this run and not in its like, as a busy machine does"
        found[each.cell.name].append(
            Difference(
                layer=kind,
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


def _is_shared(each: Suspect, suspects: Sequence[Suspect], measured: Sequence[CellRuns]) -> bool:
    """Whether what is like a cell is beyond the limit too."""
    strong = {s.cell.name for s in suspects if s.is_strong}
    suspected = {s.cell.name for s in suspects}
    if _like_are_heavy(each.cell, strong, suspected, measured):
        return True
    # A pair's setting: all of its arms, none of which is explained by its like, or each by much.
    arms = [cell for cell in measured if cell.pair == each.cell.pair]
    heavy = {s.cell.name for s in suspects if s.is_heavy}
    telling = strong - {s.cell.name for s in suspects if s.is_light}
    if len(arms) < 2 or not all(cell.name in telling for cell in arms):
        return False
    return all(cell.name in heavy for cell in arms) or not any(
        _like_are_heavy(cell, strong, suspected, measured) for cell in arms
    )


def _like_are_heavy(
    cell: CellRuns, strong: set[str], suspected: set[str], measured: Sequence[CellRuns]
) -> bool:
    """Whether at least two, and half, of what is like a cell are beyond the limit.

    Like it is its task trained its way; and its whole task or all that has its method, if most cells of
    that are beyond and nearly all are suspected.
    """
    group = [c.name for c in measured if (c.task, c.method) == (cell.task, cell.method)]
    task = [c.name for c in measured if c.task == cell.task]
    method = [c.name for c in measured if c.method == cell.method]
    wide = [s for s in (task, method) if sum(n in suspected for n in s) >= NEARLY_ALL * len(s)]
    return any(
        (beyond := sum(name in strong for name in names)) >= 2 and beyond >= share * len(names)
        for names, share in ((group, HALF), *((names, MOST) for names in wide))
    )
