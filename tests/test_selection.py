"""A rate is chosen once its whole grid is there, on validation rows, and never one that failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.matrix import expand
from harness.record import PlannedRun, Status
from harness.selection import at_an_edge, choose, grid_of, grid_points, rate_key, waiting
from tests.claim_evidence import GRID, matrix_of, parabola
from tests.study_factory import Plan, build_study

SWEPT = matrix_of({}, swept=("r4",))
POINTS = parabola("r4", (1e-3, 1.3e-3, 0.9e-3))


def failed(points, *cells, status=Status.DIVERGED):
    """The points with these cells (rate, seed; a seed of None is every one) failed."""
    return [
        replace(p, status=status, value=None)
        if any(p.rate == rate and seed in (None, p.seed) for rate, seed in cells)
        else p
        for p in points
    ]


def test_the_best_mean_over_the_selection_seeds_is_chosen():
    assert choose(SWEPT, POINTS) == {("p", "r4"): 1e-3}
    assert choose(SWEPT, []) == {}
    # One seed that is far better elsewhere does not outweigh the others' mean.
    lucky = [replace(p, value=0.9) if (p.rate, p.seed) == (1e-2, 100) else p for p in POINTS]
    assert choose(SWEPT, lucky) == {("p", "r4"): 1e-3}


def test_a_higher_reward_is_better():
    toy = matrix_of({}, swept=("r4",), task="grpo")
    rewards = [replace(p, value=-p.value) for p in POINTS]
    assert choose(toy, rewards) == {("p", "r4"): 1e-3}


@pytest.mark.parametrize("status", [Status.NAN, Status.DIVERGED, Status.OOM_GPU, Status.OOM_HOST])
def test_a_rate_that_failed_with_any_seed_is_not_chosen(status):
    assert choose(SWEPT, failed(POINTS, (1e-3, 101), status=status)) == {("p", "r4"): 1e-2}
    without = [replace(p, value=None) if (p.rate, p.seed) == (1e-3, 101) else p for p in POINTS]
    assert choose(SWEPT, without) == {("p", "r4"): 1e-2}


def test_if_every_rate_failed_the_lowest_is_judged_so_that_the_failure_shows():
    assert choose(SWEPT, failed(POINTS, *((rate, 100) for rate in GRID))) == {("p", "r4"): GRID[0]}
    assert choose(SWEPT, failed(POINTS, *((rate, None) for rate in GRID))) == {("p", "r4"): GRID[0]}


def test_of_equal_rates_the_lower_is_chosen():
    level = [replace(p, value=1.0) for p in POINTS]
    assert choose(SWEPT, level) == {("p", "r4"): GRID[0]}


def test_an_incomplete_grid_chooses_nothing_and_says_what_it_waits_for():
    lacking = [p for p in POINTS if (p.rate, p.seed) != (1e-2, 102)]
    assert choose(SWEPT, lacking) == {}
    assert waiting(SWEPT, lacking) == {
        ("p", "r4"): "no rate is chosen yet: p.r4.lr1e-2.s102 of its grid did not end"
    }
    crashed = [replace(p, status=None, value=None) if p.seed == 102 else p for p in POINTS]
    assert choose(SWEPT, crashed) == {}
    assert waiting(SWEPT, crashed)["p", "r4"].endswith("s102 and 4 more of its grid did not end")
    assert waiting(SWEPT, POINTS) == {}
    assert "and 14 more" in waiting(SWEPT, [])["p", "r4"]


def test_points_of_other_seeds_rates_and_arms_count_for_nothing():
    other = [
        *(replace(p, seed=7, value=0.0) for p in POINTS),
        *(replace(p, arm="r1", value=0.0) for p in POINTS),
        *(replace(p, pair="q", value=0.0) for p in POINTS),
        replace(POINTS[0], rate=0.5, value=0.0),
    ]
    assert choose(SWEPT, [*other, *POINTS]) == {("p", "r4"): 1e-3}
    assert len(grid_of([*other, *POINTS], "p", "r1")) == 15


def test_a_choice_at_an_end_of_its_grid_is_said():
    low, high = (parabola("r4", (at,) * 3) for at in (1e-7, 1.0))
    assert "the lowest rate of its grid, 1e-5" in at_an_edge(SWEPT, choose(SWEPT, low))["p", "r4"]
    assert "the highest rate of its grid, 1e-1" in at_an_edge(SWEPT, choose(SWEPT, high))["p", "r4"]
    assert at_an_edge(SWEPT, choose(SWEPT, POINTS)) == {}


def test_an_arm_takes_its_own_rate_or_another_s():
    pair = SWEPT.pairs["p"]
    twin = pair.arms["r1"].model_copy(update={"rate_of": "r4", "trainer": {}})
    pair = pair.model_copy(update={"arms": {**pair.arms, "r1": twin}})
    shared = SWEPT.model_copy(update={"pairs": {"p": pair}})
    assert rate_key(shared, "p", "r4") == rate_key(shared, "p", "r1") == ("p", "r4")
    assert rate_key(shared, "p", "full") == ("p", "full")


def test_a_matrix_without_a_grid_has_nothing_to_choose():
    bare = matrix_of({})
    assert (choose(bare, POINTS), waiting(bare, []), at_an_edge(bare, {})) == ({}, {}, {})


def test_a_point_is_the_last_validation_of_a_run_of_the_grid():
    view = build_study(Plan())
    run = view.runs[0]
    tried = run.planned.model_copy(update={"grid_rate": 1e-3})
    (point,) = grid_points([(run.planned, run.record), (tried, run.record)])
    last = [p for p in run.record.result.evaluations if p.split == "validation"][-1]
    assert (point.rate, point.value, point.status) == (1e-3, last.value, Status.OK)
    assert point.is_ok


@pytest.mark.parametrize("status", list(Status))
def test_an_accident_is_no_point_yet_and_a_failure_is_one_without_a_value(status):
    view = build_study(Plan())
    run = view.runs[0]
    tried = run.planned.model_copy(update={"grid_rate": 1e-3})
    record = run.record.model_copy(update={"status": status, "result": None})
    (point,) = grid_points([(tried, record)])
    assert (point.status is None) == (not record.is_done)
    assert (point.value, point.is_ok) == (None, False)
    (nothing,) = grid_points([(tried, None)])
    assert nothing.status is None


def test_a_rate_survives_json():
    """Rates stand in study.json, and are looked up by equality."""
    rates = {
        PlannedRun.model_validate_json(
            PlannedRun(
                run_id=s.run_id, pair=s.pair, arm=s.arm, seed=s.seed, grid_rate=s.grid_rate
            ).model_dump_json()
        ).grid_rate
        for s in expand(SWEPT)
        if s.stage == "select"
    }
    assert rates == set(GRID)
