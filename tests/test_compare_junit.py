"""JUnit XML of a comparison: a case a cell, and XML whatever the text was."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.compare.junit import render_junit
from harness.compare.model import Control
from tests.comparison_pages import HOSTILE, every_word, make, only, with_text


def suites(comparison):
    root = ET.fromstring(render_junit(comparison))
    return root, {suite.get("name"): suite for suite in root}


def ends(suite):
    return {c.get("name"): [e.tag for e in c] for c in suite.findall("testcase")}


def test_a_cell_is_a_case_that_fails_if_it_changed_and_is_skipped_if_nobody_knows():
    root, found = suites(every_word())
    assert ends(found["upgrade"]) == {
        "pair-0.full": [], "pair-1.full": [], "pair-2.full": ["skipped"],
        "pair-3.full": ["skipped"], "pair-4.full": ["skipped"], "pair-5.full": ["failure"],
    }  # fmt: skip
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("8", "1", "3")


def test_a_failure_says_what_differs_with_both_values():
    _, found = suites(every_word())
    failure = found["upgrade"].find("testcase/failure")
    assert failure.get("message") == "This one is changed."
    assert failure.text == "log/loss, step 3: null → 0.25 (changed). The loss is changed."


def test_packages_are_properties():
    _, found = suites(make(only("sft", gradients=lambda g: 2 * g)).comparison)
    properties = {p.get("name"): p.get("value") for p in found["upgrade"].iter("property")}
    assert properties["package.trl.base"] == "1.15.9"
    assert properties["package.trl.candidate"] == "1.16.0"


def test_a_change_that_was_accepted_does_not_fail():
    comparison = make(
        only("sft", gradients=lambda g: 2 * g), accepted="as the notes say"
    ).comparison
    root, found = suites(comparison)
    assert root.get("failures") == "0"
    skipped = found["upgrade"].find("testcase/skipped")
    assert "as the notes say" in skipped.get("message")


def test_reruns_and_replay_are_cases_of_their_own():
    plain = make().comparison
    assert ends(suites(plain)[1]["comparison"]) == {"replay": [], "A/A": []}
    difference = every_word().cells[-1].differences[0]
    bad = plain.model_copy(
        update={
            "replay": (difference.model_copy(update={"layer": "replay"}),),
            "controls": (Control(compared=2, alarms=1, sentences=("It differed.",)),),
        }
    )
    assert ends(suites(bad)[1]["comparison"]) == {"replay": ["failure"], "A/A": ["failure"]}
    none = plain.model_copy(update={"controls": ()})
    assert ends(suites(none)[1]["comparison"])["A/A"] == ["skipped"]


def test_any_text_is_well_formed_xml():
    every = "".join(chr(code) for code in (*range(0x300), 0xD800, 0xFFFE, 0xFFFF, 0x1F600))
    for value in (HOSTILE, every, "]]>", "<![CDATA["):
        root, _ = suites(with_text(value, 2).comparison)
        assert root.get("failures") == "4"
