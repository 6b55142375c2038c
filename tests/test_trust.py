"""Which runs count, and what is said of the others."""

from __future__ import annotations

import pytest

from harness.grade import MeasurementGrade
from harness.trust import is_graded_d, trusted, trusted_seeds
from tests.study_factory import Plan, build_study

LENS = "nvml-device"
BARE = build_study(Plan(arms=2, seeds=(0,))).runs[0].summary


def runs(grades):
    """A run a letter; a dash was never graded."""
    return [
        BARE.model_copy(
            update={"grades": {} if grade == "-" else {LENS: MeasurementGrade(grade=grade)}}
        )
        for grade in grades
    ]


@pytest.mark.parametrize(
    ("grades", "kept", "note"),
    [
        ("ABC-", [0, 1, 2, 3], ""),
        ("ADC", [0, 2], " (1 of 3 runs left out: graded D)"),
        ("D-D", [1], " (2 of 3 runs left out: graded D)"),
        ("DD", [0, 1], " (graded D)"),
        ("", [], ""),
    ],
)
def test_runs_of_grade_d_are_left_out_unless_there_is_no_other(grades, kept, note):
    every = runs(grades)
    found = trusted(every, LENS)
    assert [id(run) for run in found.runs] == [id(every[place]) for place in kept]
    assert found.note == note


def test_another_lens_is_left_alone():
    (poor,) = runs("D")
    assert is_graded_d(poor, LENS)
    assert not is_graded_d(poor, "rss")
    assert trusted([poor], "rss").note == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "seeds", "note"),
    [
        ("AAA", "ADA", [0, 2], " (1 of 3 seeds left out: graded D)"),
        ("DAA", "ADA", [2], " (2 of 3 seeds left out: graded D)"),
        ("DA", "AD", [0, 1], " (graded D)"),
        ("AAD", "AA", [0, 1], ""),  # nothing to compare the third with
    ],
)
def test_a_seed_counts_if_it_counts_in_both_arms(ours, theirs, seeds, note):
    a, b = (dict(enumerate(runs(grades))) for grades in (ours, theirs))
    assert trusted_seeds(a, b, LENS) == (seeds, note)
