"""One error rate over several tests: many claims at once, and looks before the last seed.

Nine true nulls tested at 5 % each give a false 'supported' in more than a third of all studies; so does
looking again after every few seeds, more slowly. Both corrections here hold whatever the tests share:
claims share runs, and a later look contains the earlier. What this leaves out: the tests themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Look:
    """A number of seeds, planned beforehand, after which a claim may be decided."""

    seeds: int
    alpha: float  # one-sided error of this look alone
    confidence: float  # of a two-sided interval that leaves alpha beyond each end


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of a family of claims, step down; those up to alpha are its supported ones.

    None is a claim without a p value. It stays None and still counts: the family is what was planned,
    or losing runs would make the other claims easier. Raises: ValueError if a value is no p value.

    Source: Holm, Scand. J. Stat. 6 (1979), 65–70.
    """
    known = [(p, i) for i, p in enumerate(p_values) if p is not None]
    if not all(0 <= p <= 1 for p, _ in known):
        raise ValueError(f"expected p values from 0 to 1 or None, found {list(p_values)}")
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0  # a claim is never easier than the one before it
    for rank, (p, i) in enumerate(sorted(known)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p))
        adjusted[i] = floor
    return adjusted


def plan_looks(seeds: Sequence[int], alpha: float) -> tuple[Look, ...]:
    """Share a one-sided error among looks after so many seeds, in equal parts (Bonferroni).

    The total stays at or below alpha however the looks depend on each other, if each look's own test
    keeps its part. O'Brien and Fleming's bounds spend more at the last look, but assume statistics that
    are jointly normal, which t statistics of 3 to 8 seeds are not. Used as they stand for looks at 3, 5
    and 8 seeds, 5 % becomes 12 %; turned into quantiles of t it becomes 5.3 %, and the first look asks
    for t = 13.5, which would make it useless. Equal parts come to 4.0 % there.

    alpha: for the rule's 95 % intervals (one look) it is `power.ALPHA`. Raises: ValueError without a
    look, for looks that don't ascend from two seeds, or if alpha isn't between 0 and a half.
    """
    ascends = all(a < b for a, b in pairwise(seeds))
    if not seeds or seeds[0] < 2 or not ascends:
        raise ValueError(f"expected looks that ascend from two seeds or more, found {list(seeds)}")
    if not 0 < alpha < 0.5:
        raise ValueError(f"expected an alpha between 0 and 0.5, found {alpha:g}")
    part = alpha / len(seeds)
    return tuple(Look(n, part, 1 - 2 * part) for n in seeds)
