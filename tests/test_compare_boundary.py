"""A boundary lies between two releases, or it does not."""

from __future__ import annotations

import pytest

from harness.compare.boundary import (
    Boundary,
    all_of,
    is_crossed,
    is_from,
    is_not_in,
    is_older,
    is_on,
    is_one_of,
    windows_differ,
)
from harness.compare.moved import argument_in
from harness.compare.reach import UNKNOWN, reach_of

FOR_GOOD = Boundary("1.10", ("grpo",), ("loss",), "x", "y", "z")
FOR_A_WHILE = Boundary("0.22", ("grpo",), ("loss",), "x", "y", "z", until="0.22.2")


@pytest.mark.parametrize(
    ("boundary", "base", "candidate", "crossed"),
    [
        (FOR_GOOD, "1.9.1", "1.10.0", True),
        (FOR_GOOD, "1.10.0", "1.9.1", True),
        (FOR_GOOD, "1.2", "1.9.9", False),
        (FOR_GOOD, "1.10.0", "1.16.0", False),
        (FOR_A_WHILE, "0.21.0", "0.22.1", True),
        (FOR_A_WHILE, "0.22.1", "0.22.2", True),
        (FOR_A_WHILE, "0.21.0", "0.22.2", False),
        (FOR_A_WHILE, "1.16.0+edited", "0.22.0", True),
        (FOR_GOOD, None, "1.16.0", False),
    ],
)
def test_a_boundary_is_crossed_if_only_one_side_is_within(boundary, base, candidate, crossed):
    assert is_crossed(boundary, base, candidate) is crossed


def test_settings_that_do_not_say_are_neither_true_nor_false():
    assert is_on("beta")({}) is None
    assert is_on("beta")({"beta": 0.0}) is False
    assert is_one_of("loss_type", "dapo")({"loss_type": "dapo"}) is True
    assert is_older("trl", "0.27")({"trl": "0.26.2"}) is True
    assert is_from("trl", "0.27")({"trl": "0.26.2"}) is False
    assert is_from("trl", "0.27")({}) is None
    assert is_not_in("float32")({}) is None
    assert is_not_in("float32")({"dtypes": ["torch.bfloat16"]}) is True
    assert is_not_in("float32")({"dtypes": ["torch.float32"]}) is False


def test_one_condition_that_fails_decides():
    both = all_of(is_on("a"), is_on("b"))
    assert both({"a": 0}) is False
    assert both({"a": 1}) is None
    assert both({"a": 1, "b": 1}) is True


def test_windows_differ_only_where_generation_spans_other_steps():
    assert windows_differ({"steps_per_generation": 4, "gradient_accumulation_steps": 2}) is True
    assert windows_differ({"steps_per_generation": 2, "gradient_accumulation_steps": 2}) is False
    assert windows_differ({"steps_per_generation": None, "gradient_accumulation_steps": 2}) is False
    assert windows_differ({"gradient_accumulation_steps": 2}) is None


def test_an_argument_is_found_in_what_a_difference_is_called():
    known = {"loss_type": 1, "beta": 2}
    for what in ("loss_type", "config/grpo-plain.full/loss_type", "arguments.loss_type (grpo)"):
        assert argument_in(what, known) == "loss_type"
    assert argument_in("???", known) == "???"


def test_a_package_is_known_however_it_is_spelt():
    assert reach_of("Liger_Kernel") is reach_of("liger-kernel")
    assert reach_of("left-pad") is UNKNOWN
