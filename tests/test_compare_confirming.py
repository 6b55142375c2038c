"""Suspicions are settled by running their cells again: seen twice is a change, seen once is luck."""

from __future__ import annotations

import pytest

from harness.compare.concluding import exit_code
from harness.compare.confirming import Rerun, confirm
from harness.compare.model import Acknowledged
from harness.compare.verdict import compare_sides
from harness.grade import MeasurementGrade
from tests.comparison_sides import MIB
from tests.test_compare_statistics import on_gpu, shifted


def suspicion():
    return compare_sides(on_gpu(), on_gpu(shifted(0.2, 0.01), label="TRL 1.17.0"))


def rerun_to(by) -> Rerun:
    """A rerun on other seeds that comes to this difference."""

    def rerun(cells):
        assert cells == ("sft-plain.full",)
        return on_gpu(), on_gpu(shifted(by, 0.01, seed=9), label="TRL 1.17.0")

    return rerun


def settle(by, **more):
    found = suspicion()
    return confirm(found, compare_sides(*rerun_to(by)(found.suspected)), **more)


def test_a_suspicion_that_shows_again_is_a_change():
    found = settle(0.19)
    assert found.word == "changed"
    assert "confirmed on other seeds" in found.cells[0].sentence
    assert found.suspected == ()
    assert found.place.kinds == ("metric",)
    assert exit_code(found) == 4


@pytest.mark.parametrize("by", [0.0, -0.2])
def test_one_that_does_not_or_points_the_other_way_was_luck(by):
    found = settle(by)
    assert found.word == "same"
    assert exit_code(found) == 0
    assert any("not seen again" in d.sentence for d in found.cells[0].differences)


def test_a_confirmed_change_may_be_acknowledged():
    entry = Acknowledged(what="sft-plain.full:metric", reason="expected", version="")
    assert exit_code(settle(0.19, acknowledged=[entry])) == 0


def test_memory_that_cannot_be_trusted_when_measured_again_settles_nothing():
    def of(size, grade="A"):
        def change(run):
            return run.model_copy(
                update={
                    "peak_bytes": {"nvml-device": {"load": size * MIB + run.seed}},
                    "growth_bytes": {"nvml-device": 0},
                    "grades": {"nvml-device": MeasurementGrade(grade=grade)},
                }
            )

        return on_gpu(change)

    found = compare_sides(of(500), of(900))
    assert found.suspected == ("sft-plain.full",)
    assert confirm(found, compare_sides(of(500), of(500))).word == "same"
    assert confirm(found, compare_sides(of(500), of(900))).word == "changed"
    assert confirm(found, compare_sides(of(500), of(900, "D"))).word == "undecided"


def test_cells_that_were_not_trained_again_stay_undecided():
    found = suspicion()
    empty = compare_sides(on_gpu(), on_gpu()).model_copy(update={"cells": ()})
    assert confirm(found, empty).word == "undecided"
