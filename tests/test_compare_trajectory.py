"""The whole run: parting after the first steps, rounding that grows, shifts under the tolerance."""

from __future__ import annotations

import random

import pytest

from harness.compare.exact import Stacks, compare_exact
from harness.compare.limits import Limits
from harness.compare.tracks import Track
from harness.compare.trajectory import compare_trajectory, one_sided_p, residuals
from tests.comparison_sides import PACKAGES, make_run, round_all, scale_gradient, scale_log

LIMITS = Limits()


def trajectory(base, candidate, tolerance=1e-5):
    exact = compare_exact(base, candidate, Stacks(PACKAGES, PACKAGES), LIMITS, tolerance)
    return compare_trajectory(base, candidate, LIMITS, exact, tolerance)


def run_of(pair="sft-plain", steps=30):
    return make_run(pair, "full", "full", 0, steps=steps)


def shaped(run, shape):
    """Move the logged loss by shape(step), relative."""
    loss = tuple(v * (1 + shape(i + 1)) for i, v in enumerate(run.series["loss"]))
    return run.model_copy(update={"series": {**run.series, "loss": loss}})


@pytest.mark.parametrize("pair", ["sft-plain", "grpo-plain"])
def test_identical_runs_stay_identical(pair):
    assert trajectory(run_of(pair), run_of(pair)) == []


@pytest.mark.parametrize("pair", ["sft-plain", "grpo-plain"])
def test_a_run_that_parts_after_identical_steps_changed_there(pair):
    found = trajectory(run_of(pair), scale_gradient(run_of(pair), 1.01, begin=15))
    assert {(d.word, d.step, d.layer) for d in found} == {("changed", 15, "trajectory")}
    assert "gradient" in {d.kind for d in found}


def test_what_parts_only_later_follows_from_what_parted_first():
    candidate = scale_log(scale_gradient(run_of(), 1.01, begin=15), "entropy", 1.2, begin=20)
    assert "log/entropy" not in {d.what for d in trajectory(run_of(), candidate)}


def test_rounding_that_grows_is_rounding():
    grown = shaped(round_all(run_of()), lambda step: 1e-7 * 1.3**step)
    found = trajectory(run_of(), grown)
    assert {d.word for d in found} == {"rounding"}
    assert "rounding came before and grew" in found[0].sentence


def test_a_jump_after_rounding_is_a_change_in_sft():
    jumped = shaped(round_all(run_of()), lambda step: 0.1 if step >= 20 else 0.0)
    found = trajectory(run_of(), jumped)
    assert ("log/loss", "changed", 20) in {(d.what, d.word, d.step) for d in found}


def test_a_jump_after_rounding_may_be_a_flipped_token_in_grpo():
    jumped = scale_log(round_all(run_of("grpo-plain")), "reward", 1.2, begin=20)
    assert {d.word for d in trajectory(run_of("grpo-plain"), jumped)} == {"rounding"}


@pytest.mark.parametrize("way", [1, -1])
def test_a_systematic_shift_under_the_tolerance_is_found(way):
    found = trajectory(run_of(), shaped(run_of(), lambda _step: way * 4e-6))
    (shift,) = [d for d in found if d.what == "log/loss"]
    assert (shift.word, shift.layer) == ("changed", "trajectory")
    assert ("up" if way > 0 else "down") in shift.sentence
    assert shift.relative == pytest.approx(4e-6, rel=0.01)


def test_residuals_of_both_signs_are_no_shift():
    rng = random.Random(1)
    found = trajectory(run_of(), shaped(run_of(), lambda _step: 4e-6 * rng.choice((-1, 1))))
    assert found == []


def test_rounding_that_drifts_one_way_is_no_shift():
    """It begins below what a shift begins with, as rounding does."""
    found = trajectory(run_of(), shaped(run_of(), lambda step: 1e-7 * step))
    assert [d for d in found if d.word == "changed"] == []


def test_what_the_first_steps_have_settled_is_not_told_again():
    assert trajectory(run_of(), scale_gradient(run_of(), 2.0)) == []


def test_the_sign_test_has_its_closed_form():
    assert one_sided_p([1.0] * 10) == pytest.approx(2 / 2**10)
    assert one_sided_p([1.0, -1.0]) == 1.0
    assert one_sided_p([]) == 1.0
    assert one_sided_p([0.0, 0.0]) == 1.0


def test_residuals_are_relative_signed_and_null_where_a_side_is():
    def track(values):
        return Track("x", "loss", tuple((v,) for v in values), (0.0,) * len(values))

    found = residuals(track([1.0, 2.0, None, 0.0]), track([2.0, 1.0, 1.0, 0.0]))
    assert found.values == (0.5, -0.5, None, 0.0)
    assert found.largest == 0.5
