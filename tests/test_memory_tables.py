"""The tables of memory: every lens and statistic by phase, and what a ratio depends on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from harness.lenses import LENS_NAMES
from harness.memory_tables import (
    memory_table,
    memory_tables,
    parts_tables,
    statistics_table,
)
from tests.gpu_study import GIB, Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

DASH = "\u2013"
SFT = ("sft",)
POOR = "sft-micro.full.s1"


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


def one_poor():
    """Three seeds, in one of which another process held 3 GiB beside full fine-tuning."""
    return build_gpu_study(Hardware(contaminated=(POOR,)), Plan(arms=2, seeds=(0, 1, 2)), SFT)


def test_a_run_of_grade_d_is_in_no_mean_and_its_row_says_so():
    study = one_poor()
    name = "NVML device memory (1 of 3 runs left out: graded D)"
    for table in (memory_table(study), statistics_table(study, "sft-micro")):
        (row, *_) = [r for r in by_columns(table) if (r["Arm"], r["Lens"]) == ("full", name)]
        assert (row["load"], row["All training phases"]) == ("5.45 GiB", "23.25 GiB")
        others = [r["Lens"] for r in by_columns(table) if r["Arm"] != "full"]
        assert not any("graded D" in lens for lens in others)
        assert "torch reserved memory" in [
            r["Lens"] for r in by_columns(table) if r["Arm"] == "full"
        ]


def test_figures_that_all_are_of_grade_d_stay_and_are_marked():
    plan = Plan(arms=2, seeds=(0, 1))
    cells = tuple(f"sft-micro.full.s{seed}" for seed in plan.seeds)
    study = build_gpu_study(Hardware(contaminated=cells), plan, SFT)
    name = "NVML device memory (graded D)"
    for table in (memory_table(study), statistics_table(study, "sft-micro")):
        (row, *_) = [r for r in by_columns(table) if (r["Arm"], r["Lens"]) == ("full", name)]
        assert row["All training phases"] == "26.25 GiB"


def test_every_gpu_of_several_leaves_out_what_their_sum_does():
    machine = Hardware(gpus=2, contaminated=(POOR,))
    study = build_gpu_study(machine, Plan(arms=2, seeds=(0, 1, 2)), SFT)
    peaks = {
        row["Lens"]: row["All training phases"]
        for row in by_columns(statistics_table(study, "sft-micro"))
        if (row["Arm"], row["Statistic"]) == ("full", "peak")
    }
    note = " (1 of 3 runs left out: graded D)"
    assert peaks["NVML device memory, GPU 1" + note] == "23.25 GiB"
    assert peaks["NVML device memory, sum" + note] == "45.82 GiB"


def test_the_parts_of_a_run_of_grade_d_are_marked():
    lenses = {row["Run"]: row["Lens"] for row in by_columns(parts_tables(one_poor())[0])}
    assert lenses[POOR] == "NVML device memory (graded D)"
    assert lenses["sft-micro.full.s0"] == "NVML device memory"


@pytest.mark.parametrize("sleeps", [False, True])
def test_a_pool_that_sleeps_is_there_while_it_generates_alone(sleeps):
    plan = Plan(arms=2, seeds=(0,))
    study = build_gpu_study(Hardware(pool_bytes=24 * GIB), plan, ("grpo",))
    rows = [
        row
        for row in by_columns(memory_table(asleep(study) if sleeps else study))
        if row["Lens"].startswith("vLLM pool, reserved")
    ]
    for row in rows:
        held = {phase for phase, size in row.items() if size == "24.00 GiB"}
        every = {"evaluate", "train", "generate", "save", "All training phases", "Whole run"}
        assert held == ({"generate"} if sleeps else every)
        assert ("while it generates" in row["Lens"]) == sleeps
    assert len(rows) == 2


def asleep(study):
    """The study with engines that free their pools outside generation."""

    def put_to_sleep(run):
        result = run.record.result
        made = result.generation.model_copy(update={"sleeps": True})
        result = result.model_copy(update={"generation": made})
        return replace(run, record=run.record.model_copy(update={"result": result}))

    return replace(study, runs=tuple(put_to_sleep(run) for run in study.runs))


def test_a_study_that_has_not_run_has_no_tables_but_the_empty_one_of_peaks():
    plan = Plan(arms=2, seeds=(0,))
    cells = [r.planned.cell for r in build_study(plan).runs]
    empty = build_study(Plan(arms=2, seeds=(0,), failures=dict.fromkeys(cells, "missing")))
    assert [table.rows for table in memory_tables(empty)] == [()]
    assert parts_tables(empty) == ()
