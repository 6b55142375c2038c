from __future__ import annotations

import re
from typing import Any

import pytest

from harness.baseline_card import Baseline, Provenance
from harness.baselines import write_baseline
from harness.compare.machine import fingerprint_differences
from harness.compare.model import Acknowledged
from harness.promotion import (
    acknowledgement_problems,
    is_taken_in,
    refusals,
)
from harness.record import Status
from tests.side_factory import make_run, make_side

CLEAN = Provenance(study="upgrade", commits=("f" * 40,), is_dirty=False)


@pytest.fixture
def baseline(tmp_path) -> Baseline:
    return write_baseline(tmp_path / "b", make_side(), CLEAN)


def entry(**fields: str) -> Acknowledged:
    return Acknowledged(
        **({"what": "sft-*:loss", "reason": "why", "version": "trl 1.17.0"} | fields)
    )


def test_a_clean_study_of_the_same_machine_and_matrix_is_taken(baseline):
    assert refusals(baseline, make_side(label="TRL 1.17.0"), CLEAN) == []


@pytest.mark.parametrize(
    ("fields", "provenance", "expected"),
    [
        ({}, {"is_dirty": True}, "uncommitted changes"),
        ({}, {"is_dirty": None}, "whether the tree was clean"),
        ({}, {"commits": ("a" * 40, "b" * 40)}, "2 commits"),
        ({"matrix_hash": "d" * 64}, {}, "asked for different things"),
        ({"platform": {"cpu_model": "Other CPU"}}, {}, "--across-machines"),
        ({"runs": ()}, {}, "has no runs"),
        ({"runs": (make_run(status=Status.NAN),)}, {}, r"sft-plain\.full\.s0 \(nan\)"),
        ({"runs": (make_run(status=None),)}, {}, "not run"),
        ({"unreadable": ("runs/x/record.json: is torn",)}, {}, "record.json: is torn"),
    ],
)
def test_each_reason_against_a_study_is_said(baseline, fields, provenance, expected):
    made_of = CLEAN.model_copy(update=provenance)
    problems = refusals(baseline, make_side(**fields), made_of)
    assert len(problems) == 1
    assert re.search(expected, problems[0])


def test_all_reasons_are_said_at_once(baseline):
    side = make_side(
        matrix_hash="d" * 64,
        platform={"cpu_model": "Other CPU"},
        runs=(make_run(status=Status.CRASHED),),
        unreadable=("x",),
    )
    assert len(refusals(baseline, side, CLEAN.model_copy(update={"is_dirty": True}))) == 5


def test_another_machine_is_taken_where_it_is_asked_for(baseline):
    side = make_side(platform={"cpu_model": "Other CPU"})
    assert refusals(baseline, side, CLEAN, across_machines=True) == []


def test_an_installed_harness_has_no_tree_to_be_dirty(baseline):
    assert refusals(baseline, make_side(), Provenance(study="s")) == []


def test_an_update_of_the_kernel_is_no_other_machine():
    base = {"cpu_model": "A", "kernel": "6.1", "memory_bytes": 1, "gpus": ["H100"]}
    assert fingerprint_differences(base, base | {"kernel": "6.2", "memory_bytes": 2}) == []
    assert fingerprint_differences(base, base | {"gpus": []}) == ["GPUs H100 became none"]


CELLS = ("sft-plain.full.s0", "sft-plain.lora-r1.s0", "grpo-plain.full.s0")


@pytest.mark.parametrize(
    "what",
    ["sft-*:loss", "sft-plain:loss", "*:configuration", "*.lora-*:*", "grpo-plain.full:memory"],
)
def test_an_acknowledgement_that_names_a_cell_and_a_kind_is_taken(what):
    assert acknowledgement_problems(entry(what=what), CELLS) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"what": "sft-*"}, "expected a selector over pair.arm and a kind"),
        ({"what": "sft-*:los"}, "did you mean 'loss'"),
        ({"what": ":loss"}, "expected a selector"),
        ({"what": "sft-plain.ful:loss"}, "did you mean 'sft-plain.full'"),
        ({"reason": " "}, "--reason is empty"),
        ({"version": ""}, "e.g. 'trl 1.16.0'"),
        ({"version": "1.16.0"}, "e.g. 'trl 1.16.0'"),
    ],
)
def test_a_wrong_acknowledgement_is_refused(fields: dict[str, Any], expected):
    problems = acknowledgement_problems(entry(**fields), CELLS)
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("trl", "expected"), [("1.16.0", False), ("1.17.0", True), ("1.18.1", True)]
)
def test_a_change_is_taken_in_from_its_release_on(trl, expected):
    assert is_taken_in(entry(), make_side(packages={"trl": trl})) is expected


def test_a_change_of_a_package_that_is_not_there_is_not_taken_in():
    assert not is_taken_in(entry(), make_side(packages={"trl": None}))
