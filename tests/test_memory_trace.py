"""Folding a log of storages into steps, on logs made by hand; and replaying them."""

from __future__ import annotations

import pytest

from harness.memory_replay import replay
from harness.memory_trace import ALLOCATE, BEFORE, FREE, MARK, NEW, OWN, SETUP, Event, fold

MIB = 1 << 20


def step(first: int, size: int, layers: int = 3) -> list[Event]:
    """Each layer keeps one storage in the forward pass, and frees it in the backward pass."""
    forward = [Event(ALLOCATE, first + i, size, unit=i) for i in range(layers)]
    backward = [Event(FREE, first + i, unit=i) for i in reversed(range(layers))]
    return [
        Event(MARK, name="step"),
        Event(MARK, name="forward"),
        *forward,
        Event(MARK, name="backward"),
        *backward,
        Event(MARK, name="optimizer"),
    ]


def log(short: int = 10 * MIB, long: int = 20 * MIB) -> list[Event]:
    weights = [Event(ALLOCATE, i, 2 * MIB, unit=i) for i in range(3)]
    return [*weights, *step(10, long), *step(20, long), *step(30, short)]


@pytest.mark.parametrize("layers", [3, 4, 28])
def test_the_middle_of_three_layers_is_repeated_to_the_models_depth(layers):
    trace = fold(log(), {}, layers, (100, 50))
    assert len(trace.setup.sizes) == len(trace.repeated.sizes) == layers
    assert replay(trace, [100] * 3).allocated == layers * 22 * MIB


def test_a_layers_release_runs_from_the_last_to_the_first():
    trace = fold(log(), {}, 5, (100, 50))
    assert [e for e in trace.repeated.events if e[0] == OWN] == [(OWN, i) for i in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(("length", "mib"), [(100, 20), (50, 10), (75, 15), (200, 40)])
def test_a_length_between_and_beyond_lies_on_the_line_through_both(length, mib):
    assert set(fold(log(), {}, 3, (100, 50)).sizes_at(length)) == {mib * MIB}


def test_what_lives_into_the_backward_pass_is_an_activation_and_the_rest_goes_with_its_moment():
    trace = fold(log(), {0: "weights", 1: "weights", 2: "weights"}, 3, (100, 50))
    assert set(trace.repeated.kinds) == {"activations"}
    assert replay(trace, [100]).kinds == {"weights": 6 * MIB, "activations": 60 * MIB}


def test_the_split_by_kind_adds_up_to_the_highest_allocated_memory():
    peak = replay(fold(log(), {}, 9, (100, 50)), [100, 60, 80], standing=[8_519_680])
    assert sum(peak.kinds.values()) == peak.allocated
    assert peak.reserved >= peak.allocated


def test_a_step_frees_what_the_one_before_it_left():
    events = log()
    at = [i for i, e in enumerate(events) if e.what == MARK and e.name == "step"]
    left = [Event(ALLOCATE, 90 + n, MIB) for n in range(3)]
    whole: list[Event] = []
    for n, begin in enumerate(at):
        end = at[n + 1] if n < 2 else len(events)
        inside = events[begin:end]
        freed = [Event(FREE, 90 + n - 1)] if n else []
        whole += [inside[0], *freed, *inside[1:], left[n]]
    trace = fold([*events[: at[0]], *whole], {}, 3, (100, 50))
    assert trace.repeated.events[0][0] == BEFORE
    assert all(owner in (NEW, OWN, BEFORE, SETUP) for owner, _ in trace.repeated.events)
    assert replay(trace, [100] * 6).allocated == replay(trace, [100] * 3).allocated


@pytest.mark.parametrize("length", [96, 80, 48, 16, 160])
def test_a_mask_s_bytes_go_with_the_square_of_the_length(length):
    trace = fold(log(short=2 * 48 * 48, long=2 * 96 * 96), {}, 3, (96, 48))
    assert set(trace.sizes_at(length)) == {2 * length * length}


@pytest.mark.parametrize("lengths", [(96, 48), (96, 95), (1024, 514)])
def test_bytes_of_all_positions_but_one_go_with_the_length(lengths):
    longest, shorter = lengths
    trace = fold(log(short=40 * (shorter - 1), long=40 * (longest - 1)), {}, 3, lengths)
    assert set(trace.sizes_at(73)) == {40 * 72}


def test_steps_that_differ_in_more_than_bytes_count_as_the_longest_and_say_so():
    trace = fold([*log(), Event(ALLOCATE, 99, 1)], {}, 3, (100, 50))
    assert trace.sizes_at(50) == trace.sizes_at(100) == trace.repeated.sizes
    assert "differ in more than bytes" in trace.notes[0]
    assert fold(log(), {}, 3, (100, 50)).notes == ()


def test_lengths_that_change_cost_reserved_memory_that_one_length_does_not():
    trace = fold(log(short=11 * MIB, long=21 * MIB), {}, 8, (100, 50))
    steady, shuffled = replay(trace, [100] * 6), replay(trace, [60, 75, 90, 100, 50, 100])
    assert shuffled.allocated == steady.allocated
    assert shuffled.reserved > steady.reserved
