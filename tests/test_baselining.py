"""The commands on baselines, through the command line: what they print and how they exit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.baseline_card import Provenance
from harness.baselines import HOME, SIDE, read_acknowledgements, write_baseline
from harness.cli import run
from tests.side_factory import make_side

STUDY = Path(__file__).parent / "data" / "format-1"
NAME = "upgrade-trl-1.16.0"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_baseline(
        HOME / NAME, make_side(), Provenance(study="s", commits=("f" * 40,), is_dirty=True)
    )
    return HOME / NAME


def test_baselines_are_listed_with_what_they_were_made_of(folder, capsys):
    assert run(["baseline", "list"]) == 0
    out = capsys.readouterr().out
    for word in (NAME, "TRL 1.16.0", "2 of 2 ok", "ffffffffffff, dirty"):
        assert word in out
    assert run(["baseline", "list", "--json", "--in", str(HOME)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["baseline"], line["runs_ok"], line["acknowledged"]) == (NAME, 2, 0)


def test_a_baseline_is_shown_run_by_run(folder, capsys):
    run(
        [
            "baseline",
            "acknowledge",
            NAME,
            "sft-*:loss",
            "--reason",
            "why",
            "--version",
            "trl 1.17.0",
        ]
    )
    capsys.readouterr()
    assert run(["baseline", "show", NAME]) == 0
    out = capsys.readouterr().out
    for word in ("sft-plain.full.s0", "2.2", "Some CPU", "acknowledged: sft-*:loss (trl 1.17.0"):
        assert word in out
    assert run(["baseline", "show", NAME, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["runs"]["sft-plain.full.s0"]["final_value"] == 2.2
    assert shown["acknowledged"][0]["reason"] == "why"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "upgrade-trl-1.6.0"], "did you mean 'upgrade-trl-1.16.0'"),
        (["show"], "NAME"),
        (["sho"], "did you mean 'show'"),
        (["acknowledge", NAME, "sft-*:los", "--reason", "r", "--version", "trl 1.17.0"], "'loss'"),
        (["acknowledge", NAME, "sft-*:loss"], "--reason is empty"),
        (["acknowledge", NAME, "sft-*:loss", "--remove"], "is not acknowledged"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_do(folder, capsys, words, expected):
    assert run(["baseline", *words]) == 2
    assert expected in capsys.readouterr().err


def test_everything_wrong_with_an_acknowledgement_is_said_at_once(folder, capsys):
    assert run(["baseline", "acknowledge", NAME, "x:loss"]) == 2
    assert "3 problems" in capsys.readouterr().err


def test_an_acknowledgement_is_kept_and_taken_back(folder, capsys):
    words = ["baseline", "acknowledge", NAME, "sft-*:loss"]
    assert run([*words, "--reason", "why", "--version", "trl 1.17.0", "--by", "me"]) == 0
    entry = read_acknowledgements(folder).acknowledged[0]
    assert (entry.what, entry.reason, entry.version, entry.by) == (
        "sft-*:loss",
        "why",
        "trl 1.17.0",
        "me",
    )
    assert entry.utc.endswith("Z")
    assert run([*words, "--remove"]) == 0
    assert read_acknowledgements(folder).acknowledged == ()


def test_a_damaged_baseline_exits_8_and_is_named(folder, capsys):
    (folder / SIDE).write_text("{}")
    assert run(["baseline", "show", NAME]) == 8
    assert "side.json" in capsys.readouterr().err
    assert run(["baseline", "list"]) == 8
    assert "side.json" in capsys.readouterr().err


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("harness.compare.reading")
    monkeypatch.chdir(tmp_path)
    return str(shutil.copytree(STUDY, tmp_path / "study"))


def test_a_study_is_saved_and_takes_the_place_of_what_was_saved(study, capsys):
    assert run(["baseline", "save", study, "--name", "first"]) == 0
    said = capsys.readouterr()
    assert said.out == f"baseline: {HOME / 'first'}\n"
    assert "no commit of the harness" in said.err
    assert run(["baseline", "save", study, "--name", "first"]) == 2
    assert "harness baseline promote" in capsys.readouterr().err
    assert run(["baseline", "promote", study, "first"]) == 0
    capsys.readouterr()
    assert run(["baseline", "list", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [line for line in lines if line["baseline"] == "first"]
    assert (line["runs"], line["runs_ok"]) == (4, 4)


def test_a_study_whose_run_is_damaged_is_not_promoted(study, capsys):
    run(["baseline", "save", study, "--name", "first"])
    next(Path(study).glob("runs/sft-micro.full*/record.json")).write_text("{")
    capsys.readouterr()
    assert run(["baseline", "promote", study, "first"]) in (2, 8)
    assert "record.json" in capsys.readouterr().err
