"""Memory by lens, phase and statistic, on timelines whose answers can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.memory_figures import (
    device_peaks,
    growth_of,
    memory_peaks,
    memory_statistics,
    sampled_series,
    statistics_by_device,
    statistics_of,
    time_weights,
)
from harness.samples import DeviceSummary
from tests.timelines import EMPTY, gpu, samples, span


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


def test_a_sample_weighs_half_the_way_to_its_neighbours():
    assert time_weights(np.asarray([0, 2, 3, 7])).tolist() == [1.0, 1.5, 2.5, 2.0]
    assert time_weights(np.asarray([5])).tolist() == [1.0]


def test_peak_p99_and_mean_of_a_timeline_with_a_gap():
    """0, 1, 2 s read 10, 20, 90; then nothing until 12 s, which reads 30.

    Weights 0.5, 1, 5.5, 5: mean (5 + 20 + 495 + 150) / 12.
    """
    memory = samples([(t, "host", b, None) for t, b in ((0, 10), (1, 20), (2, 90), (12, 30))])
    found = memory_statistics([span("train", 0, 12)], sampled_series(memory))["rss"]["training"]
    assert (found.peak_bytes, found.p99_bytes) == (90, 90)
    assert found.mean_bytes == round(670 / 12)


def test_p99_is_what_is_not_exceeded_in_99_percent_of_the_time():
    """Of 1,000 s at one sample a second, 10 s lie high: exactly 1 %; with 11 it is more."""
    for high, p99 in ((10, 1), (11, 7)):
        values = np.asarray([1.0] * (1000 - high) + [7.0] * high)
        found = statistics_of(values, np.ones(1000))
        assert (found.peak_bytes, found.p99_bytes) == (7, p99)


def test_the_same_pair_reads_differently_by_statistic():
    """A spike makes the peaks 57 % of one another while the means are 42 %."""
    times = np.arange(1000)
    full = np.full(1000, 3198.0)
    lora = np.full(1000, 1341.0)
    full[500], lora[500] = 3620.0, 2076.0
    a, b = (statistics_of(v, time_weights(times)) for v in (lora, full))
    assert a.peak_bytes / b.peak_bytes == pytest.approx(0.573, abs=1e-3)
    assert a.mean_bytes / b.mean_bytes == pytest.approx(0.42, abs=1e-3)
    assert a.p99_bytes / b.p99_bytes == pytest.approx(0.419, abs=1e-3)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 10**12)), min_size=1, max_size=60))
def test_mean_and_p99_lie_between_the_lowest_and_the_peak(rows):
    times = np.cumsum([gap for gap, _ in rows])
    values = np.asarray([value for _, value in rows], dtype="float64")
    found = statistics_of(values, time_weights(times))
    assert values.min() - 1 <= found.mean_bytes <= found.peak_bytes + 1
    assert values.min() <= found.p99_bytes <= found.peak_bytes == values.max()


def test_every_phase_has_figures_of_its_own():
    memory = samples(
        [(t, "host", b, None) for t, b in ((1, 5), (3, 50), (5, 30), (7, 20), (9, 80))]
    )
    phases = [span("load", 0, 2), span("train", 2, 8), span("generate", 4, 6), span("save", 8, 10)]
    found = memory_statistics(phases, sampled_series(memory))["rss"]
    peaks = {phase: figures.peak_bytes for phase, figures in found.items()}
    assert peaks == {
        "load": 5, "train": 50, "generate": 30, "save": 80, "training": 50, "run": 80,
    }  # fmt: skip
    assert found["training"].mean_bytes == round(100 / 3)


def test_above_idle_starts_from_what_the_sampler_noted_else_from_the_first_sample():
    memory = gpu([0, 2, 4], nvml_device_bytes=[100, 400, 300])
    phases = [span("train", 1, 5)]
    noted = (DeviceSummary(uuid="GPU-a", idle_bytes=60),)
    for devices, peak in (((), 300), (noted, 340)):
        found = memory_statistics(phases, sampled_series(memory, devices))["nvml-above-idle"]
        assert found["training"].peak_bytes == peak


def test_a_list_of_processes_stands_while_the_device_stays_as_it_was():
    """Listed at 0 s, and at 9 s when memory had changed: 1 for nine seconds, 11 for three."""
    listed = [{0: 1, 9: 11}.get(t) for t in range(13)]
    held = [5 if t < 9 else 15 for t in range(13)]
    memory = gpu(range(13), nvml_device_bytes=held, nvml_process_bytes=listed)
    found = memory_statistics([span("train", 0, 12)], sampled_series(memory))
    process, device = found["nvml-process"]["training"], found["nvml-device"]["training"]
    assert device.mean_bytes - process.mean_bytes == 4
    assert process.p99_bytes == process.peak_bytes == 11


def test_a_list_says_nothing_of_a_device_that_has_changed_since():
    memory = gpu([0, 2, 4], nvml_device_bytes=[5, 9, None], nvml_process_bytes=[1, None, None])
    found = sampled_series(memory)["nvml-process"]["GPU-a"]
    assert found.to_dict() == {0: 1}


def test_several_gpus_are_shown_each_and_summed():
    """a reads 10, 4 and b 3, 8: peaks 10 and 8, their sum 13; each above its own idle."""
    memory = pd.concat(
        [
            gpu([2, 3], "GPU-a", nvml_device_bytes=[10, 4]),
            gpu([2, 3], "GPU-b", nvml_device_bytes=[3, 8]),
        ]
    )
    devices = (DeviceSummary(uuid="GPU-a", idle_bytes=1), DeviceSummary(uuid="GPU-b", idle_bytes=2))
    phases = [span("train", 1, 4)]
    whole = memory_statistics(phases, sampled_series(memory, devices))
    assert whole["nvml-device"]["training"].peak_bytes == 13
    assert whole["nvml-above-idle"]["training"].peak_bytes == 10
    each = statistics_by_device(phases, sampled_series(memory, devices), order=("GPU-b", "GPU-a"))
    assert list(each) == ["GPU-b", "GPU-a"]
    assert each["GPU-b"]["nvml-above-idle"]["training"].peak_bytes == 6
    assert statistics_by_device(phases, sampled_series(gpu([2], nvml_device_bytes=1))) == {}


def test_a_gpu_that_falls_silent_lowers_no_mean():
    memory = pd.concat(
        [
            gpu([1, 2, 3], "GPU-a", nvml_device_bytes=[10, 10, 10]),
            gpu([1], "GPU-b", nvml_device_bytes=[20]),
        ]
    )
    found = memory_statistics([span("train", 0, 4)], sampled_series(memory))["nvml-device"][
        "training"
    ]
    assert (found.peak_bytes, found.mean_bytes) == (30, 30)


def test_torch_counts_peaks_alone():
    phases = [span("train", 1, 2, torch_reserved_peak_bytes=9, torch_allocated_peak_bytes=7)]
    found = memory_statistics(phases, sampled_series(EMPTY))["torch-reserved"]["training"]
    assert (found.peak_bytes, found.p99_bytes, found.mean_bytes) == (9, None, None)


def test_rss_counts_above_the_worker_before_loading_and_a_gpu_as_it_is():
    memory = pd.concat(
        [
            samples([(0, "host", 40, None), (2, "host", 100, None)]),
            gpu([0, 2], nvml_device_bytes=[5, 70]),
        ]
    )
    phases = [span("load", 1, 1.5), span("train", 1.5, 3)]
    statistics, (_, before) = (
        memory_statistics(phases, sampled_series(memory)),
        memory_peaks(phases, memory),
    )
    assert growth_of(statistics, before, "rss", "peak") == 60
    assert growth_of(statistics, before, "nvml-device", "mean") == 70
    assert growth_of(statistics, before, "nvml-process", "mean") is None
    assert growth_of(statistics, {}, "rss", "peak") is None


def test_a_sample_weighs_no_time_of_another_phase():
    """Evaluation from 4 to 8 s reads 90 and 50, two seconds each; then nothing until 15 s, in training."""
    phases = [span("train", 0, 16), span("evaluate", 4, 8)]
    held = {0: 10, 1: 10, 2: 10, 3: 10, 5: 90, 7: 50, 15: 30, 16: 30}
    memory = samples([(t, "host", value, None) for t, value in held.items()])
    found = memory_statistics(phases, sampled_series(memory))["rss"]
    assert found["evaluate"].mean_bytes == 70
    assert found["training"].mean_bytes == round((10 * 4 + 30 * 5) / 9)


def test_what_was_freed_before_loading_is_in_no_baseline():
    """Two GPUs of which one begins with 50 of a process that has ended: both are idle at 1 and 2."""
    a, b = [51, 1, 30, 20], [2, 2, 3, 40]
    memory = pd.concat(
        [gpu([0, 1, 3, 4], name, nvml_device_bytes=held) for name, held in (("a", a), ("b", b))]
    )
    phases = [span("load", 2, 2.5), span("train", 2.5, 5)]
    devices = (DeviceSummary(uuid="a", idle_bytes=51), DeviceSummary(uuid="b", idle_bytes=2))
    assert memory_peaks(phases, memory)[1]["nvml-device"] == 3
    whole = memory_statistics(phases, sampled_series(memory, devices, phases))
    assert whole["nvml-device"]["training"].peak_bytes == 60
    assert whole["nvml-above-idle"]["training"].peak_bytes == 57
