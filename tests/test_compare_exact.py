"""The first steps: what is the same, what is rounding, what changed; numbers near zero; hashes; flips."""

from __future__ import annotations

import math

import pytest

from harness.compare.exact import Stacks, compare_exact
from harness.compare.limits import Limits
from harness.compare.numbers import became, gap, row_gap
from tests.comparison_sides import (
    PACKAGES,
    change_steps,
    digest,
    make_run,
    round_all,
    scale_gradient,
    scale_log,
)

SAME = Stacks(PACKAGES, PACKAGES)
LIMITS = Limits()


def exact(base, candidate, stacks=SAME, limits=LIMITS, tolerance=1e-5):
    return compare_exact(base, candidate, stacks, limits, tolerance)


def sft(method="full", **more):
    return make_run("sft-plain", "arm", method, 0, **more)


def grpo(method="full", **more):
    return make_run("grpo-plain", "arm", method, 0, **more)


def with_log(run, key, value):
    return run.model_copy(update={"series": run.series | {key: (value,) * 12}})


def words(found):
    return {d.what: d.word for d in found}


@pytest.mark.parametrize("make", [sft, grpo])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_identical_runs_have_no_difference(make, method):
    assert exact(make(method), make(method)) == []


@pytest.mark.parametrize("make", [sft, grpo])
def test_a_ten_millionth_is_rounding_in_every_number_and_hash(make):
    found = exact(make(), round_all(make(), 1e-7))
    assert {d.word for d in found} == {"rounding"}
    assert "parameters" in words(found)


def test_two_hundred_thousandths_are_a_change():
    found = exact(sft(), scale_log(sft(), "loss", 1 + 2e-5))
    assert words(found) == {"log/loss": "changed"}
    assert found[0].step == 1
    assert found[0].relative == pytest.approx(2e-5, rel=1e-3)


def test_the_tolerance_decides():
    base, candidate = sft(), scale_log(sft(), "loss", 1 + 2e-5)
    assert words(exact(base, candidate, tolerance=1e-4)) == {"log/loss": "rounding"}
    assert words(exact(base, candidate, tolerance=1e-6)) == {"log/loss": "changed"}


@pytest.mark.parametrize("tolerance", [1e-5, 2.0**-7])
def test_what_was_rounding_at_one_step_grows_and_is_still_rounding(tolerance):
    """An optimizer that divides by the size of a gradient makes much of little."""
    growth = LIMITS.growth if tolerance == LIMITS.tolerance else LIMITS.coarse_growth
    rounded = scale_gradient(sft(), 1 + 0.3 * tolerance, begin=3)
    grown = scale_gradient(rounded, 1 + 0.5 * growth * tolerance, begin=4)
    assert {d.word for d in exact(sft(), grown, tolerance=tolerance)} == {"rounding"}
    # The same difference at the step where the runs first part is no rounding.
    at_once = scale_gradient(sft(), 1 + 0.5 * growth * tolerance, begin=4)
    assert "changed" in {d.word for d in exact(sft(), at_once, tolerance=tolerance)}


@pytest.mark.parametrize("tolerance", [1e-5, 2.0**-7])
def test_what_grows_further_than_rounding_does_is_a_change(tolerance):
    most = LIMITS.grown if tolerance == LIMITS.tolerance else LIMITS.coarse_grown
    rounded = scale_gradient(sft(), 1 + 0.3 * tolerance, begin=1)
    found = exact(sft(), scale_gradient(rounded, 1 + 1.5 * most, begin=7), tolerance=tolerance)
    assert {d.step for d in found if d.word == "changed"} == {7}


def test_accuracy_is_a_share_of_all_tokens():
    """One token of fifty that rounding flips is 10 % of an accuracy of 0.2, and 2 % of the tokens."""
    base = with_log(sft(), "mean_token_accuracy", 0.20)
    other = with_log(sft(), "mean_token_accuracy", 0.2078)
    assert words(exact(base, other, tolerance=2.0**-7)) == {"log/mean_token_accuracy": "rounding"}
    assert words(exact(base, other)) == {"log/mean_token_accuracy": "changed"}


