"""Derived figures on hand-made timelines whose answers can be worked out on paper."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.record import (
    Attempt,
    EvaluationPoint,
    Exit,
    ParameterCounts,
    Record,
    Result,
    Status,
    StepRow,
)
from harness.samples import MEMORY_COLUMNS, PhaseRow
from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import RunSpec
from harness.summary import (
    assign_phases,
    device_peaks,
    gpu_load,
    lens_series,
    memory_peaks,
    model_flops,
    summarise,
)

S = 10**9


def span(phase, begin_s, end_s, **more):
    return PhaseRow(phase=phase, begin_ns=int(begin_s * S), end_ns=int(end_s * S), **more)


def step(number, begin_s, end_s, tokens=100, samples=4, generated=None, **logs):
    return StepRow(
        step=number,
        begin_ns=int(begin_s * S),
        end_ns=int(end_s * S),
        tokens=tokens,
        samples=samples,
        generated_tokens=generated,
        logs=logs,
    )


def samples(rows):
    """rows: (second, device, rss or None, nvml or None)."""
    return pd.DataFrame(
        [
            {"t_ns": int(t * S), "device": d, "rss_bytes": rss, "nvml_device_bytes": nvml}
            for t, d, rss, nvml in rows
        ],
        columns=list(MEMORY_COLUMNS),
    )


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


EMPTY = pd.DataFrame()


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


def test_a_sample_belongs_to_the_innermost_phase():
    phases = [span("generate", 2, 4), span("train", 1, 9), span("weight_sync", 3, 3.5)]
    seconds = [0.5, 1.5, 2.5, 3.2, 3.8, 5, 9.5]
    got = assign_phases([int(t * S) for t in seconds], phases)
    assert got == [None, "train", "generate", "weight_sync", "generate", "train", None]


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


def test_training_covers_train_generate_and_weight_sync():
    memory = samples([(t, "host", b, None) for t, b in ((1, 10), (3, 50), (5, 30))])
    phases = [span("train", 0, 6), span("generate", 2, 4)]
    peaks, _ = memory_peaks(phases, memory)
    assert peaks["rss"] == {"train": 30, "generate": 50, "run": 50, "training": 50}


def test_gpus_are_summed_at_each_instant_before_the_peak_is_taken():
    memory = samples(
        [
            (1, "GPU-a", None, 10),
            (1, "GPU-b", None, 1),
            (2, "GPU-a", None, 2),
            (2, "GPU-b", None, 8),
        ]
    )
    peaks, baselines = memory_peaks([span("train", 0, 3)], memory)
    assert peaks["nvml-device"]["training"] == 11
    assert baselines["nvml-device"] == 11
    assert "rss" not in peaks


def test_a_lens_that_did_not_answer_is_empty():
    memory = samples([(1, "host", 10, None)])
    assert lens_series(memory, "nvml_device_bytes").empty
    assert lens_series(EMPTY, "rss_bytes").empty


def test_torch_peaks_come_from_the_phases():
    phases = [
        span("load", 0, 1, torch_reserved_peak_bytes=5, torch_allocated_peak_bytes=4),
        span("train", 1, 2, torch_reserved_peak_bytes=9, torch_allocated_peak_bytes=7),
        span("train", 2, 3, torch_reserved_peak_bytes=8, torch_allocated_peak_bytes=6),
    ]
    peaks, baselines = memory_peaks(phases, EMPTY)
    assert peaks["torch-reserved"] == {"load": 5, "train": 9, "run": 9, "training": 9}
    assert peaks["torch-allocated"]["training"] == 7
    assert baselines == {"torch-reserved": 0, "torch-allocated": 0}


LOAD = ("energy_j", "power_w", "utilization_percent", "temperature_c")


def gpu_rows(rows):
    """rows: (second, device, joules, watts, percent, degrees)."""
    return pd.DataFrame(
        [{"t_ns": int(t * S), "device": d, **dict(zip(LOAD, v, strict=True))} for t, d, *v in rows],
        columns=list(MEMORY_COLUMNS),
    )


TRAINING = [span("load", 0, 2), span("train", 2, 8), span("evaluate", 4, 6), span("save", 8, 9)]


def test_gpu_load_is_that_of_the_training_phases():
    memory = gpu_rows(
        [
            (1, "GPU-a", 1000, 50, 0, 90),  # loading: hot from before, not training
            (3, "GPU-a", 1100, 100, 80, 60),
            (3.5, "GPU-a", None, None, None, None),  # between two slow readings
            (5, "GPU-a", 1300, 400, 10, 70),  # evaluating
            (7, "GPU-a", 1700, 300, 100, 65),
            (8.5, "GPU-a", 1900, 60, 0, 80),
        ]
    )
    host = samples([(3, "host", 10, None), (7, "host", 12, None)])
    got = summarise(spec(), record(), [], TRAINING, pd.concat([host, memory]), 0)
    assert got.energy_j == pytest.approx(1700 - 1100)
    assert got.power_w_mean == pytest.approx((100 + 300) / 2)
    assert got.utilization_percent_mean == pytest.approx((80 + 100) / 2)
    assert got.temperature_c_max == 65


def test_gpus_add_up_in_energy_and_power_and_average_in_use():
    rows = [
        (3, "GPU-a", 100, 100, 80, 60),
        (3, "GPU-b", 900, 200, 40, 50),
        (7, "GPU-a", 300, 100, 80, 61),
        (7, "GPU-b", 910, 200, 40, 55),
    ]
    got = gpu_load(TRAINING, gpu_rows(rows))
    assert got == {
        "energy_j": 210, "power_w_mean": 300, "utilization_percent_mean": 60,
        "temperature_c_max": 61,
    }  # fmt: skip
    silent = [(t, d, *([None] * 4 if d == "GPU-b" else v)) for t, d, *v in rows]
    assert set(gpu_load(TRAINING, gpu_rows(silent)).values()) == {None}


def test_energy_needs_two_readings_and_a_cpu_has_no_load():
    assert gpu_load(TRAINING, gpu_rows([(3, "GPU-a", 100, 100, 80, 60)]))["energy_j"] is None
    absent = gpu_load(
        TRAINING, gpu_rows([(3, "GPU-a", None, 5, 5, 5), (7, "GPU-a", None, 5, 5, 5)])
    )
    assert absent["energy_j"] is None
    assert absent["power_w_mean"] == 5
    for memory in (EMPTY, samples([(3, "host", 10, None)])):
        assert set(gpu_load(TRAINING, memory).values()) == {None}


def test_each_gpu_of_a_run_has_a_peak_and_their_sum_is_taken_at_one_instant():
    """GPU a peaks at 2 s, b at 3 s: the sum's peak is 13, not 10 + 8."""
    phases = [span("load", 0, 1), span("train", 1, 4), span("evaluate", 3.5, 4)]
    memory = samples(
        [
            (0.5, "GPU-a", None, 90), (0.5, "GPU-b", None, 90),  # loading is not training
            (2, "GPU-a", None, 10), (2, "GPU-b", None, 3),
            (3, "GPU-a", None, 4), (3, "GPU-b", None, 8),
            (3.8, "GPU-a", None, 50), (3.8, "GPU-b", None, None),
            (3, "host", 7, None),
        ]
    )  # fmt: skip
    assert device_peaks(phases, memory) == {"GPU-a": 10, "GPU-b": 8}
    assert memory_peaks(phases, memory)[0]["nvml-device"]["training"] == 13


def test_one_gpu_has_no_peaks_of_its_own():
    memory = samples([(2, "GPU-a", None, 10), (2, "host", 7, None)])
    assert device_peaks([span("train", 1, 4)], memory) == {}
    assert device_peaks([], samples([])) == {}


def test_a_study_of_runs_on_one_gpu_is_written_as_before():
    summary = summarise(spec(), record(), [], [], samples([(1, "GPU-a", None, 10)]), 0)
    assert "peak_bytes_by_device" not in summary.model_dump(mode="json")
