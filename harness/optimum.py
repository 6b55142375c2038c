"""The learning rate at which a grid's losses are lowest, and how two arms' best rates compare.

A grid's lowest point is only as fine as the grid; the parabola through it and its neighbours, over the
logarithm of the rate, is finer. A lowest point at the grid's edge says that the best rate may lie beyond:
it is reported, never extrapolated. What this leaves out: choosing the grid, and rewards (turn their sign).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.equivalence import ratio_p_within
from harness.stats import CONFIDENCE, Estimate, paired_ratio

Losses = Mapping[float, float]  # learning rate → loss of one seed; NaN or infinite if it diverged


@dataclass(frozen=True)
class Optimum:
    """Where one seed's parabola is lowest, or why that can't be said.

    'edge': the lowest loss has no trained neighbour on one side. 'flat': it and both neighbours are
    equal, so the parabola is not convex.
    """

    log10_rate: float | None  # decades
    place: Literal["inside", "edge", "flat"]


@dataclass(frozen=True)
class RateRatio:
    """The best rate of one arm over that of another, seeds paired."""

    estimate: Estimate | None  # over the seeds with both optima; the spread in natural logs
    lost: tuple[int, ...]  # seeds in which either arm has no optimum inside its grid

    def p_within(self, low: float, high: float) -> float | None:
        """Return the TOST's p value of H0: the ratio isn't between two factors.

        None if a seed was lost: the others can't speak for it. Otherwise as `ratio_p_within`.
        """
        return None if self.lost else ratio_p_within(self.estimate, low, high)


def optimum(losses: Losses) -> Optimum:
    """Find where the parabola through the lowest point and its neighbours is lowest.

    A rate that diverged is worse than any other; next to the lowest point it is no neighbour, since a
    parabola can't pass through it. Units: losses in any, lower is better. Raises: ValueError if a rate
    isn't positive and finite.
    """
    if not all(0 < rate < math.inf for rate in losses):
        raise ValueError(f"expected positive learning rates, found {sorted(losses)}")
    points = [(math.log10(rate), losses[rate]) for rate in sorted(losses)]
    trained = [loss for _, loss in points if math.isfinite(loss)]
    if not trained:
        return Optimum(None, "edge")
    least = min(trained)
    lowest = [i for i, (_, loss) in enumerate(points) if loss == least]
    if lowest[0] == 0 or lowest[-1] == len(points) - 1:
        return Optimum(None, "edge")
    middle = lowest[len(lowest) // 2]
    (x0, y0), (x1, y1), (x2, y2) = points[middle - 1 : middle + 2]
    if not (math.isfinite(y0) and math.isfinite(y2)):
        return Optimum(None, "edge")
    falling, rising = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if not rising > falling:
        return Optimum(None, "flat")
    # The slope runs straight from the middle of the left step to the middle of the right one.
    left, right = (x0 + x1) / 2, (x1 + x2) / 2
    return Optimum(left - falling * (right - left) / (rising - falling), "inside")


def rate_ratio(
    candidate: Mapping[int, Losses],
    baseline: Mapping[int, Losses],
    confidence: float = CONFIDENCE,
) -> RateRatio:
    """Compare two arms' best rates over all seeds that either has: seed → losses."""
    best: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for rates, arm in zip(best, (candidate, baseline), strict=True):
        for seed, losses in arm.items():
            log10_rate = optimum(losses).log10_rate
            if log10_rate is not None:
                rates[seed] = 10**log10_rate
    seeds = candidate.keys() | baseline.keys()
    lost = tuple(sorted(seeds - (best[0].keys() & best[1].keys())))
    return RateRatio(paired_ratio(*best, confidence), lost)