def test_the_first_step_that_differs_has_both_values():
    found = exact(sft(), scale_gradient(sft(), 2.0, begin=4))
    norm = next(d for d in found if d.what == "log/grad_norm")
    assert (norm.step, norm.kind) == (4, "gradient")
    assert norm.candidate == pytest.approx(2 * norm.base)
    assert "became" in norm.sentence


def test_steps_beyond_the_first_ones_are_left_to_the_trajectory():
    assert exact(sft(), scale_gradient(sft(), 2.0, begin=9)) == []


def test_a_loss_around_zero_is_held_against_what_cancels_in_it():
    """GRPO's on-policy loss is 3e-8 here: half of it more is still rounding, of advantages around 1."""
    assert words(exact(grpo(), scale_log(grpo(), "loss", 1.5))) == {"log/loss": "rounding"}
    # An SFT loss of the same share is a change.
    assert words(exact(sft(), scale_log(sft(), "loss", 1.5))) == {"log/loss": "changed"}


def test_a_grpo_loss_that_stops_cancelling_is_a_change():
    moved = grpo().model_copy(update={"series": {**grpo().series, "loss": (1e-3,) * 12}})
    assert words(exact(grpo(), moved)) == {"log/loss": "changed"}


def test_a_group_whose_gradient_is_nearly_zero_may_round():
    def tiny(value):
        return change_steps(
            sft("lora"), lambda s: {"gradient": {**s.gradient, "attention.lora_A": value}}
        )

    assert words(exact(tiny(1e-11), tiny(2e-11))) == {"gradient/attention.lora_A": "rounding"}
    assert words(exact(tiny(0.0), tiny(1e-9))) == {"gradient/attention.lora_A": "rounding"}
    assert words(exact(tiny(0.0), tiny(1e-4))) == {"gradient/attention.lora_A": "changed"}


def test_a_null_beside_a_number_is_a_change_and_two_nulls_are_none():
    def with_loss(value):
        series = {**sft().series, "loss": (value, *sft().series["loss"][1:])}
        return sft().model_copy(update={"series": series})

    assert exact(with_loss(None), with_loss(None)) == []
    (found,) = exact(with_loss(1.0), with_loss(None))
    assert (found.word, found.base, found.candidate, found.relative) == ("changed", 1.0, None, None)
    assert "not measured" in found.sentence


def test_a_micro_batch_more_is_a_change():
    found = exact(sft(), change_steps(sft(), lambda s: {"losses": (*s.losses, 1.0)}))
    assert words(found) == {"loss/micro-batches": "changed"}


def test_counts_are_never_rounded():
    def counted(n):
        return change_steps(sft(), lambda s: {"counts": {"trained_tokens": n}})

    (found,) = exact(counted(10_000_000), counted(10_000_001))
    assert (found.word, found.kind) == ("changed", "data")


def test_a_batch_that_is_hashed_otherwise_and_gives_every_number_alike_is_rounding():
    """Padding may be laid out anew; what is trained on is the same."""
    found = exact(sft(), change_steps(sft(), lambda s: {"batches": (digest("a"), digest("b"))}))
    assert words(found) == {"batch": "rounding"}
    assert "every number agrees" in found[0].sentence


def test_a_batch_that_is_hashed_otherwise_and_gives_another_loss_is_changed_data():
    changed = change_steps(
        sft(),
        lambda s: {"batches": (digest("a"),), "losses": tuple((v or 0) * 1.1 for v in s.losses)},
        begin=3,
    )
    found = exact(sft(), changed)
    assert words(found) == {"batch": "changed", "loss/micro-batches": "changed"}
    assert {d.step for d in found} == {3}


def test_clocks_are_not_compared():
    assert exact(sft(), scale_log(sft(), "step_time", 3.0)) == []


