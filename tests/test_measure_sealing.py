"""From the spool to the table: typed, atomic, repeatable, tolerant of a torn end."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq
import pytest

from harness.measure.sealing import TABLE, read_samples, seal_samples
from harness.measure.sources import Sample
from harness.measure.spool import SPOOL, Spool
from harness.samples import MEMORY_COLUMNS

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
