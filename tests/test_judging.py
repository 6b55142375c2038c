"""The commands on claims, through the command line: what they print and how they exit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import run
from harness.judging import exit_code
from harness.verdicts.model import ClaimVerdict

STUDY = Path(__file__).parent / "data" / "format-1"


def verdict(word: str, role: str = "claim", as_expected: bool | None = None) -> ClaimVerdict:
    return ClaimVerdict(
        claim="c",
        rule="match",
        role=role,  # type: ignore[arg-type]
        sentence="s",
        margin="0.1 reward",
        word=word,  # type: ignore[arg-type]
        alone=word,  # type: ignore[arg-type]
        plain="p",
        reason="r",
        parts=(),
        is_as_expected=as_expected,
    )


@pytest.mark.parametrize(
    ("verdicts", "fail_on", "code"),
    [
        ([verdict("refuted")], (), 0),
        ([verdict("refuted")], ("refuted",), 5),
        ([verdict("refuted")], ("inconclusive",), 0),
        ([verdict("inconclusive")], ("refuted",), 0),
        ([verdict("inconclusive")], ("inconclusive",), 6),
        ([verdict("not tested")], ("inconclusive",), 6),
        ([verdict("inconclusive"), verdict("refuted")], ("refuted", "inconclusive"), 5),
        ([verdict("supported")], ("refuted", "inconclusive", "control"), 0),
        # A positive control has to be refuted: that is no refuted claim.
        ([verdict("supported"), verdict("refuted", "positive-control", True)], ("refuted",), 0),
        ([verdict("supported"), verdict("supported", "positive-control", False)], ("control",), 6),
        ([], ("inconclusive",), 6),
    ],
)
def test_what_was_asked_to_fail_has_its_exit_code(verdicts, fail_on, code):
    assert exit_code(verdicts, fail_on) == code


def test_a_verdict_a_claim(capsys):
    assert run(["verdict", str(STUDY)]) == 0
    out = capsys.readouterr().out
    for claim in ("sft-micro.lora", "grpo-micro.lora-r1"):
        assert claim in out
    assert "inconclusive" in out


def test_json_is_a_line_a_claim_with_every_part(capsys):
    assert run(["verdict", str(STUDY), "--json", "--fail-on", "inconclusive"]) == 6
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["claim"] for line in lines] == ["sft-micro.lora", "grpo-micro.lora-r1"]
    assert all(line["parts"][0]["effect"]["name"] for line in lines)
    assert not any(line["is_post_hoc"] for line in lines)


def test_a_margin_that_was_changed_afterwards_is_called_post_hoc(tmp_path, capsys):
    shutil.copytree(STUDY, tmp_path / "study")
    path = tmp_path / "study" / "study.json"
    study = json.loads(path.read_text())
    changed = study["matrix_text"].replace("margin: 0.02", "margin: 5.0")
    assert changed != study["matrix_text"]
    path.write_text(json.dumps({**study, "matrix_text": changed}))
    run(["verdict", str(tmp_path / "study")])
    assert "post hoc" in capsys.readouterr().out
    run(["verdict", str(tmp_path / "study"), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["is_post_hoc"] for line in lines)


def test_an_unknown_word_is_refused_with_a_suggestion(capsys):
    assert run(["verdict", str(STUDY), "--fail-on", "refutd"]) == 2
    assert "did you mean 'refuted'" in capsys.readouterr().err


def test_claims_are_listed_with_what_they_allow(capsys):
    assert run(["claims", "ls", "--matrix", "findings"]) == 0
    out = capsys.readouterr().out
    assert "ratio 5 to 20" in out
    assert "positive-control" in out


def test_a_matrix_without_claims_claims_that_its_arms_match(capsys):
    assert run(["claims", "ls", "--matrix", "cpu", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(line["claim"], line["margin"]) for line in lines} == {
        ("sft-steps.lora-r16", 0.1),
        ("grpo-arithmetic.lora-r1", 0.05),
    }


def test_a_claim_is_shown_with_its_place_and_its_reason(capsys):
    assert run(["claims", "show", "capacity", "--matrix", "findings"]) == 0
    out = capsys.readouterr().out
    for word in ("TRL's page", "because", "tulu3.lora-r4", "at least 5"):
        assert word in out


def test_an_unknown_claim_is_refused_with_those_there_are(capsys):
    assert run(["claims", "show", "capcity", "--matrix", "findings"]) == 2
    assert "did you mean 'capacity'" in capsys.readouterr().err


def test_power_of_one_seed_is_not_known(capsys):
    assert run(["plan", "--power", str(STUDY), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["claim"] for line in lines} == {"sft-micro.lora", "grpo-micro.lora-r1"}
    assert all(line["seeds"] == 1 and line["power_now"] is None for line in lines)
