"""Phases of instants, and one lens over time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.lenses import (
    assign_phases,
    device_series,
    idle_by_device,
    innermost_spans,
    lens_series,
    passed_within,
    summed,
    training_spans,
)
from harness.samples import PHASES, DeviceSummary, PhaseRow
from tests.timelines import EMPTY, S, gpu, samples, span


def test_a_sample_belongs_to_the_innermost_phase():
    phases = [span("generate", 2, 4), span("train", 1, 9), span("weight_sync", 3, 3.5)]
    seconds = [0.5, 1.5, 2.5, 3.2, 3.8, 5, 9.5]
    got = assign_phases([int(t * S) for t in seconds], phases)
    assert got == [None, "train", "generate", "weight_sync", "generate", "train", None]


def test_a_lens_that_did_not_answer_is_empty():
    memory = samples([(1, "host", 10, None)])
    assert lens_series(memory, "nvml_device_bytes").empty
    assert lens_series(EMPTY, "rss_bytes").empty


def innermost(t, phases):
    """What assign_phases means, read off one instant at a time."""
    spanning = [p for p in phases if p.begin_ns <= t <= p.end_ns]
    latest = max(spanning, key=lambda p: (p.begin_ns, -p.end_ns), default=None)
    return latest.phase if latest else None


@st.composite
def timelines(draw):
    """Phases that nest, touch or overlap; no two alike, so that the innermost is never a toss."""
    edges = draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=7, unique=True)
    )
    names = [draw(st.sampled_from(PHASES)) for _ in edges]
    return [
        PhaseRow(phase=name, begin_ns=begin, end_ns=begin + length)
        for name, (begin, length) in zip(names, edges, strict=True)
    ]


@settings(max_examples=30)
@given(timelines())
def test_the_innermost_phase_is_the_one_that_began_last(phases):
    times = range(-1, 45)
    assert assign_phases(times, phases) == [innermost(t, phases) for t in times]


@settings(max_examples=30)
@given(timelines())
def test_stretches_lie_in_time_order_and_name_the_phase_inside(phases):
    scaled = [PhaseRow(phase=p.phase, begin_ns=2 * p.begin_ns, end_ns=2 * p.end_ns) for p in phases]
    stretches = innermost_spans(scaled)
    assert all(a[2] <= b[1] for a, b in pairwise(stretches))
    for name, begin, end in stretches:
        assert {innermost(t, scaled) for t in range(begin + 1, end, 2)} == {name}


def test_training_is_joined_across_its_own_phases_and_cut_by_others():
    phases = [span("train", 1, 10), span("generate", 2, 3), span("evaluate", 5, 7)]
    spans = training_spans(phases)
    assert spans == [(1 * S, 5 * S), (7 * S, 10 * S)]
    passed = passed_within([0, 1 * S, 3 * S, 6 * S, 8 * S, 99 * S], spans)
    assert passed.tolist() == [0, 0, 2 * S, 4 * S, 5 * S, 7 * S]


def test_a_sum_ends_where_a_device_fell_silent():
    memory = samples(
        [(1, "GPU-a", None, 5), (1, "GPU-b", None, 7), (2, "GPU-a", None, 6), (3, "host", 9, None)]
    )
    by_device = device_series(memory, "nvml_device_bytes")
    assert {device: each.tolist() for device, each in by_device.items()} == {
        "GPU-a": [5, 6],
        "GPU-b": [7],
    }
    assert summed(by_device.values()).to_dict() == {1 * S: 12}
    assert lens_series(memory, "nvml_device_bytes").to_dict() == {1 * S: 12}
    assert summed([]).empty
    assert device_series(EMPTY, "nvml_device_bytes") == {}
    assert device_series(gpu([1]), "nvml_device_bytes") == {}


def test_devices_that_are_read_at_different_instants_add_up_by_their_last_readings():
    """Lists of processes have a turn on each GPU: here never at one time."""
    memory = samples(
        [(1, "GPU-a", None, 5), (2, "GPU-b", None, 7), (3, "GPU-a", None, 9), (4, "GPU-b", None, 1)]
    )
    assert lens_series(memory, "nvml_device_bytes").to_dict() == {2 * S: 12, 3 * S: 16}


def test_idle_is_the_lowest_reading_of_each_gpu_until_loading_begins():
    """a: residue of 50 that is freed in between; b: idle was read in the middle of loading alone."""
    memory = samples(
        [
            (0, "GPU-a", None, 55), (1, "GPU-a", None, 5), (2, "GPU-a", None, 6),
            (3, "GPU-a", None, 2), (4, "GPU-a", None, 90),
            (4, "GPU-b", None, 40), (5, "GPU-b", None, 30),
        ]
    )  # fmt: skip
    load = [span("load", 2, 6)]
    assert idle_by_device(memory, load) == {"GPU-a": 5, "GPU-b": 40}
    noted = [DeviceSummary(uuid=uuid, idle_bytes=7) for uuid in ("GPU-a", "GPU-b", "GPU-c")]
    assert idle_by_device(memory, load, noted) == {"GPU-a": 5, "GPU-b": 7, "GPU-c": 7}
    assert idle_by_device(memory, []) == {"GPU-a": 55, "GPU-b": 40}
    assert idle_by_device(EMPTY, load) == {}