@pytest.mark.parametrize(
    ("make", "key", "before", "after"),
    [
        (grpo, "kl", "1.8.0", "1.9.0"),
        (grpo, "entropy", "1.8.0", "1.16.0"),
        (grpo, "reward_std", "0.26.2", "0.27.0"),
        (grpo, "reward", "0.29.1", "1.0.0"),
        (grpo, "reward_std", "0.29.1", "1.0.0"),
        (sft, "entropy", "1.2.0", "1.3.0"),
    ],
)
def test_a_key_that_a_release_defined_anew_is_a_note(make, key, before, after):
    stacks = Stacks({**PACKAGES, "trl": before}, {**PACKAGES, "trl": after})
    (found,) = exact(make(), scale_log(make(), key, 1.5, begin=2), stacks)
    assert found.word == "same"
    assert "defined it anew" in found.sentence


@pytest.mark.parametrize(("before", "after"), [("1.9.0", "1.16.0"), ("1.16.0", "1.16.0")])
def test_between_other_releases_the_same_key_changed(before, after):
    stacks = Stacks({**PACKAGES, "trl": before}, {**PACKAGES, "trl": after})
    (found,) = exact(grpo(), scale_log(grpo(), "entropy", 1.5), stacks)
    assert (found.word, found.kind) == ("changed", "metric")


def flip(run, step):
    """Completions that part at a step, and with them everything after."""
    moved = change_steps(
        run,
        lambda s: {"batches": (digest("flip"),), "counts": {**s.counts, "input_tokens": 1}},
        step,
    )
    return scale_log(moved, "reward", 1.3, step)


def test_completions_that_part_after_rounding_are_undecided():
    found = exact(grpo(), flip(round_all(grpo()), 4))
    assert {d.word for d in found if d.step == 4} == {"undecided"}
    assert any("flip a sampled token" in d.sentence for d in found)


def test_completions_that_part_without_rounding_before_are_changed():
    found = exact(grpo(), flip(grpo(), 4))
    assert {d.word for d in found} == {"changed"}


def test_completions_that_part_at_once_are_changed():
    found = exact(grpo(), flip(round_all(grpo()), 1))
    assert "changed" in {d.word for d in found}


def test_in_bfloat16_completions_that_part_after_rounding_are_rounding():
    found = exact(grpo(), flip(round_all(grpo(), 1e-3), 4), tolerance=2.0**-7)
    assert {d.word for d in found if d.step == 4} == {"rounding"}
    at_once = exact(grpo(), flip(round_all(grpo(), 1e-3), 1), tolerance=2.0**-7)
    assert "changed" in {d.word for d in at_once}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_equal_to_its_like_alone(value):
    assert gap(value, value) == 0
    assert all(gap(*pair) == math.inf for pair in ((value, 1.0), (1.0, value), (value, None)))


def test_a_loss_that_one_release_logs_with_four_decimals_did_not_change():
    def logged(run, more=0.0):
        loss = tuple(round(v + more, 4) for v in run.series["loss"])
        return run.model_copy(update={"series": {**run.series, "loss": loss}})

    run = sft()
    assert exact(run, logged(run)) == exact(logged(run), run) == []
    assert exact(logged(run), logged(run, 1e-4)) == []
    assert words(exact(run, logged(run, 3e-4))) == {"log/loss": "changed"}


def test_gaps():
    assert gap(1.0, 1.0) == 0
    assert gap(1.0, 2.0) == 0.5
    assert gap(0.0, 1e-9, 1.0) == 1e-9
    assert gap(None, None) == 0
    assert gap(None, 1.0) == math.inf
    assert row_gap((1.0, 1.0), (1.0, 2.0)) == (0.5, 1)
    assert row_gap((1.0,), (1.0, 2.0)) == (math.inf, 0)
    assert row_gap((), ()) == (0.0, 0)


def test_values_are_told_apart_by_as_many_digits_as_it_takes():
    assert became(1.0, 2.0) == "1 became 2"
    assert became(0.1, 0.1000001) == "0.1 became 0.1000001"
    assert became(True, False) == "True became False"
    assert became(None, "a") == "not measured became a"
