"""What a report says of repositories, translated arguments and sampling engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.record import Generation, Source, Translation
from harness.report import render_report
from harness.source_tables import source_tables
from tests.study_factory import build_study


def with_result(study, **changed):
    runs = []
    for run in study.runs:
        result = run.record.result.model_copy(update=changed) if run.record else None
        record = run.record.model_copy(update={"result": result}) if run.record else None
        runs.append(replace(run, record=record))
    return replace(study, runs=tuple(runs))


def test_a_study_that_read_and_translated_nothing_has_none_of_the_tables():
    assert source_tables(build_study()) == ()


@pytest.mark.slow
def test_what_runs_share_is_one_row_with_their_number():
    study = build_study()
    told = with_result(
        study,
        sources=(
            Source(repository="org/model", kind="model", commit="a" * 40),
            Source(repository="org/rows", kind="dataset", is_mapped=True),
        ),
        translations=(
            Translation(
                argument="warmup_ratio", value="0.1", became="warmup_steps=0.1", why="renamed"
            ),
            Translation(argument="top_k", value="null", became=None, why="<b>gone</b>"),
        ),
        generation=Generation(
            engine="vllm", version="0.31.0", mode="colocate", pool_bytes=2**30, sleeps=False
        ),
    )
    runs = str(sum(run.record is not None for run in study.runs))
    read, passed, sampled = source_tables(told)
    assert read.rows == (
        ("org/model", "model", "a" * 40, runs),
        ("org/rows", "dataset", "a local folder took its place", runs),
    )
    assert {row[1:4] for row in passed.rows} == {
        ("warmup_ratio", "0.1", "warmup_steps=0.1"),
        ("top_k", "null", "nothing"),
    }
    assert sampled.rows == (("vllm 0.31.0, colocate, pool 1.00 GiB", runs),)
    files = render_report(told, generated_utc="2026-01-02T04:00:00Z")
    assert b"<b>gone</b>" not in files["index.html"]
    assert b"given otherwise" in files["report.md"]
