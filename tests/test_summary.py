"""Derived figures on hand-made timelines whose answers can be worked out on paper."""

from __future__ import annotations

import pytest

from harness.memory_figures import memory_peaks
from harness.record import (
    Attempt,
    EvaluationPoint,
    Exit,
    ParameterCounts,
    Record,
    Result,
    Status,
)
from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import RunSpec
from harness.summary import model_flops, summarise
from tests.timelines import EMPTY, samples, span, step


def spec(task="sft"):
    return RunSpec(
        pair="p",
        arm="full",
        seed=0,
        task=task,
        method="full",
        model=Model(source="embedded:micro-llama"),
        dataset=DatasetSpec(name="micro-steps", train_rows=8, test_rows=8),
        reward="reasoning_accuracy" if task == "grpo" else None,
        lora=None,
        trainer={},
        evaluation=Evaluation(),
    )


def point(at, split, value, metric="nll"):
    return EvaluationPoint(step=at, split=split, metric=metric, value=value, rows=8, wall_s=0.1)


def record(evaluations=(), parameters=None):
    attempt = Attempt(
        number=1,
        status=Status.OK,
        launcher="local",
        started_utc="2026-01-01T00:00:00Z",
        ended_utc="2026-01-01T00:00:12Z",
        wall_s=12.0,
        exit=Exit(code=0),
    )
    result = Result(status=Status.OK, evaluations=tuple(evaluations), parameters=parameters)
    return Record(
        run_id="p.full.s0-00000000",
        harness_version="0",
        status=Status.OK,
        attempt=1,
        attempts=(attempt,),
        result=result,
    )


def test_rates_and_times_leave_warm_up_out():
    # a slow first step of 10 s, then 2 s, 2 s, 4 s with 100, 200, 300 tokens
    steps = [step(1, 0, 10, 999), step(2, 10, 12, 100), step(3, 12, 14, 200), step(4, 14, 18, 300)]
    got = summarise(spec(), record(), steps, [], EMPTY, warmup_steps=1)
    assert got.trained_tokens_per_s == pytest.approx(600 / 8)
    assert got.samples_per_s == pytest.approx(12 / 8)
    assert got.step_s_median == pytest.approx(2.0)
    assert (got.steps, got.steps_excluded, got.wall_s) == (4, 1, 12.0)


def test_a_pause_between_steps_is_not_training_time():
    got = summarise(spec(), record(), [step(1, 0, 1), step(2, 61, 62)], [], EMPTY, 0)
    assert got.trained_tokens_per_s == pytest.approx(100.0)


def test_a_rate_with_an_unknown_amount_is_not_measured():
    got = summarise(spec(), record(), [step(1, 0, 1), step(2, 1, 2, tokens=None)], [], EMPTY, 0)
    assert got.trained_tokens_per_s is None
    assert got.samples_per_s == pytest.approx(4.0)


def test_generation_rate_counts_generate_time_of_counted_steps_alone():
    steps = [step(1, 0, 10, generated=500), step(2, 10, 14, generated=50)]
    phases = [span("generate", 0, 9), span("generate", 10, 12)]
    got = summarise(spec("grpo"), record(), steps, phases, EMPTY, warmup_steps=1)
    assert got.generated_tokens_per_s == pytest.approx(25.0)


def test_the_sync_of_weights_is_no_time_spent_generating():
    """600 tokens in 10 s, of which the weights took 4; an arm that brings none has the same rate."""
    steps = [step(1, 0, 20, generated=600)]
    phases = [span("train", 0, 20), span("generate", 0, 10), span("weight_sync", 0, 4)]
    got = summarise(spec("grpo"), record(), steps, phases, EMPTY, warmup_steps=0)
    bare = summarise(spec("grpo"), record(), steps, [span("generate", 4, 10)], EMPTY, 0)
    assert got.generated_tokens_per_s == bare.generated_tokens_per_s == pytest.approx(100.0)


def test_what_was_sampled_is_held_against_the_time_of_the_same_steps():
    steps = [step(1, 0, 10, generated=600), step(2, 20, 30)]  # the second logged no length
    phases = [span("generate", 0, 6), span("generate", 12, 18), span("generate", 20, 26)]
    got = summarise(spec("grpo"), record(), steps, phases, EMPTY, warmup_steps=0)
    assert got.generated_tokens_per_s == pytest.approx(100.0)


def test_without_a_counted_step_nothing_is_measured():
    got = summarise(spec(), record(), [step(1, 0, 1)], [], EMPTY, warmup_steps=5)
    assert (got.step_s_median, got.trained_tokens_per_s, got.generated_tokens_per_s) == (None,) * 3
    assert got.peak_bytes == {}


def test_base_and_final_come_from_the_test_rows():
    points = [point(0, "test", 2.0), point(5, "validation", 1.0), point(9, "test", 1.5)]
    got = summarise(spec(), record(points), [], [], EMPTY, 0)
    assert (got.base_value, got.final_value, got.metric) == (2.0, 1.5, "nll")


def test_last_fifth_of_train_reward():
    steps = [step(i + 1, i, i + 1, reward=float(i)) for i in range(10)]
    got = summarise(spec("grpo"), record(), steps, [], EMPTY, 0)
    assert got.train_reward_last == pytest.approx(8.5)


@pytest.mark.parametrize(
    ("counts", "per_token"),
    [
        ({"total": 10, "trainable": 10, "matmul": 8, "matmul_trainable": 8, "adapter": 0}, 6 * 8),
        (
            {"total": 13, "trainable": 3, "matmul": 8, "matmul_trainable": 0, "adapter": 3},
            4 * 8 + 18,
        ),
    ],
    ids=["full", "lora"],
)
def test_flops_of_a_step(counts, per_token):
    parameters = ParameterCounts(**counts)
    assert model_flops(parameters, 100) == per_token * 100
    steps = [step(1, 0, 1, 100), step(2, 1, 2, 300), step(3, 2, 3, 200)]
    got = summarise(spec(), record((), parameters), steps, [], EMPTY, 0)
    assert got.model_flops_per_step == per_token * 200


def test_peaks_per_phase_and_growth_above_the_reading_before_load():
    memory = samples(
        [
            (0, "host", 90, None),  # libraries still importing
            (1, "host", 100, None),  # the last before load: the baseline
            (3, "host", 150, None),
            (5, "host", 300, None),
            (6, "host", 180, None),
            (8, "host", 400, None),  # evaluating, not training
        ]
    )
    phases = [span("load", 2, 4), span("train", 4, 7), span("evaluate", 7, 9)]
    peaks, baselines = memory_peaks(phases, memory)
    assert peaks["rss"] == {"load": 150, "train": 300, "evaluate": 400, "run": 400, "training": 300}
    assert baselines == {"rss": 100}
    got = summarise(spec(), record(), [], phases, memory, 0)
    assert got.growth("rss") == 200
    assert got.growth("rss", "generate") is None
    assert got.growth("nvml-device") is None


def test_a_study_of_runs_on_one_gpu_is_written_as_before():
    summary = summarise(spec(), record(), [], [], samples([(1, "GPU-a", None, 10)]), 0)
    assert "peak_bytes_by_device" not in summary.model_dump(mode="json")
