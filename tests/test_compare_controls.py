"""The A/A comparison: counted, and what reruns differ in proves nothing between the sides."""

from __future__ import annotations

import random

import pytest

from harness.compare.concluding import exit_code
from harness.compare.controls import control_of, noise_of
from harness.compare.limits import Limits
from harness.compare.verdict import compare_sides
from harness.record import Status
from tests.comparison_sides import make_side, only, scale_gradient, scale_log
from tests.test_compare_burden import slower

LIMITS = Limits()
ARMS = {"full": "full", "full-again": "full", "lora-r4": "lora"}
REPEATS = {"sft-plain.full-again": "sft-plain.full", "grpo-plain.full-again": "grpo-plain.full"}
PAIRS = ("sft-plain", "grpo-plain")


def side(change=lambda run: run, **more):
    return make_side(change, pairs=PAIRS, arms=ARMS, repeats=REPEATS, **more)


def is_again(run):
    return run.arm == "full-again"


def moved(run):
    return scale_log(run, "entropy", 1.01)


def test_reruns_that_repeat_are_counted_without_an_alarm():
    found = control_of(side(), LIMITS)
    assert (found.compared, found.alarms, found.kinds) == (2, 0, ())


def test_a_rerun_that_differs_is_an_alarm():
    found = control_of(side(only(is_again, moved)), LIMITS)
    assert (found.compared, found.alarms, found.kinds) == (2, 2, ("metric",))
    assert "entropy" in found.sentences[0]


def test_a_rerun_that_rounds_is_none():
    found = control_of(side(only(is_again, lambda r: scale_log(r, "entropy", 1 + 1e-7))), LIMITS)
    assert found.alarms == 0


@pytest.mark.slow
def test_twenty_comparisons_of_clones_have_no_alarm():
    alarms = 0
    for i in range(20):
        first, second = (side(noise=random.Random(2 * i + k)) for k in (0, 1))
        found = compare_sides(first, second)
        alarms += sum(control.alarms for control in found.controls) + (found.word != "same")
    assert alarms == 0


def test_repeats_are_no_cells_of_their_own():
    found = compare_sides(side(), side())
    assert {cell.arm for cell in found.cells} == {"full", "lora-r4"}
    assert [control.compared for control in found.controls] == [2, 2]
    assert not any("no A/A" in note for note in found.notes)


def test_a_repeat_that_failed_is_a_cell_and_not_passed_over():
    def crash(run):
        return run.model_copy(update={"status": Status.CRASHED, "reason": "ValueError: x"})

    found = compare_sides(side(), side(only(is_again, crash)))
    failed = [cell for cell in found.cells if cell.arm == "full-again"]
    assert {cell.word for cell in failed} == {found.word} == {"changed"}
    assert "crashed (ValueError: x) in the candidate, ok in the base" in failed[0].sentence


def test_what_the_machines_own_reruns_differ_in_is_undecided():
    noisy = only(is_again, moved)
    found = compare_sides(
        side(noisy), side(only(lambda r: r.task == "grpo", lambda r: noisy(moved(r))))
    )
    assert found.word == "undecided"
    cell = next(c for c in found.cells if c.word == "undecided")
    assert "the machine's own reruns differ" in cell.sentence
    assert any(note.startswith("A/A: ") for note in found.notes)
    assert exit_code(found) == 6


def test_other_kinds_of_difference_stand():
    noisy = only(is_again, moved)
    found = compare_sides(side(noisy), side(lambda r: scale_gradient(noisy(r), 2.0)))
    assert found.word == "changed"
    assert found.place.kinds == ("gradient",)


def test_a_candidate_that_alone_does_not_repeat_has_changed():
    candidate = side(lambda r: scale_gradient(r, 1.7 if is_again(r) else 1.3))
    found = compare_sides(side(), candidate)
    assert found.word == "changed"
    assert "the candidate's own reruns differ too" in found.cells[0].differences[0].sentence


def test_slow_reruns_widen_the_limits_of_time():
    base = side(only(is_again, slower(1.4)))
    noise = noise_of(base, side(), (control_of(base, LIMITS), control_of(side(), LIMITS)), LIMITS)
    assert noise.spread.step_ratio > 1.39
    candidate = side(only(lambda r: r.task == "grpo", slower(1.6)))
    assert compare_sides(side(), candidate).word == "changed"
    assert compare_sides(base, candidate).word != "changed"
