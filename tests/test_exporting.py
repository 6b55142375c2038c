"""`harness export`, through the command line: what it writes and how it exits."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from harness.cli import run

STUDY = Path(__file__).parent / "data" / "format-1"


def test_step_times_are_written_for_pytest_benchmark(tmp_path, capfdbinary):
    file = tmp_path / "steps.json"
    assert run(["export", str(STUDY), "--format", "pytest-benchmark", "-o", str(file)]) == 0
    assert capfdbinary.readouterr() == (b"", b"")
    data = json.loads(file.read_text())
    assert {b["name"] for b in data["benchmarks"]} == {
        "sft-micro.full",
        "sft-micro.lora",
        "grpo-micro.full",
        "grpo-micro.lora-r1",
    }
    assert run(["export", str(STUDY), "--format", "pytest-benchmark"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == data


def test_csv_and_json_are_the_files_of_the_report(capfdbinary):
    assert run(["export", str(STUDY), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    assert len(rows) == 4
    assert run(["export", str(STUDY), "--format", "json"]) == 0
    assert len(json.loads(capfdbinary.readouterr().out)["runs"]) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none", "--format", "csv"], "holds no study"),
        ([str(STUDY)], "--format"),
        ([str(STUDY), "--format", "xml"], "pytest-benchmark"),
    ],
)
def test_bad_input_exits_2(words, expected, capsys):
    assert run(["export", *words]) == 2
    assert expected in capsys.readouterr().err


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STUDY, tmp_path / "study"))


def test_a_study_without_runs_exits_6(study, capsys):
    shutil.rmtree(study / "runs")
    assert run(["export", str(study), "--format", "pytest-benchmark"]) == 6
    assert "no run that ended ok" in capsys.readouterr().err


def test_a_damaged_run_exits_8_and_the_rest_is_written(study, tmp_path):
    next(study.glob("runs/sft-micro.full*/record.json")).write_text("{")
    file = tmp_path / "steps.json"
    assert run(["export", str(study), "--format", "pytest-benchmark", "-o", str(file)]) == 8
    assert len(json.loads(file.read_text())["benchmarks"]) == 3


def test_a_file_that_cannot_be_written_exits_7(tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["--format", "csv", "-o", str(tmp_path / "file" / "below.csv")]
    assert run(["export", str(STUDY), *words]) == 7
    assert "can't write" in capsys.readouterr().err
