"""Which devices the readings of a study are of, and that runs on a CPU have none of their own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from harness.device_notes import beside_notice, names_of
from harness.device_tables import devices_tables
from harness.findings import banners, headline
from harness.report import memory_caption
from harness.samples import DeviceSummary
from harness.traces import memory_trace
from tests.gpu_study import Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

GIB = 2**30
PLAN = Plan(arms=2, seeds=(0,))
SFT = ("sft",)
SLICE = DeviceSummary(
    uuid="MIG-1111",
    name="NVIDIA H100 MIG 3g.40gb",
    total_bytes=40 * GIB,
    idle_bytes=38 * 2**20,
    has_trusted_pids=True,
    foreign_bytes_max=0,
)


@cache
def study(hardware: Hardware):
    return build_gpu_study(hardware, PLAN, SFT)


def read_on(view, *devices: DeviceSummary, trained_on: str | None = None):
    """The same runs, read on other devices, and trained elsewhere if asked."""

    def moved(run):
        sampler = run.record.sampler.model_copy(update={"devices": devices})
        result = run.record.result
        if trained_on is not None:
            result = result.model_copy(update={"device": trained_on})
        record = run.record.model_copy(update={"sampler": sampler, "result": result})
        return replace(run, record=record)

    return replace(view, runs=tuple(map(moved, view.runs)))


def rows_of(view):
    (table,) = devices_tables(view)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_device_stands_once_with_what_it_is_and_what_it_held_before():
    view = read_on(study(Hardware()), SLICE)
    assert rows_of(view) == [
        {
            "Device": "NVIDIA H100 MIG 3g.40gb",
            "UUID": "MIG-1111",
            "Runs": "2",
            "Memory": "40.00 GiB",
            "Of it the driver's own": "not measured",
            "In use before a run": "38 MiB",
            "Process ids": "known here",
            "Other programs on it": "none",
        }
    ]


def test_every_gpu_of_a_run_has_a_row():
    rows = rows_of(study(Hardware(gpus=2)))
    assert [row["UUID"] for row in rows] == ["GPU-aaaaaaaa", "GPU-bbbbbbbb"]


@pytest.mark.parametrize(
    ("changed", "ids", "others"),
    [
        (
            {"has_trusted_pids": False, "foreign_bytes_max": None},
            "of another namespace: the device above idle stands for a run",
            "not measured",
        ),
        ({"has_trusted_pids": None, "foreign_bytes_max": None}, "not measured", "not measured"),
        (
            {"foreign_bytes_max": 3 * GIB, "foreign_pids": (7,)},
            "known here",
            "up to 3.00 GiB",
        ),
        (
            {"foreign_bytes_max": None, "foreign_pids": (7,)},
            "known here",
            "there, how much is not told",
        ),
    ],
)
def test_whose_the_memory_is_is_said_or_not_known(changed, ids, others):
    view = read_on(study(Hardware()), SLICE.model_copy(update=changed))
    [row] = rows_of(view)
    assert (row["Process ids"], row["Other programs on it"]) == (ids, others)


def test_a_study_without_a_gpu_has_no_such_table():
    assert devices_tables(build_study(PLAN)) == ()
    assert beside_notice(build_study(PLAN)) == ""


def test_readings_of_a_gpu_beside_which_runs_trained_on_the_cpu_are_not_theirs():
    view = read_on(study(Hardware()), SLICE, trained_on="cpu")
    assert names_of(view.runs) == ("NVIDIA H100 MIG 3g.40gb",)
    said = beside_notice(view)
    assert said.startswith("Trained on the CPU: 2 of 2 runs. What was read of NVIDIA H100 MIG 3g")
    assert ("problem", said) in [(b.kind, b.text) for b in banners(view)]
    assert headline(view).endswith("The GPU that was read trained nothing.")


def test_runs_that_trained_on_what_was_read_say_nothing_of_it():
    view = read_on(study(Hardware()), SLICE, trained_on="MIG-1111")
    assert beside_notice(view) == ""
    assert "trained nothing" not in headline(view)


def test_a_figure_of_memory_names_its_device():
    view = read_on(study(Hardware()), SLICE)
    [pair] = view.matrix.pairs
    trace = memory_trace(view, pair)
    assert trace is not None
    assert memory_caption(trace).startswith("NVML device memory, NVIDIA H100 MIG 3g.40gb: highest")
