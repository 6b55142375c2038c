"""P values of a mean over seeds, against statsmodels, the intervals and the rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.equivalence import p_above, p_below, p_within, ratio_p_within
from harness.stats import Estimate, mean_interval, paired_difference, paired_ratio


@pytest.fixture(scope="module")
def ttost_paired():
    from statsmodels.stats import weightstats  # takes seconds to load, which no other test pays

    return weightstats.ttost_paired


def arms(seeds: int, shift: float) -> tuple[dict[int, float], dict[int, float]]:
    generator = np.random.default_rng(seeds)
    full = generator.lognormal(0.5, 0.2, seeds)
    lora = full + generator.normal(shift, 0.1, seeds)
    return dict(enumerate(lora.tolist())), dict(enumerate(full.tolist()))


def values(arm: dict[int, float]) -> np.ndarray:
    return np.array(list(arm.values()))


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
@pytest.mark.parametrize("shift", [0.0, 0.09, 0.5])
@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (-0.3, 0.05), (0.01, 0.2)])
def test_p_values_are_those_of_statsmodels(ttost_paired, seeds, shift, low, high):
    lora, full = arms(seeds, shift)
    p, (_, p_low, _), (_, p_high, _) = ttost_paired(values(lora), values(full), low, high)
    difference = paired_difference(lora, full)
    assert p_within(difference, low, high) == pytest.approx(p, rel=0, abs=1e-9)
    assert p_above(difference, low) == pytest.approx(p_low, rel=0, abs=1e-9)
    assert p_below(difference, high) == pytest.approx(p_high, rel=0, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5, 12])
def test_a_ratio_is_tested_in_logs_as_statsmodels_does(ttost_paired, seeds):
    lora, full = arms(seeds, 0.05)
    ours = ratio_p_within(paired_ratio(lora, full), 0.8, 1.25)
    theirs = ttost_paired(values(lora), values(full), 0.8, 1.25, transform=np.log)
    assert ours == pytest.approx(theirs[0], rel=0, abs=1e-9)


def test_three_values_by_hand():
    # mean 2, sd 1: t against 3 is −√3; with 2 degrees of freedom P(T <= t) = ½ + t / (2 √(2 + t²))
    below = p_below(mean_interval([1.0, 2.0, 3.0]), 3.0)
    assert below == pytest.approx(0.5 - math.sqrt(3) / (2 * math.sqrt(5)))


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.01])
def test_a_p_value_is_under_alpha_where_the_interval_ends_before_the_bound(alpha):
    for draw in np.random.default_rng(7).normal(0.0, 1.0, (200, 4)).tolist():
        estimate = mean_interval(draw, 1 - 2 * alpha)
        assert (p_below(estimate, 1.0) < alpha) == (estimate.high < 1.0)
        assert (p_above(estimate, -1.0) < alpha) == (estimate.low > -1.0)
        inside = estimate.low > -1.0 and estimate.high < 1.0
        assert (p_within(estimate, -1.0, 1.0) < alpha) == inside


def test_the_two_sides_add_up_and_mirror():
    estimate, mirrored = mean_interval([1.0, 2.0, 4.0]), mean_interval([-1.0, -2.0, -4.0])
    assert p_below(estimate, 1.5) + p_above(estimate, 1.5) == pytest.approx(1.0)
    assert p_below(estimate, 1.5) == pytest.approx(p_above(mirrored, -1.5))
    assert p_within(estimate, -math.inf, 5.0) == p_below(estimate, 5.0)


NAN = Estimate(math.nan, math.nan, math.nan, 3, math.nan)


@pytest.mark.parametrize(
    "estimate",
    [
        None,
        mean_interval([]),
        mean_interval([0.0]),
        mean_interval([0.0, 0.0, 0.0]),
        mean_interval([0.1, 0.1, 0.1]),
        mean_interval([0.1, 0.1 + 1e-16, 0.1 - 1e-16]),
        NAN,
        Estimate(math.inf, math.inf, math.inf, 3, 1.0),
    ],
)
def test_what_has_no_spread_or_no_number_has_no_p_value(estimate):
    assert p_below(estimate, 1.0) is None
    assert p_above(estimate, -1.0) is None
    assert p_within(estimate, -1.0, 1.0) is None
    assert ratio_p_within(estimate, 0.5, 2.0) is None


def test_bounds_that_bound_nothing_are_refused():
    estimate = mean_interval([1.0, 2.0])
    for low, high in [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)]:
        with pytest.raises(ValueError, match="low end below"):
            p_within(estimate, low, high)
    for low, high in [(0.0, 2.0), (-1.0, 2.0), (2.0, 1.0)]:
        with pytest.raises(ValueError, match="0 < low < high"):
            ratio_p_within(estimate, low, high)
    with pytest.raises(ValueError, match="NaN"):
        p_below(estimate, math.nan)
