"""The tables of memory: every lens and statistic by phase, and what a ratio depends on."""

from __future__ import annotations

import math
from functools import cache

import pytest

from harness.lenses import LENS_NAMES
from harness.memory_tables import (
    memory_table,
    memory_tables,
    parts_tables,
    same_pair_table,
    statistics_table,
)
from tests.gpu_study import GIB, Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

DASH = "\u2013"
SFT = ("sft",)


@cache
def study(gpus=1, has_trusted_pids=True):
    machine = Hardware(gpus=gpus, has_trusted_pids=has_trusted_pids)
    return build_gpu_study(machine, Plan(arms=2, seeds=(0, 1)), SFT)


def by_columns(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_each_lens_has_a_row_a_statistic_and_torch_its_peak_alone():
    rows = by_columns(statistics_table(study(), "sft-micro"))
    full = [row for row in rows if row["Arm"] == "full"]
    kinds = {}
    for row in full:
        kinds.setdefault(row["Lens"], []).append(row["Statistic"])
    every = ["peak", "99th percentile", "time-weighted mean"]
    assert kinds == {
        name: ["peak"] if name.startswith("torch") else every for name in LENS_NAMES.values()
    }
    device = next(row for row in full if row["Lens"] == "NVML device memory")
    assert (device["load"], device["All training phases"]) == ("5.45 GiB", "23.25 GiB")


def test_peaks_of_both_tables_agree():
    rows = by_columns(statistics_table(study(), "sft-micro"))
    peaks = {
        (row["Arm"], row["Lens"]): row["All training phases"]
        for row in rows
        if row["Statistic"] == "peak"
    }
    for row in by_columns(memory_table(study())):
        assert peaks[row["Arm"], row["Lens"]] == row["All training phases"]


def test_several_gpus_have_rows_each_and_their_sum():
    rows = by_columns(statistics_table(study(gpus=2), "sft-micro"))
    peaks = {
        row["Lens"]: row["All training phases"]
        for row in rows
        if (row["Arm"], row["Statistic"]) == ("full", "peak")
    }
    assert peaks["NVML device memory, GPU 1"] == "23.25 GiB"
    assert peaks["NVML device memory, GPU 2"] == "22.57 GiB"  # 3 % less, and the context
    assert peaks["NVML device memory, sum"] == "45.82 GiB"
    assert "torch reserved memory" in peaks
    shown = [row["Lens"] for row in by_columns(memory_table(study(gpus=2)))]
    assert "NVML device memory, sum of 2 GPUs" in shown


def test_where_process_ids_are_foreign_the_device_above_idle_stands_for_the_run():
    rows = by_columns(memory_table(study(has_trusted_pids=False)))
    label = "NVML device memory above idle (stands for the run: process ids are foreign)"
    (row,) = [r for r in rows if r["Arm"] == "full" and r["Lens"] == label]
    assert row["All training phases"] == "23.25 GiB"
    assert not any(r["Lens"] == LENS_NAMES["nvml-process"] for r in rows)
    assert not any("above idle" in r["Lens"] for r in by_columns(memory_table(study())))


def test_where_memory_was_in_use_before_the_device_above_idle_stands_for_the_run():
    held = build_gpu_study(Hardware(idle_bytes=GIB), Plan(arms=2, seeds=(0,)), SFT)
    label = "NVML device memory above idle (stands for the run: memory was in use before it)"
    for table in (memory_table(held), statistics_table(held, "sft-micro")):
        rows = [r for r in by_columns(table) if r["Arm"] == "full" and r["Lens"] == label]
        assert rows[0]["All training phases"] == "23.25 GiB"


def test_the_same_pair_is_shown_by_lens_and_statistic():
    rows = by_columns(same_pair_table(study()))
    assert {(r["Pair"], r["Arm"], r["Baseline"]) for r in rows} == {
        ("sft-micro", "lora-r32", "full")
    }
    by_lens = {r["Lens"]: r for r in rows}
    assert by_lens["torch reserved memory"]["Peak"] == f"{8.2 / 22.5:.0%}"
    assert by_lens["torch reserved memory"]["Time-weighted mean"] == DASH
    runs = {(r.planned.arm, r.planned.seed): r.summary for r in study().runs}
    logs = [
        math.log(
            runs["lora-r32", seed].in_training("nvml-device", "mean")
            / runs["full", seed].in_training("nvml-device", "mean")
        )
        for seed in (0, 1)
    ]
    shown = by_lens["NVML device memory"]["Time-weighted mean"]
    assert shown == f"{math.exp(sum(logs) / 2):.0%}"
    assert "growth of process-tree RSS" in by_lens
    assert LENS_NAMES["nvml-above-idle"] not in by_lens  # idle was 0: the same figures again


def test_parts_of_a_run_add_up_in_its_row():
    (table,) = parts_tables(study())
    row = next(r for r in by_columns(table) if r["Run"] == "sft-micro.full.s0")
    assert row["Peak in training"] == "23.25 GiB"
    sizes = [v for k, v in row.items() if k not in ("Run", "Lens", "Peak in training", "Notes")]
    amounts = [
        float(v.split()[0]) * (GIB if v.endswith("GiB") else 2**20) for v in sizes if v != DASH
    ]
    assert sum(amounts) / GIB == pytest.approx(23.25, abs=0.03)
    assert row["Weights"] == "4.60 GiB"


def test_a_study_that_has_not_run_has_no_tables_but_the_empty_one_of_peaks():
    plan = Plan(arms=2, seeds=(0,))
    cells = [r.planned.cell for r in build_study(plan).runs]
    empty = build_study(Plan(arms=2, seeds=(0,), failures=dict.fromkeys(cells, "missing")))
    assert [table.rows for table in memory_tables(empty)] == [()]
    assert parts_tables(empty) == ()
