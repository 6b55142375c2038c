"""The numbers under the learning curves."""

from __future__ import annotations

import pytest

from harness.series import learning_curves, over_seeds, smooth, thin
from tests.study_factory import STEPS, Plan, build_study


def test_smoothing_is_a_trailing_mean_that_skips_gaps():
    assert smooth([1.0, 3.0, None, 5.0], 2) == [1.0, 2.0, 3.0, 5.0]
    assert smooth([None, 2.0], 3) == [None, 2.0]
    assert smooth([1.0, 2.0], 1) == [1.0, 2.0]


def test_seeds_are_combined_step_by_step():
    rows = over_seeds([{0: 1.0, 1: 2.0}, {0: 3.0}])
    assert rows == [(0, 2.0, 1.0, 3.0, 2), (1, 2.0, 2.0, 2.0, 1)]


@pytest.mark.parametrize("n", [0, 1, 7, 300, 301, 5000])
def test_thinning_keeps_first_and_last(n):
    rows = list(range(n))
    kept = thin(rows, 300)
    assert len(kept) <= 301
    assert kept[:1] == rows[:1]
    assert kept[-1:] == rows[-1:]


def test_sft_shows_validation_nll_and_test_points():
    curves = learning_curves(build_study(), "sft-micro")
    assert (curves.measure, curves.metric, curves.window_steps) == ("validation NLL", "nll", 1)
    assert {p.split for p in curves.held_out} == {"test"}
    assert {p.seeds for p in curves.line} == {3}
    assert all(p.low - 1e-9 <= p.mean <= p.high + 1e-9 for p in curves.line)


def test_grpo_shows_smoothed_train_reward_and_held_out_points():
    curves = learning_curves(build_study(), "grpo-micro")
    assert (curves.measure, curves.window_steps) == ("train reward", 10)
    assert {p.split for p in curves.held_out} == {"test", "validation"}
    assert [p.step for p in curves.line if p.arm == "full"] == list(range(1, STEPS["grpo"] + 1))


def test_a_failed_run_is_named_and_not_averaged():
    study = build_study(Plan(failures={"sft-micro.full.s1": "nan", "sft-micro.full.s2": "missing"}))
    curves = learning_curves(study, "sft-micro")
    assert curves.left_out == ("full.s1: nan", "full.s2: not run")
    assert {p.seeds for p in curves.line if p.arm == "full"} == {1}


def test_nothing_finished_gives_empty_curves():
    failures = {f"sft-micro.{a}.s{s}": "missing" for a in ("full", "lora-r32") for s in range(3)}
    curves = learning_curves(build_study(Plan(failures=failures)), "sft-micro")
    assert (curves.line, curves.held_out, len(curves.left_out)) == ((), (), 6)
