"""Numbers in, numbers out: intervals over seeds.

One number per seed goes in; training steps are never samples. Intervals are Student's t, because a
percentile bootstrap over 3 to 5 seeds covers far less than it says. Too few numbers give None, never
a zero-width interval. What this leaves out: p values (`equivalence`, `trend`), many claims
(`multiplicity`) and power (`power`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

CONFIDENCE = 0.95
# A spread this far below what is measured is rounding: the values are the same number.
NO_SPREAD = 1e-9
MOST_LOG = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its two-sided t interval; low and high are None below two values."""

    mean: float
    low: float | None
    high: float | None
    n: int
    sd: float | None  # sample standard deviation (n - 1)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate | None:
    """Estimate a mean and its two-sided t interval; None without a finite value.

    Raises: ValueError if a value is not finite: a failed run has no number and must not become one.
    """
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"values must be finite, found {list(values)}")
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1, None)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    quantile = float(special.stdtrit(n - 1, (1 + confidence) / 2))
    half = quantile * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, sd)


def paired_difference(
    candidate: dict[int, float], baseline: dict[int, float], confidence: float = CONFIDENCE
) -> Estimate | None:
    """Estimate candidate minus baseline over the seeds that both have."""
    seeds = sorted(candidate.keys() & baseline.keys())
    return mean_interval([candidate[s] - baseline[s] for s in seeds], confidence)


def paired_ratio(
    candidate: dict[int, float], baseline: dict[int, float], confidence: float = CONFIDENCE
) -> Estimate | None:
    """Estimate candidate / baseline as a geometric mean over the seeds that both have.

    The interval is the t interval of the log ratio, mapped back; `sd` stays in log units. Seeds with
    a value that is not positive are left out: they have no ratio.
    """
    seeds = sorted(
        s for s in candidate.keys() & baseline.keys() if candidate[s] > 0 and baseline[s] > 0
    )
    logs = mean_interval([math.log(candidate[s] / baseline[s]) for s in seeds], confidence)
    if logs is None:
        return None
    low = None if logs.low is None else _factor(logs.low)
    high = None if logs.high is None else _factor(logs.high)
    return Estimate(_factor(logs.mean), low, high, logs.n, logs.sd)


def _factor(log: float) -> float:
    """Return e to a power; of two wild seeds an interval reaches beyond what a float holds."""
    return math.exp(log) if log < MOST_LOG else sys.float_info.max


def median(values: Sequence[float]) -> float | None:
    """Return the median, or None of nothing."""
    ordered = sorted(values)
    n = len(ordered)
    if n == 0:
        return None
    middle = n // 2
    return ordered[middle] if n % 2 else (ordered[middle - 1] + ordered[middle]) / 2
