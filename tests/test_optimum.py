"""Best learning rates from grids, on parabolas whose lowest point is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.equivalence import ratio_p_within
from harness.optimum import Optimum, optimum, rate_ratio
from harness.stats import paired_ratio

GRID = [10 ** (-6 + 0.25 * i) for i in range(13)]


def curve(best: float, grid: list[float] = GRID, curvature: float = 0.05) -> dict[float, float]:
    """Losses of a true parabola in log10(rate), lowest at the rate `best`."""
    return {rate: 1.5 + curvature * math.log10(rate / best) ** 2 for rate in grid}


@given(st.floats(-5.8, -3.2), st.floats(0.01, 10.0))
def test_a_parabola_s_lowest_point_is_found_between_the_grid_s(log10_best, curvature):
    found = optimum(curve(10**log10_best, curvature=curvature))
    assert found.place == "inside"
    assert found.log10_rate == pytest.approx(log10_best, abs=1e-6)


def test_steps_of_the_grid_may_differ():
    uneven = [1e-6, 3e-6, 2e-5, 1e-4, 2e-4, 1e-3]
    assert optimum(curve(5e-5, uneven)).log10_rate == pytest.approx(math.log10(5e-5))


@given(st.lists(st.floats(0, 5), min_size=3, max_size=7))
def test_an_optimum_never_lies_beyond_the_neighbours_of_the_lowest_point(losses):
    found = optimum(dict(zip(GRID, losses, strict=False)))
    if found.log10_rate is not None:
        logs = [math.log10(rate) for rate in GRID[: len(losses)]]
        near = [i for i, loss in enumerate(losses) if loss == min(losses)]
        assert logs[near[0] - 1] <= found.log10_rate <= logs[near[-1] + 1]


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ({}, "edge"),
        ({1e-4: 1.0}, "edge"),
        ({1e-5: 2.0, 1e-4: 1.0}, "edge"),
        ({1e-5: 1.0, 1e-4: 2.0, 1e-3: 3.0}, "edge"),
        ({1e-5: 3.0, 1e-4: 2.0, 1e-3: 1.0}, "edge"),
        ({1e-5: 1.0, 1e-4: 2.0, 1e-3: 1.0}, "edge"),
        ({1e-5: 2.0, 1e-4: 1.0, 1e-3: math.nan}, "edge"),
        ({1e-5: math.inf, 1e-4: 1.0, 1e-3: 2.0}, "edge"),
        ({1e-5: math.nan, 1e-4: math.nan, 1e-3: math.nan}, "edge"),
        ({1e-6: 2.0, 1e-5: 1.0, 1e-4: 1.0, 1e-3: 1.0, 1e-2: 2.0}, "flat"),
        ({1e-5: 1.0, 1e-4: 1.0, 1e-3: 1.0}, "edge"),
    ],
)
def test_a_grid_that_does_not_surround_its_lowest_point_has_no_optimum(losses, place):
    assert optimum(losses) == Optimum(None, place)


def test_a_rate_that_diverged_further_off_does_not_matter():
    losses = curve(1e-4)
    losses[GRID[-1]] = math.nan
    losses[GRID[-2]] = math.inf
    assert optimum(losses) == optimum(curve(1e-4))


def test_two_lowest_points_share_the_optimum():
    found = optimum({1e-5: 2.0, 1e-4: 1.0, 1e-3: 1.0, 1e-2: 2.0})
    assert found.log10_rate == pytest.approx(-3.5)


@pytest.mark.parametrize("rate", [0.0, -1e-4, math.nan, math.inf])
def test_what_is_no_learning_rate_is_refused(rate):
    with pytest.raises(ValueError, match="positive learning rates"):
        optimum({rate: 1.0, 1e-4: 2.0})


def sweeps(bests: list[float]) -> dict[int, dict[float, float]]:
    return {seed: curve(best) for seed, best in enumerate(bests)}


def test_a_ratio_of_best_rates_is_a_paired_ratio_of_the_optima():
    lora, full = [2e-4, 1e-4, 1.6e-4], [2e-5, 1.1e-5, 1.5e-5]
    found = rate_ratio(sweeps(lora), sweeps(full))
    expected = paired_ratio(dict(enumerate(lora)), dict(enumerate(full)))
    assert found.lost == ()
    assert found.estimate.mean == pytest.approx(expected.mean)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((expected.low, expected.high))
    assert found.p_within(5, 20) == pytest.approx(ratio_p_within(expected, 5, 20))
    assert found.p_within(5, 20) < 0.05 < found.p_within(11, 20)


def test_a_seed_at_the_grid_s_edge_is_named_and_withholds_the_p_value():
    found = rate_ratio(sweeps([2e-4, 1e-4, 1.6e-4, 0.5]), sweeps([2e-5, 1.1e-5, 1.5e-5, 1e-5]))
    assert found.lost == (3,)
    assert found.estimate.n == 3
    assert found.p_within(5, 20) is None


def test_a_seed_that_only_one_arm_has_is_lost():
    assert rate_ratio(sweeps([2e-4, 1e-4]), sweeps([2e-5])).lost == (1,)


def test_equal_single_and_missing_sweeps_have_no_p_value():
    for seeds in (0, 1, 3):
        found = rate_ratio(sweeps([1e-4] * seeds), sweeps([1e-5] * seeds))
        assert found.p_within(5, 20) is None
    assert rate_ratio({}, {}).estimate is None


def test_the_confidence_is_the_interval_s():
    lora, full = sweeps([2e-4, 1e-4, 1.6e-4]), sweeps([2e-5, 1.1e-5, 1.5e-5])
    wide, narrow = rate_ratio(lora, full, 0.95).estimate, rate_ratio(lora, full, 0.9).estimate
    assert wide.low < narrow.low < narrow.high < wide.high
    assert np.isfinite(wide.high)
