"""Planted faults: the list goes with the installed packages, and one is caught by the real commands."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.compare.verdict import compare_sides
from tests.comparison_sides import PACKAGES, make_side, only, scale_gradient
from tests.planted.faults import Fault, edited, installed, read_faults
from tests.planted.table import Row, render

WRITTEN_FOR = {"trl": "1.16.0", "peft": "0.21.2", "transformers": "5.17.0"}
FAULTS = read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_stands_where_the_list_says(fault):
    if version(fault.package) != WRITTEN_FOR[fault.package]:
        pytest.skip(f"the list was written for {fault.package} {WRITTEN_FOR[fault.package]}")
    text = (installed(fault.package).parent / fault.file).read_text()
    assert edited(fault, text) != text


def test_names_are_unique():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_line_that_is_not_there_is_refused():
    fault = FAULTS[0]
    with pytest.raises(ValueError, match="found 0 times"):
        edited(fault, "nothing = 1\n")
    with pytest.raises(ValueError, match="found 2 times"):
        edited(fault.model_copy(update={"old": "x = 1"}), "x = 1\nx = 1\n")
    second = fault.model_copy(update={"old": "x = 1", "new": "x = 2", "which": 2, "of": 2})
    assert edited(second, "x = 1\nx = 1\n") == "x = 1\nx = 2\n"


def fault_in(task: str, arms: str) -> Fault:
    return Fault(**{**FAULTS[0].model_dump(), "where": {"task": task, "arms": arms}})


@pytest.mark.parametrize(
    ("task", "arms", "is_placed"),
    [
        ("sft", "lora", True),
        ("sft", "all", False),
        ("grpo", "lora", False),
        ("both", "lora", False),
    ],
)
def test_a_fault_is_placed_if_just_what_it_reaches_is_named(task, arms, is_placed):
    def change(run):
        return scale_gradient(run, 2.0)

    side = make_side(only(lambda r: r.task == "sft" and r.method == "lora", change))
    row = Row(fault_in(task, arms), compare_sides(make_side(packages=PACKAGES), side))
    assert row.is_caught
    assert row.is_placed == is_placed
    mark = "1 of 1" if is_placed else "0 of 1"
    assert f"{mark} faults caught and placed" in render([row])


def test_what_is_the_same_is_not_caught_and_nothing_said_is_a_miss():
    same = Row(FAULTS[0], compare_sides(make_side(), make_side()))
    assert not same.is_caught
    assert not same.is_placed
    assert "MISS" in Row(FAULTS[0], None).line


@pytest.mark.slow
def test_a_scale_that_peft_ignores_is_caught_in_lora_alone(tmp_path: Path):
    root = Path(__file__).parent.parent
    variables = {"HARNESS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(root)}
    words = ("--only", "lora-scaling-ignored", "--filter", "*-plain.*", "--into", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.planted", *words], cwd=root, env=os.environ | variables,
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 of 1 faults caught and placed" in done.stdout, done.stdout + done.stderr
    assert "LoRA only" in done.stdout
    codes = (tmp_path / "lora-scaling-ignored" / "codes.json").read_text()
    assert codes == '{"bench": 0, "compare": 4}'
