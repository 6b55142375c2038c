"""The tables with a row per run, on a study some of whose runs had several processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.record import Distributed
from harness.report import render_report
from harness.run_tables import processes_tables
from harness.view import StudyView
from tests.study_factory import build_study

GIB = 2**30
RAN = Distributed(processes=2, asked="fsdp2", type="FSDP", wrapper="FSDPLlamaDecoderLayer")


def study_of_two_gpus() -> StudyView:
    """The synthetic study, its first run over two GPUs."""
    study = build_study()
    first, *others = study.runs
    assert first.record is not None
    assert first.record.result is not None
    assert first.summary is not None
    result = first.record.result.model_copy(update={"distributed": RAN})
    summary = first.summary.model_copy(
        update={
            "peak_bytes_by_device": {"GPU-a": 40 * GIB, "GPU-b": 39 * GIB},
            "peak_bytes": {"nvml-device": {"training": 78 * GIB, "run": 80 * GIB}},
        }
    )
    record = first.record.model_copy(update={"result": result})
    changed = replace(first, record=record, summary=summary)
    return replace(study, runs=(changed, *others))


def test_runs_of_one_process_need_no_such_table():
    assert processes_tables(build_study()) == ()


def test_a_run_of_several_processes_shows_what_ran_and_each_gpu_s_peak():
    (table,) = processes_tables(study_of_two_gpus())
    assert table.rows == (
        (
            "sft-micro.full.s0",
            "2",
            "fsdp2",
            "FSDP, FSDPLlamaDecoderLayer",
            "40.00 GiB, 39.00 GiB",
            "78.00 GiB",
        ),
    )


@pytest.mark.slow
def test_the_report_shows_it_on_the_page_and_in_markdown():
    files = render_report(study_of_two_gpus(), generated_utc="2026-01-02T03:04:05Z")
    for name in ("index.html", "report.md"):
        text = files[name].decode()
        assert "FSDPLlamaDecoderLayer" in text
        assert "40.00 GiB, 39.00 GiB" in text
