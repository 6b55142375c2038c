"""From the spool to the table: typed, atomic, repeatable, tolerant of a torn end."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from harness.measure.sealing import TABLE, read_samples, seal_samples, seal_summary
from harness.measure.sources import Sample
from harness.measure.spool import SO_FAR, SPOOL, SUMMARY, Spool
from harness.samples import MEMORY_COLUMNS, DeviceSummary, SamplerSummary

SAMPLES = [
    Sample(10, "host", rss_bytes=2**40 + 1, processes=2),
    Sample(10, "GPU-a", nvml_device_bytes=5, power_w=1.5),
    Sample(60, "host", rss_bytes=7, processes=1),
]


def write_spool(folder, samples=SAMPLES) -> None:
    spool = Spool(folder / SPOOL)
    spool.add(samples)
    spool.close()


def test_sealed_and_unsealed_samples_read_the_same(tmp_path):
    write_spool(tmp_path)
    before = read_samples(tmp_path)
    seal_samples(tmp_path)
    assert not (tmp_path / SPOOL).exists()
    pd.testing.assert_frame_equal(read_samples(tmp_path), before)
    assert list(before.columns) == list(MEMORY_COLUMNS)
    assert before.rss_bytes.dropna().tolist() == [2**40 + 1, 7]
    assert before.device.tolist() == ["host", "GPU-a", "host"]
    assert before.power_w.isna().tolist() == [True, False, True]


def test_the_table_has_the_types_and_the_format_of_the_record(tmp_path):
    write_spool(tmp_path)
    seal_samples(tmp_path)
    schema = pq.read_schema(tmp_path / TABLE)
    assert {field.name: str(field.type) for field in schema} == {
        name: {"float64": "double"}.get(kind, kind) for name, kind in MEMORY_COLUMNS.items()
    }
    assert schema.metadata[b"format"] == b"1"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_torn_by_a_kill_is_dropped(tmp_path, cut):
    write_spool(tmp_path)
    text = (tmp_path / SPOOL).read_bytes()
    (tmp_path / SPOOL).write_bytes(text[:-cut])
    assert read_samples(tmp_path).t_ns.tolist() == [10, 10]
    seal_samples(tmp_path)
    assert read_samples(tmp_path).t_ns.tolist() == [10, 10]


@pytest.mark.parametrize("text", ["", "t_ns,dev", ",".join(MEMORY_COLUMNS) + "\n"])
def test_a_spool_without_samples_is_an_empty_table(tmp_path, text):
    (tmp_path / SPOOL).write_text(text)
    assert read_samples(tmp_path).empty
    seal_samples(tmp_path)
    pd.testing.assert_frame_equal(read_samples(tmp_path), read_samples(tmp_path / "absent"))


def test_sealing_again_changes_nothing(tmp_path):
    write_spool(tmp_path)
    seal_samples(tmp_path)
    sealed = (tmp_path / TABLE).read_bytes()
    seal_samples(tmp_path)
    write_spool(tmp_path)  # left over by a seal that was killed before it removed the spool
    seal_samples(tmp_path)
    assert (tmp_path / TABLE).read_bytes() == sealed
    assert not (tmp_path / SPOOL).exists()


def test_an_attempt_that_was_never_sampled_reads_as_empty(tmp_path):
    seal_samples(tmp_path)
    frame = read_samples(tmp_path)
    assert frame.empty
    assert list(frame.columns) == list(MEMORY_COLUMNS)


def test_samples_from_before_a_column_joined_read_as_not_measured(tmp_path):
    path = tmp_path / "memory.parquet"
    pd.DataFrame({"t_ns": [1, 2], "device": ["host", "host"], "rss_bytes": [5, 6]}).to_parquet(path)
    assert "foreign_bytes" not in pq.read_schema(path).names
    frame = read_samples(tmp_path)
    assert list(frame.columns) == list(MEMORY_COLUMNS)
    assert frame["rss_bytes"].tolist() == [5, 6]
    assert frame["foreign_bytes"].isna().all()


TOLD = {
    "format": 1,
    "requested_hz": 50.0,
    "achieved_hz": 50.0,
    "longest_gap_s": 0.02,
    "samples": 1,
    "cpu_s": 0.3,
    "sampling_cpu_s": 0.1,
    "wall_s": 0.5,
    "lenses": ["rss"],
    "gpus": [],
    "notes": ["what it had said"],
    "devices": [{"uuid": "GPU-a", "total_bytes": 80}],
    "paced_down_hz": None,
}


def sealed_summary(folder) -> SamplerSummary:
    seal_samples(folder)
    seal_summary(folder, 50.0)
    assert not (folder / SO_FAR).exists()
    return SamplerSummary.model_validate_json((folder / SUMMARY).read_text())


def test_a_killed_sampler_leaves_a_summary_brought_up_to_its_last_sample(tmp_path):
    times = (0, 20, 40, 100)
    write_spool(tmp_path, [Sample(t * 10**6, "GPU-a", nvml_device_bytes=5) for t in times])
    (tmp_path / SO_FAR).write_text(json.dumps(TOLD))
    summary = sealed_summary(tmp_path)
    assert (summary.samples, summary.longest_gap_s) == (4, 0.06)
    assert summary.achieved_hz == pytest.approx(30)
    assert (summary.lenses, summary.gpus) == (("nvml-device",), ("GPU-a",))
    assert summary.devices == (DeviceSummary(uuid="GPU-a", total_bytes=80),)
    assert summary.notes[0] == "what it had said"
    assert "gave no answer after 0.1 s and was ended" in summary.notes[1]
    assert summary.sampling_cpu_s == 0.1


def test_samples_alone_make_a_summary_too(tmp_path):
    write_spool(tmp_path)
    (tmp_path / SO_FAR).write_text("{torn")
    summary = sealed_summary(tmp_path)
    assert (summary.samples, summary.requested_hz, summary.devices) == (2, 50.0, ())


def test_a_summary_that_the_sampler_wrote_stays(tmp_path):
    write_spool(tmp_path)
    (tmp_path / SUMMARY).write_text(json.dumps(TOLD))
    assert sealed_summary(tmp_path).samples == 1


def test_an_attempt_that_was_never_sampled_has_no_summary(tmp_path):
    seal_samples(tmp_path)
    seal_summary(tmp_path, 50.0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_tore_off_is_no_part_of_the_record(tmp_path):
    write_spool(tmp_path)
    (tmp_path / SO_FAR).write_text(json.dumps(TOLD))
    for name in (SO_FAR, SUMMARY):
        (tmp_path / f"{name}.part").write_text("{torn")
    sealed_summary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {TABLE, SUMMARY}


def test_a_sampler_that_failed_was_not_held_by_a_driver(tmp_path):
    write_spool(tmp_path)
    (tmp_path / "sampler.log").write_text("Traceback (most recent call last):")
    note = sealed_summary(tmp_path).notes[-1]
    assert "failed after 0.0 s, and sampler.log says how" in note
    assert "driver" not in note


@pytest.mark.parametrize(("log", "how"), [("", "gave no answer"), ("Traceback", "failed")])
def test_a_sampler_that_never_sampled_says_that_nothing_was_measured(tmp_path, log, how):
    (tmp_path / SO_FAR).write_text(json.dumps(TOLD | {"samples": 0, "lenses": [], "notes": []}))
    (tmp_path / "sampler.log").write_text(log)
    summary = sealed_summary(tmp_path)
    assert (summary.samples, summary.lenses, summary.achieved_hz) == (0, (), None)
    [note] = summary.notes
    assert f"{how} before its first sample" in note
    assert note.endswith("no memory was measured, and the run went on")
