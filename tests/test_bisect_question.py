from __future__ import annotations

import pytest

from harness.bisect_question import about_packages, about_releases, is_set, read_set
from harness.errors import ConfigError
from harness.release_list import Releases

LISTED = ["1.10.0", "1.9.0", "1.8.0", "1.11.0"]


def nobody(_package: str) -> Releases:
    raise AssertionError("releases were given")


def test_releases_between_two_ends_are_asked_for_in_the_stack_that_is_fixed():
    question = about_releases("TRL", ("1.10.0", "1.8.0"), LISTED, {"peft": "0.21.2"}, nobody)
    assert question.releases == ("1.10.0", "1.9.0", "1.8.0")
    assert question.good == {"peft": "0.21.2", "trl": "1.10.0"}
    assert question.stack("1.9.0") == {"peft": "0.21.2", "trl": "1.9.0"}
    assert "3 releases" in question.notes[0]


def test_releases_are_listed_where_none_are_given():
    listing = Releases(("1.8.0", "1.9.0"), "pip")
    question = about_releases("trl", ("1.8.0", "1.9.0"), (), {}, lambda _package: listing)
    assert question.releases == ("1.8.0", "1.9.0")


def test_what_is_searched_can_not_be_fixed():
    with pytest.raises(ConfigError, match="leave it out"):
        about_releases("trl", ("1.8.0", "1.9.0"), LISTED, {"trl": "1.9.0"}, nobody)


def test_packages_that_differ_are_asked_for_and_those_of_one_end_named():
    good = {"numpy": "1", "peft": "1", "trl": "1", "old": "1"}
    bad = {"numpy": "2", "peft": "1", "trl": "2", "new": "1"}
    question = about_packages(good, bad, {})
    assert question.packages == ("numpy", "trl")
    assert question.mixture(frozenset({"trl"})) == {"numpy": "1", "trl": "2"}
    assert "new, old" in question.notes[1]


def test_a_fixed_package_is_not_searched():
    question = about_packages({"a": "1", "b": "1"}, {"a": "2", "b": "2"}, {"b": "3"})
    assert question.packages == ("a",)
    assert question.mixture(frozenset({"a"})) == {"a": "2", "b": "3"}


def test_ends_without_a_difference_are_refused():
    with pytest.raises(ConfigError, match="no package at different releases"):
        about_packages({"a": "1"}, {"a": "1", "b": "2"}, {})


def test_a_set_is_read_with_names_as_indexes_compare_them():
    assert read_set("--good", "Math_Verify==0.9, torch==2.13.0+cpu") == {
        "math-verify": "0.9",
        "torch": "2.13.0+cpu",
    }
    assert is_set("a==1")
    assert not is_set("1.16.0")


def test_every_part_that_is_no_pin_is_named():
    with pytest.raises(ConfigError) as found:
        read_set("--good", "a>=1 b==2 c")
    assert len(found.value.problems) == 2
