"""How much higher than its highest sample a lens can have been."""

from __future__ import annotations

import pytest

from harness.lenses import device_series
from harness.memory_figures import sampled_series, statistics_by_phase
from harness.missed_peak import longest_training_gap, missed_peak
from tests.timelines import S, gpu, span


def bound(seconds, held, phases, is_counted=True):
    """The bound of the device lens of one GPU."""
    series = sampled_series(gpu(seconds, nvml_device_bytes=held))["nvml-device"]["GPU-a"]
    return missed_peak(series, statistics_by_phase(series, phases), phases, is_counted=is_counted)


def test_a_spike_between_samples_is_bounded_by_torchs_reserved_peak():
    """Beside torch 3 are held (8 - 5 while loading); torch reserved 20 in training, 15 were seen."""
    phases = [
        span("load", 0, 2, torch_reserved_peak_bytes=5),
        span("train", 2, 8, torch_reserved_peak_bytes=20),
    ]
    found = bound([1, 3, 5, 7], [8, 14, 15, 14], phases)
    assert found.at_most_bytes == 20 + 3 - 15


def test_a_peak_that_was_seen_leaves_nothing_to_miss():
    phases = [
        span("load", 0, 2, torch_reserved_peak_bytes=5),
        span("train", 2, 8, torch_reserved_peak_bytes=20),
    ]
    assert bound([1, 3, 5, 7], [8, 14, 23, 14], phases).at_most_bytes == 0


@pytest.mark.parametrize("spike", [0, 1, 500])
def test_the_bound_holds_whatever_a_sampler_missed(spike):
    """The truth: 3 beside torch, reserved 10 rising to 10 + spike for an instant no sample saw."""
    phases = [
        span("load", 0, 2, torch_reserved_peak_bytes=6),
        span("train", 2, 8, torch_reserved_peak_bytes=10 + spike),
    ]
    found = bound([1.9, 3, 5, 7], [9, 13, 13, 13], phases)
    truth = 3 + 10 + spike
    assert 13 + found.at_most_bytes == truth


def test_without_counters_the_longest_gap_alone_is_known():
    phases = [span("load", 0, 2), span("train", 2, 8)]
    found = bound([1, 3, 5, 7.5], [8, 14, 15, 14], phases)
    assert (found.longest_gap_s, found.at_most_bytes) == (2.5, None)
    counted = [span("train", 2, 8, torch_reserved_peak_bytes=20)]
    assert bound([3, 7], [8, 9], counted, is_counted=False).at_most_bytes is None


@pytest.mark.parametrize(
    ("seconds", "gap"),
    [
        ([0, 1, 2, 3, 4], 1.0),
        ([0.5, 1.5, 9], 2.5),  # a gap that reaches past the end of training, at 4 s
        ([2, 3], 1.0),  # nothing before 2 s: training began at 1 s
        ([1, 1.5], 2.5),  # nothing after 1.5 s: training ended at 4 s
        ([1, 4, 40], 3.0),  # what lies after training is no gap of training
        ([], 3.0),
    ],
)
def test_the_longest_gap_is_that_of_training(seconds, gap):
    phases = [span("load", 0, 1), span("train", 1, 4)]
    assert longest_training_gap([int(t * S) for t in seconds], phases) == pytest.approx(gap)


def test_a_gap_in_an_evaluation_is_no_gap_of_training():
    phases = [span("train", 0, 10), span("evaluate", 3, 8)]
    seconds = [0, 1, 2, 3, 3.5, 7.5, 8, 9, 10]
    assert longest_training_gap([int(t * S) for t in seconds], phases) == pytest.approx(1.0)
    assert longest_training_gap([1, 2], [span("load", 0, 1)]) is None


@pytest.mark.parametrize(
    ("silent_s", "gap"),
    [
        ((31.8, 132.1), 0.3),  # 100 s of evaluation, and 0.3 of training at its ends
        ((132.0, 162.0), 30.0),
        ((32.0, 132.0), 0.1),  # of the evaluation alone: the gaps elsewhere
        ((20.0, 140.0), 20.0),  # 12 before the evaluation and 8 after it
    ],
)
def test_only_the_training_that_a_gap_hides_counts(silent_s, gap):
    phases = [span("train", 2, 162), span("evaluate", 32, 132)]
    tenths = [t for t in range(1630) if not 10 * silent_s[0] < t < 10 * silent_s[1]]
    assert longest_training_gap([t * S // 10 for t in tenths], phases) == pytest.approx(gap)


def test_the_gap_of_a_sum_is_that_of_the_device_that_was_read_least():
    phases = [span("train", 0, 10)]
    often = device_series(gpu(range(11), nvml_device_bytes=5), "nvml_device_bytes")["GPU-a"]
    seldom = device_series(gpu([0, 7, 10], nvml_device_bytes=5), "nvml_device_bytes")["GPU-a"]
    found = missed_peak(often, {}, phases, is_counted=False, parts=(often, seldom))
    assert found.longest_gap_s == 7
