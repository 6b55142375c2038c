"""A study's folder read as a side: everything that a comparison asks for, and damage that is named."""

from __future__ import annotations

import json

import pytest

from harness.compare.reading import read_side
from harness.errors import ConfigError, StudyError
from harness.probe import PROBE_FILE
from harness.record import Status
from tests.comparison_sides import PACKAGES, make_run
from tests.comparison_studies import write_folder


def test_a_study_comes_back_as_its_runs_were(tmp_path):
    side = read_side(write_folder(tmp_path / "study", seeds=(0, 1)))
    assert side.label == "TRL 1.16.0"
    assert side.matrix_name == "tiny"
    assert side.packages == PACKAGES
    assert side.platform["cpu_model"] == "Some CPU"
    assert side.variables == {"OMP_NUM_THREADS": "1"}
    assert side.installed_sha256 == "c" * 64
    assert side.margins == {"sft-micro": 0.02, "grpo-micro": 0.05}
    assert side.unreadable == ()
    assert len(side.runs) == side.runs_count == 8
    for run in side.runs:
        made = make_run(run.pair, run.arm, run.method, run.seed)
        assert run.series == made.series
        assert run.probe == made.probe
        assert run.tokens == made.tokens
        assert run.evaluations == made.evaluations
        assert run.config == made.config
        assert run.step_wall_s == pytest.approx(made.step_wall_s)
        assert run.status is Status.OK


def test_a_step_that_lacks_a_key_is_null(tmp_path):
    folder = write_folder(tmp_path / "study")
    steps = next((folder / "runs").glob("sft-micro.full*/attempt-1/steps.jsonl"))
    rows = [json.loads(line) for line in steps.read_text().splitlines()]
    del rows[1]["logs"]["entropy"]
    del rows[3]
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows))
    side = read_side(folder)
    (run,) = [r for r in side.runs if r.cell == "sft-micro.full.s0"]
    assert run.series["entropy"][1] is None
    assert run.series["loss"][1] is not None
    assert {series[3] for series in run.series.values()} == {None}
    assert len(run.series["loss"]) == 12
    assert any("was changed after it was sealed" in text for text in side.unreadable)


def test_a_run_that_was_not_run_is_there_without_a_status(tmp_path):
    folder = write_folder(tmp_path / "study", lambda r: r.model_copy(update={"status": None}))
    side = read_side(folder)
    assert {run.status for run in side.runs} == {None}
    assert side.label == "study"


@pytest.mark.parametrize("content", ["{", '{"format": 1}', '{"format": 99}', "\x00"])
def test_a_damaged_probe_is_named_and_the_run_is_read(tmp_path, content):
    folder = write_folder(tmp_path / "study")
    next((folder / "runs").glob(f"sft-micro.full*/attempt-1/{PROBE_FILE}")).write_text(content)
    side = read_side(folder)
    (run,) = [r for r in side.runs if r.cell == "sft-micro.full.s0"]
    assert run.probe is None
    assert run.series["loss"]
    assert any(PROBE_FILE in text for text in side.unreadable)


@pytest.mark.parametrize("file", ["environment.json", "resolved_config.json", "memory.parquet"])
def test_a_damaged_file_never_raises(tmp_path, file):
    folder = write_folder(tmp_path / "study")
    for attempt in (folder / "runs").glob("*/attempt-1"):
        (attempt / file).write_bytes(b"\xff{")
    side = read_side(folder)
    assert len(side.runs) == 4
    assert side.unreadable


def test_a_folder_without_a_study_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match=r"neither a study \(study.json\) nor a baseline"):
        read_side(tmp_path)


def test_a_matrix_that_is_no_matrix_is_damage(tmp_path):
    folder = write_folder(tmp_path / "study")
    data = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**data, "matrix_text": "a: [", "format": 1}))
    with pytest.raises(StudyError, match="its matrix can't be read"):
        read_side(folder)


def test_runs_of_several_releases_are_named(tmp_path):
    folder = write_folder(tmp_path / "study")
    path = next((folder / "runs").glob("sft-micro.full*/attempt-1/environment.json"))
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "packages": {**data["packages"], "trl": "1.17.0"}}))
    assert any("several releases of trl" in text for text in read_side(folder).unreadable)
