"""How many seeds a decision takes: the power of the rule, computed and not simulated.

A match is 'supported' when the upper end of a two-sided t interval stays below the margin, which is a
one-sided non-inferiority test at half of the interval's error. Its power follows from the noncentral t
distribution. The spread that goes in is itself estimated, from few seeds at that: 'about'. What this
leaves out: equivalence (both ends), and looks before the last seed (`multiplicity`).
"""

from __future__ import annotations

import math

from scipy import special

from harness.stats import CONFIDENCE

ALPHA = (1 - CONFIDENCE) / 2  # of the end that counts
POWER = 0.8
MOST_SEEDS = 1000  # nobody trains more; the search ends there


def match_power(
    seeds: int, margin: float, sd: float, difference: float = 0.0, alpha: float = ALPHA
) -> float:
    """Return how likely a true difference is found to lie below the margin, in so many seeds.

    sd: standard deviation of one seed's paired difference, in the margin's unit. difference: the true
    one, positive where the arm is worse. Raises: ValueError below two seeds, or without a spread.

    Source: Julious, Sample Sizes for Clinical Trials (2010), non-inferiority of a mean.
    """
    if seeds < 2 or sd <= 0:
        raise ValueError(f"expected two seeds or more and a spread, found {seeds} and {sd}")
    freedom = seeds - 1
    shift = (difference - margin) * math.sqrt(seeds) / sd
    critical = special.stdtrit(freedom, alpha)
    return float(special.nctdtr(freedom, shift, critical))


def seeds_needed(
    margin: float,
    sd: float,
    difference: float = 0.0,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int | None:
    """Return the fewest seeds that reach a power; None if `MOST_SEEDS` do not."""
    if difference >= margin:
        return None  # what is as bad as the margin is never shown to be better
    low, high = 2, MOST_SEEDS
    if match_power(high, margin, sd, difference, alpha) < power:
        return None
    while low < high:  # power grows with the seeds
        middle = (low + high) // 2
        if match_power(middle, margin, sd, difference, alpha) < power:
            low = middle + 1
        else:
            high = middle
    return low
