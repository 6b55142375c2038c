"""A run's memory is that of its highest moment: what stands then, and nothing that another moment has."""

from __future__ import annotations

import pytest

from harness.activations import Term
from harness.arm_forecast import training_on_gpu
from harness.evaluation_replay import batches_of_evaluation, replay_evaluation
from harness.forecast import Band, Forecast, forecast_training, lenses, need
from harness.moments import (
    POOL_BEYOND,
    beyond_torch,
    evaluation_moment,
    highest,
    highest_moment,
    moment_between_steps,
    with_pool,
    with_term,
)
from harness.row_lengths import Rows
from harness.spec import RunSpec
from harness.workload import workload
from tests.plan_matrix import CARD, H100, facts_of, run_of
from tests.test_forecast import small_trace

GIB = 1 << 30
BEYOND = Band(low=0, middle=0, high=0)
STANDING = (
    Term(name="weights", bytes=5 * GIB, note=""),
    Term(name="optimizer", bytes=10 * GIB, note=""),
)


def step_of(gib: int) -> Forecast:
    """A training step of so many GiB, five of which are gradients."""
    rest = Term(name="gradients", bytes=(gib - 15) * GIB, note="")
    return Forecast(
        source="traced",
        terms=(*STANDING, rest),
        lenses=lenses(gib * GIB, gib * GIB, gib * GIB, gib * GIB, BEYOND),
        needs=need(gib * GIB, gib * GIB, BEYOND),
        standing=STANDING,
    )


def device(forecast: Forecast) -> int:
    found = forecast.lens("nvml-device")
    assert found is not None
    return found.bytes


@pytest.mark.parametrize(("added", "expected"), [(1, 20), (4, 20), (8, 23)])
def test_between_steps_there_are_no_gradients(added, expected):
    step = step_of(20)
    other = moment_between_steps(step, [Term(name="x", bytes=added * GIB, note="")], BEYOND)
    found = highest([step, other])
    assert device(found) == expected * GIB
    assert sum(term.bytes for term in found.terms) == expected * GIB
    assert ("gradients" in {term.name for term in found.terms}) == (expected == 20)


def test_each_lens_has_its_own_highest_moment():
    step, other = step_of(20), with_pool(step_of(18), 10 * GIB, is_awake=True)
    found = highest([step, other])
    allocated = found.lens("torch-allocated")
    assert allocated is not None
    assert (allocated.bytes, device(found)) == (20 * GIB, 28 * GIB)


def test_what_was_said_of_a_step_is_said_of_the_run():
    step = step_of(20).model_copy(update={"notes": ("of its lengths",)})
    assert highest([step, step_of(18)]).remarks == ("of its lengths",)
    small = step.model_copy(update={"lenses": step_of(30).lenses})
    first, second = highest([step, small]).remarks or ("", "")
    assert first == "of its lengths"
    assert "can't do without" in second


def test_a_pool_that_sleeps_is_not_there_in_a_step_but_may_leave_something():
    asleep, awake = (
        with_pool(step_of(20), 10 * GIB, is_awake=is_awake) for is_awake in (False, True)
    )
    assert (device(asleep), device(awake)) == (20 * GIB, 30 * GIB)
    bare, found = step_of(20).lens("nvml-device"), asleep.lens("nvml-device")
    assert bare is not None
    assert found is not None
    assert found.high_bytes - bare.high_bytes == POOL_BEYOND


def test_what_a_formula_adds_widens_the_interval():
    bare = step_of(20)
    added = with_term(bare, Term(name="DDP's buckets", bytes=10 * GIB, note=""))
    for before, after in zip(bare.lenses, added.lenses, strict=True):
        assert after.bytes - before.bytes == 10 * GIB
        assert after.low_bytes - before.low_bytes == 9 * GIB
        assert after.high_bytes - before.high_bytes == 11 * GIB


def sleeping(spec: RunSpec, is_asleep: bool) -> Forecast:
    trainer = {**spec.trainer, "vllm_enable_sleep_mode": is_asleep}
    found = spec.model_copy(update={"trainer": trainer})
    made = training_on_gpu(found, small_trace(), CARD, H100, is_hopper=True)
    assert made is not None
    return made


def test_a_sleeping_pool_meets_the_weights_and_not_the_step():
    spec = run_of("grpo-8b.full-alone")
    awake, asleep = sleeping(spec, is_asleep=False), sleeping(spec, is_asleep=True)
    pool = int(0.3 * H100)
    assert device(asleep) < device(awake)
    assert device(asleep) >= pool + sum(term.bytes for term in asleep.standing)
    assert "activations" not in {term.name for term in asleep.terms}


def evaluated(name: str, **changes: int) -> tuple[Forecast, Forecast]:
    """An arm's step and its evaluation."""
    spec = run_of(name)
    dataset = spec.dataset.model_copy(update=changes)
    spec = spec.model_copy(update={"dataset": dataset})
    facts, load, rows = facts_of(spec), workload(spec, CARD), Rows(longest=2048)
    step = forecast_training(small_trace(), rows, batch=1, is_hopper=True, beyond_torch=GIB)
    found = replay_evaluation(small_trace(), spec, facts, load, rows, ())
    return step, evaluation_moment(step, found, beyond_torch(step), "a note")


def test_an_evaluation_holds_its_logits_in_float32_three_times_beside_what_stands():
    step, made = evaluated("sft-8b.lora-r256")
    vocab, rows = facts_of(run_of("sft-8b.lora-r256")).vocab, 2
    logits = rows * 2048 * vocab * 4
    (term,) = [term for term in made.terms if term.name == "evaluation"]
    assert term.note == "a note"
    assert 2.9 * logits < term.bytes < 3.3 * logits
    standing = {term.name: term.bytes for term in step.standing}
    assert {t.name: t.bytes for t in made.terms if t.name in standing} | {
        "workspaces": standing["workspaces"]
    } == standing


def test_an_evaluation_needs_less_than_it_reserves():
    _, made = evaluated("sft-8b.lora-r256")
    reserved, found = made.lens("torch-reserved"), made.lens("nvml-device")
    assert made.needs is not None
    assert found is not None
    assert reserved is not None
    assert made.needs.high_bytes < found.high_bytes
    assert reserved.low_bytes < reserved.bytes < reserved.high_bytes


def test_one_batch_finds_no_logits_of_the_batch_before():
    _, one = evaluated("sft-8b.full", test_rows=2, validation_rows=0)
    _, many = evaluated("sft-8b.full", test_rows=64, validation_rows=0)
    assert device(one) < device(many)
    spec = run_of("sft-8b.full")
    assert batches_of_evaluation(spec) == (2, 32)


def test_a_step_that_holds_more_than_an_evaluation_is_the_forecast():
    spec = run_of("sft-8b.full")
    facts, load = facts_of(spec), workload(spec, CARD)
    step = step_of(60)
    small = step_of(30)
    assert device(highest_moment(spec, facts, load, step, H100, evaluated=small)) == 60 * GIB
    assert device(highest_moment(spec, facts, load, small, H100, evaluated=step)) == 60 * GIB
    left_out = highest_moment(spec, facts, load, small, H100, has_evaluation=False, evaluated=step)
    assert device(left_out) == 30 * GIB
