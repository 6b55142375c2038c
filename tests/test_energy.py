"""Energy and load of GPUs, on timelines whose answers can be worked out on paper."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.energy import gpu_load, joules_per_token, training_energy
from tests.timelines import EMPTY, gpu, samples, span

# Training from 2 to 4 and from 6 to 8: four seconds.
PHASES = [span("load", 0, 2), span("train", 2, 8), span("evaluate", 4, 6), span("save", 8, 9)]
ALWAYS = [span("train", 0, 10)]


def test_the_counter_counts_in_training_alone():
    """Between 1 and 3 s half is training, between 3 and 5 too: each gives half its joules."""
    memory = gpu([1, 3, 3.5, 5, 7, 8.5], energy_j=[1000, 1100, None, 1300, 1700, 1900])
    found = training_energy(PHASES, memory)
    assert found.joules == pytest.approx(100 / 2 + 200 / 2 + 400 / 2 + 200 / 1.5)
    assert (found.source, found.coverage) == ("counter", 1.0)


def test_a_counter_that_falls_was_restarted_and_that_interval_is_left_out():
    """0-2 s: 100 J; 2-4 s: fell; 4-10 s: 300 J. Eight of ten seconds were read."""
    found = training_energy(ALWAYS, gpu([0, 2, 4, 10], energy_j=[900, 1000, 20, 320]))
    assert (found.joules, found.coverage) == (pytest.approx(400), pytest.approx(0.8))


def test_within_training_a_difference_of_the_counter_is_exact_however_long_it_took():
    found = training_energy([span("train", 0, 100)], gpu([0, 100], energy_j=[5, 1005]))
    assert (found.joules, found.coverage) == (1000, 1.0)
    half = training_energy([span("train", 0, 50)], gpu([0, 100], energy_j=[5, 1005]))
    assert half is None  # how the joules lay over 100 s is not known


def test_without_a_counter_power_is_integrated_by_trapezoids():
    """100 W rising to 200 W in 4 s: 600 J; then a gap of 6 s, of which nothing is known."""
    found = training_energy(ALWAYS, gpu([0, 4, 10], power_w=[100, 200, 300]))
    assert found.source == "power"
    assert (found.joules, found.coverage) == (pytest.approx(600), pytest.approx(0.4))


def test_power_of_a_ramp_is_exact():
    seconds = [i / 2 for i in range(21)]
    found = training_energy(ALWAYS, gpu(seconds, power_w=[20 * t for t in seconds]))
    assert (found.joules, found.coverage) == (pytest.approx(1000), 1.0)


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 4.9), min_size=1, max_size=30), st.floats(1, 700))
def test_a_constant_power_gives_the_same_energy_both_ways(gaps, watts):
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    phases = [span("train", 0.05, times[-1] - 0.02)]
    counter = training_energy(phases, gpu(times, energy_j=[watts * t for t in times]))
    power = training_energy(phases, gpu(times, power_w=watts))
    assert counter.joules == pytest.approx(watts * (times[-1] - 0.07), rel=1e-5)
    assert power.joules == pytest.approx(counter.joules, rel=1e-5)


def test_the_counter_comes_first_unless_power_was_read_for_more_of_the_time():
    seconds = [float(i) for i in range(11)]
    both = gpu(seconds, power_w=100, energy_j=[7 * t for t in seconds])
    assert training_energy(ALWAYS, both).source == "counter"
    early = [7 * t if t < 3 else None for t in seconds]
    lost = training_energy(ALWAYS, gpu(seconds, power_w=100, energy_j=early))
    assert (lost.source, lost.joules) == ("power", pytest.approx(1000))


def test_a_counter_that_stands_still_while_power_is_drawn_is_no_energy_of_nothing():
    seconds = [float(i) for i in range(11)]
    stuck = training_energy(ALWAYS, gpu(seconds, power_w=100, energy_j=5000.0))
    assert (stuck.source, stuck.joules, stuck.coverage) == ("power", pytest.approx(1000), 1.0)
    off = training_energy(ALWAYS, gpu(seconds, power_w=0, energy_j=5000.0))
    assert (off.source, off.joules) == ("counter", 0)


def test_gpus_add_up_and_one_that_was_silent_leaves_no_sum():
    a = gpu([0, 10], "GPU-a", energy_j=[0, 100])
    b = gpu([0, 4, 8, 10], "GPU-b", power_w=10)
    found = training_energy(ALWAYS, pd.concat([a, b]))
    assert (found.joules, found.source) == (pytest.approx(200), "counter and power")
    silent = gpu([0, 10], "GPU-c")
    assert training_energy(ALWAYS, pd.concat([a, b, silent])) is None


def test_two_readings_are_needed_and_a_cpu_has_no_energy():
    assert training_energy(ALWAYS, gpu([3], energy_j=100, power_w=5)) is None
    assert training_energy([], gpu([1, 2], energy_j=[1, 2])) is None
    for memory in (EMPTY, samples([(3, "host", 10, None)])):
        assert training_energy(ALWAYS, memory) is None


def test_joules_of_a_token_and_when_they_are_not_said():
    whole = training_energy(ALWAYS, gpu([0, 10], energy_j=[0, 600]))
    assert joules_per_token(whole, [100, 200]) == pytest.approx(2.0)
    nearly = training_energy(ALWAYS, gpu([0.5, 10], energy_j=[0, 570]))  # 95 % read
    assert joules_per_token(nearly, [100, 200]) == pytest.approx(2.0)
    little = training_energy(ALWAYS, gpu([5, 10], energy_j=[0, 300]))
    assert joules_per_token(little, [100, 200]) is None
    for tokens in ([], [None, 100], [0]):
        assert joules_per_token(whole, tokens) is None
    assert joules_per_token(None, [100]) is None


def test_load_is_that_of_the_training_phases():
    memory = gpu(
        [1, 3, 3.5, 5, 7, 8.5],
        power_w=[50, 100, None, 400, 300, 60],
        utilization_percent=[0, 80, None, 10, 100, 0],
        temperature_c=[90, 60, None, 70, 65, 80],  # hot from before, not from training
    )
    host = samples([(3, "host", 10, None), (7, "host", 12, None)])
    assert gpu_load(PHASES, pd.concat([host, memory])) == {
        "power_w_mean": 200, "utilization_percent_mean": 90, "temperature_c_max": 65,
    }  # fmt: skip


def test_gpus_add_up_in_power_and_average_in_use():
    a = gpu([3, 7], "GPU-a", power_w=100, utilization_percent=80, temperature_c=[60, 61])
    b = gpu([3, 7], "GPU-b", power_w=200, utilization_percent=40, temperature_c=[50, 55])
    assert gpu_load(PHASES, pd.concat([a, b])) == {
        "power_w_mean": 300, "utilization_percent_mean": 60, "temperature_c_max": 61,
    }  # fmt: skip
    silent = pd.concat([a, gpu([3, 7], "GPU-b")])
    assert set(gpu_load(PHASES, silent).values()) == {None}


def test_a_cpu_has_no_load():
    for memory in (EMPTY, samples([(3, "host", 10, None)])):
        assert set(gpu_load(PHASES, memory).values()) == {None}


def test_a_gpu_that_left_no_sample_leaves_no_energy_of_the_others():
    memory = gpu([0, 2, 4, 10], energy_j=[900, 1000, 1020, 1320], power_w=300)
    assert training_energy(ALWAYS, memory, 1).joules == 420
    assert training_energy(ALWAYS, memory, 2) is None
    assert gpu_load(ALWAYS, memory, 1)["power_w_mean"] == 300
    assert gpu_load(ALWAYS, memory, 2)["power_w_mean"] is None


def test_of_several_gpus_each_is_brought_up_to_the_time_that_was_not_read_of_it():
    """100 W all along on one; on the other 200 W of which 9 of 10 s were read: 3,000 J, not 3,111."""
    memory = pd.concat(
        [
            gpu(range(11), "GPU-a", energy_j=[100 * t for t in range(11)]),
            gpu(range(1, 11), "GPU-b", energy_j=[200 * t for t in range(1, 11)]),
        ]
    )
    found = training_energy(ALWAYS, memory)
    assert (found.joules, found.coverage) == (pytest.approx(2800), pytest.approx(0.9))
    assert joules_per_token(found, [30, 70]) == pytest.approx(30)
