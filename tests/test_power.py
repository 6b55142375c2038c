"""Power in closed form, against the published table of detectable margins."""

from __future__ import annotations

import pytest
from scipy import stats

from harness.power import MOST_SEEDS, match_power, seeds_needed
from harness.stats import mean_interval

# Seeds → the margin, in spreads, that 80 % of studies decide; one-sided at .05, and at .025.
MARGINS = {
    3: (2.30, 3.26),
    4: (1.64, 2.13),
    5: (1.36, 1.68),
    6: (1.19, 1.43),
    8: (0.98, 1.16),
    10: (0.85, 1.00),
    16: (0.65, 0.75),
}


@pytest.mark.parametrize("seeds", MARGINS)
def test_the_detectable_margins_are_those_of_the_table(seeds):
    wide, narrow = MARGINS[seeds]
    assert match_power(seeds, wide, 1.0, alpha=0.05) == pytest.approx(0.8, abs=0.01)
    assert match_power(seeds, narrow, 1.0) == pytest.approx(0.8, abs=0.01)


def test_at_the_margin_power_is_the_error_rate():
    assert match_power(5, 0.3, 1.0, difference=0.3) == pytest.approx(0.025)


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0, 1.5, 3.3])
def test_the_seeds_needed_are_the_fewest_that_reach_the_power(margin):
    seeds = seeds_needed(margin, 1.0)
    assert match_power(seeds, margin, 1.0) >= 0.8
    assert seeds == 2 or match_power(seeds - 1, margin, 1.0) < 0.8


def test_units_do_not_matter():
    assert seeds_needed(0.01, 0.008) == seeds_needed(10.0, 8.0)


def test_a_difference_that_is_there_takes_more_seeds():
    counts = [seeds_needed(1.0, 1.0, difference=d) for d in (-0.5, 0.0, 0.5)]
    assert counts == sorted(counts)
    assert len(set(counts)) == 3


def test_what_no_number_of_seeds_decides_has_none():
    assert seeds_needed(1.0, 1.0, difference=1.0) is None
    assert seeds_needed(1e-4, 1.0) is None
    assert match_power(MOST_SEEDS, 1e-4, 1.0) < 0.8


@pytest.mark.parametrize(("seeds", "sd"), [(1, 1.0), (3, 0.0)])
def test_what_has_no_power_is_refused(seeds, sd):
    with pytest.raises(ValueError, match="two seeds or more and a spread"):
        match_power(seeds, 1.0, sd)


def test_quantiles_are_scipy_s_own():
    interval = mean_interval([1.0, 2.0, 4.0])
    assert interval.high - interval.mean == pytest.approx(
        stats.t.ppf(0.975, 2) * stats.sem([1.0, 2.0, 4.0]), rel=1e-12
    )
