"""`harness flops`: a table for a person, lines for a program, and wrong names told at once."""

from __future__ import annotations

import json
import sys

import pytest

from harness.asking import ask_worker
from harness.catalog import MODELS
from harness.cli import run
from harness.compute import StepFlops
from harness.errors import MachineError
from harness.flops import PAGE_MODELS
from tests.test_compute import TABLE

SMALL = "Qwen/Qwen3-0.6B"


def test_the_default_is_every_model_of_the_table():
    assert set(PAGE_MODELS) == set(TABLE) <= set(MODELS)


@pytest.mark.slow
def test_lines_hold_the_counts_and_then_the_ratios(capsys):
    assert run(["flops", "--model", SMALL, "--rank", "32", "--tokens", "64", "--json"]) == 0
    full, lora, ratio = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (full["rank"], lora["rank"], ratio["rank"]) == (None, 32, 32)
    assert ratio["linear"] == pytest.approx(lora["linear"] / full["linear"])
    assert ratio["linear"] == pytest.approx(ratio["closed_form"], rel=0.01)


def test_a_table_says_what_it_counts(capsys, monkeypatch):
    lines = [
        {"model": SMALL, "rank": rank, "tokens": 64, "linear": n, "attention": 10, "head": 0}
        for rank, n in ((None, 90), (1, 60))
    ]
    program = f"print({chr(10).join(map(json.dumps, lines))!r})"
    monkeypatch.setattr("harness.counting.COMMAND", (sys.executable, "-c", program))
    assert run(["flops", "--model", SMALL, "--rank", "1", "--tokens", "64"]) == 0
    out = capsys.readouterr().out
    assert "over 64 tokens" in out
    assert out.splitlines()[-1].split() == [SMALL, "1", "0.667", "0.668", "0.700", "0.100"]


def test_models_that_are_not_known_are_listed_together(capsys):
    assert run(["flops", "--model", "Qwen/Qwen3-0.6", "--model", "gpt-2"]) == 2
    said = capsys.readouterr().err
    assert f"did you mean '{SMALL}'" in said
    assert "'gpt-2' is not in the catalogue" in said


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('no json')", "an answer that can't be read"),
        ("raise SystemExit('broken')", "broken"),
    ],
)
def test_a_worker_that_does_not_answer_is_quoted(program, said):
    with pytest.raises(MachineError, match=f"(?s)counting ended with.*{said}|ended with {said}"):
        ask_worker(("python", "-c", program), {}, StepFlops, "counting")
