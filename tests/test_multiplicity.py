"""One error rate over several tests, against statsmodels and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from harness.multiplicity import Look, holm, plan_looks
from harness.power import ALPHA
from harness.stats import CONFIDENCE

p_value = st.floats(0, 1)


@pytest.mark.slow
def test_adjusted_p_values_are_those_of_statsmodels():
    from statsmodels.stats.multitest import multipletests  # takes seconds to load

    generator = np.random.default_rng(20260101)
    for claims in (1, 2, 3, 9, 12) * 4:
        p_values = (
            generator.integers(0, 40, claims) / 40
        ).tolist()  # coarse, so that some are equal
        theirs = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(theirs.tolist(), rel=0, abs=1e-12)


def test_adjusted_p_values_by_hand():
    assert holm([0.02, 0.01, 0.5]) == pytest.approx([0.04, 0.03, 0.5])
    assert holm([]) == []


@given(st.lists(st.none() | p_value, max_size=12))
def test_a_claim_without_a_p_value_stays_so_and_counts_as_one_that_failed(p_values):
    adjusted = holm(p_values)
    as_failed = holm([1.0 if p is None else p for p in p_values])
    for plain, ours, failed in zip(p_values, adjusted, as_failed, strict=True):
        assert ours == (None if plain is None else failed)
        assert ours is None or ours >= plain


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_what_is_no_p_value_is_refused(bad):
    with pytest.raises(ValueError, match="p values from 0 to 1"):
        holm([0.5, bad])


def test_looks_share_the_error_and_each_says_how_confident_its_interval_is():
    looks = plan_looks((3, 5, 8), 0.06)
    assert [look.seeds for look in looks] == [3, 5, 8]
    assert sum(look.alpha for look in looks) == pytest.approx(0.06)
    assert [look.confidence for look in looks] == pytest.approx([0.96] * 3)


def test_a_single_look_is_the_rule_s_own_interval():
    assert plan_looks([5], ALPHA) == (Look(5, ALPHA, pytest.approx(CONFIDENCE)),)


@pytest.mark.parametrize("seeds", [[], [1], [5, 3], [3, 3], [0, 4]])
def test_looks_that_are_no_plan_are_refused(seeds):
    with pytest.raises(ValueError, match="ascend from two seeds"):
        plan_looks(seeds, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.1, math.nan])
def test_an_error_rate_that_is_none_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha between"):
        plan_looks([3], alpha)


def test_o_brien_and_fleming_s_bounds_let_more_through_than_equal_parts():
    """The numbers by which `plan_looks` explains its choice, in 100,000 studies at the margin."""
    seeds, draws = np.array([3, 5, 8]), np.random.default_rng(20260101).normal(size=(100_000, 8))
    sums = np.stack([draws[:, :n].sum(axis=1) for n in seeds], axis=1)
    spreads = np.stack([draws[:, :n].std(axis=1, ddof=1) for n in seeds], axis=1)
    z, t = sums / np.sqrt(seeds), sums / np.sqrt(seeds) / spreads
    bounds = 1.702 * np.sqrt(8 / seeds)
    quantiles = special.stdtrit(seeds - 1, special.ndtr(bounds))
    parts = [
        special.stdtrit(look.seeds - 1, 1 - look.alpha) for look in plan_looks(seeds.tolist(), 0.05)
    ]
    shares = [(s > b).any(axis=1).mean() for s, b in [(z, bounds), (t, bounds), (t, quantiles)]]
    assert shares == pytest.approx([0.05, 0.12, 0.053], abs=0.003)
    assert (t > parts).any(axis=1).mean() == pytest.approx(0.04, abs=0.003)
    assert quantiles[0] == pytest.approx(13.5, abs=0.1)
