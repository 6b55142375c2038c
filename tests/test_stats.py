"""Intervals over seeds, against scipy, closed forms and simulated truth."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.stats import mean_interval, median, paired_difference, paired_ratio

finite = st.floats(-1e6, 1e6)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_interval_is_that_of_scipy(n):
    values = np.random.default_rng(n).normal(3, 2, n).tolist()
    low, high = scipy_stats.t.interval(
        0.95, n - 1, loc=np.mean(values), scale=scipy_stats.sem(values)
    )
    estimate = mean_interval(values)
    assert estimate.mean == pytest.approx(np.mean(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert estimate.sd == pytest.approx(np.std(values, ddof=1))
    assert estimate.n == n


def test_three_values_by_hand():
    # mean 2, sd 1, t(0.975, 2) = 4.30265, half = 4.30265 / sqrt(3)
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert estimate.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval_and_none_has_no_estimate():
    one = mean_interval([4.0])
    assert (one.mean, one.low, one.high, one.sd, one.n) == (4.0, None, None, None, 1)
    assert mean_interval([]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, bad, 2.0])


@pytest.mark.parametrize("n", [3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(n):
    """4,000 simulated studies: 95 % coverage has a standard error of 0.34 points."""
    draws = np.random.default_rng(20260101).normal(0.7, 0.3, (4000, n))
    covered = sum(
        (e := mean_interval(row.tolist())).low <= 0.7 <= e.high  # type: ignore[union-attr]
        for row in draws
    )
    assert covered / 4000 == pytest.approx(0.95, abs=0.0125)


def test_difference_is_paired_by_seed_and_ignores_lone_seeds():
    estimate = paired_difference({0: 1.5, 1: 2.5, 7: 99.0}, {0: 1.0, 1: 2.0, 8: -99.0})
    assert estimate.mean == pytest.approx(0.5)
    assert (estimate.n, estimate.sd) == (2, pytest.approx(0.0))
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=6), finite)
def test_difference_ignores_what_both_arms_of_a_seed_share(pairs, shift):
    plain = paired_difference(
        {i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)}
    )
    moved = paired_difference(
        {i: a + shift for i, (a, _) in enumerate(pairs)},
        {i: b + shift for i, (_, b) in enumerate(pairs)},
    )
    assert moved.mean == pytest.approx(plain.mean, abs=1e-6)
    assert plain.low <= plain.mean <= plain.high


def test_ratio_is_a_geometric_mean_and_inverts():
    a, b = {0: 2.0, 1: 8.0}, {0: 1.0, 1: 1.0}
    forth, back = paired_ratio(a, b), paired_ratio(b, a)
    assert forth.mean == pytest.approx(4.0)
    assert back.mean == pytest.approx(1 / forth.mean)
    assert (back.low, back.high) == pytest.approx((1 / forth.high, 1 / forth.low))


def test_ratio_leaves_out_seeds_without_one():
    estimate = paired_ratio({0: 2.0, 1: 0.0, 2: 3.0}, {0: 1.0, 1: 1.0, 2: -1.0})
    assert (estimate.mean, estimate.n, estimate.low) == (pytest.approx(2.0), 1, None)
    assert paired_ratio({0: 0.0}, {0: 1.0}) is None


def test_median():
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5


def test_an_interval_of_wild_ratios_ends_where_floats_do():
    wild = paired_ratio({0: 1.0, 1: 1e15}, {0: 1e15, 1: 1.0})
    assert wild.mean == pytest.approx(1.0)
    assert wild.low >= 0
    assert math.isfinite(wild.high)
    wilder = paired_ratio({0: 1.0, 1: 1e60}, {0: 1e60, 1: 1.0})
    assert (wilder.low, wilder.high) == (0.0, sys.float_info.max)
