"""What the report says of a measurement, and that grade D decides nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from harness.claims import sentence
from harness.findings import banners, findings_rows
from harness.grade_tables import (
    energy_tables,
    grades_tables,
    measurement_tables,
    missed_text,
    refusal_notice,
)
from harness.ratios import compare_memory
from tests.gpu_study import Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

PLAN = Plan(arms=2, seeds=(0, 1, 2))
POOR = "sft-micro.full.s1"
SFT = ("sft",)


@cache
def good():
    return build_gpu_study(Hardware(), PLAN, SFT)


@cache
def poor():
    machine = Hardware(contaminated=(POOR,), throttled=("sft-micro.full.s2",), has_counter=False)
    return build_gpu_study(machine, PLAN, SFT)


def by_columns(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_each_arm_has_its_grades_and_what_lowered_them():
    (table,) = grades_tables(poor())
    full, lora = by_columns(table)
    assert (full["Runs"], full["That lens"]) == ("A 1, C 1, D 1", "A 2, D 1")
    assert full["Memory judged by"] == "NVML device memory"
    assert "Contaminated. Other processes held up to 3.00 GiB" in full["Why not better"]
    assert "Slowed down by heat or hardware in 100%" in full["Why not better"]
    assert (lora["Runs"], lora["Why not better"]) == ("A (3 runs)", "")


def test_each_run_says_by_lens_how_it_was_measured_and_what_was_missed():
    (table,) = measurement_tables(poor())
    rows = {row["Run"]: row for row in by_columns(table)}
    assert rows[POOR]["Grade"] == "D"
    assert "NVML device memory D" in rows[POOR]["Lenses"]
    assert "torch reserved memory A" in rows[POOR]["Lenses"]
    said = "What the sampler can have missed in training"
    assert rows["sft-micro.lora-r32.s0"][said].startswith("NVML device memory: at most 0 MiB")


def test_without_torchs_counters_the_longest_gap_is_said():
    run = build_study(Plan(arms=2, seeds=(0,))).runs[0]
    assert missed_text(run.summary) == (
        "process-tree RSS: a rise shorter than 50 ms, the longest gap between samples, would not be seen"
    )


def test_energy_names_what_it_was_read_from():
    (counter,), (power,) = energy_tables(good()), energy_tables(poor())
    first, second = by_columns(counter)[0], by_columns(power)[0]
    assert (first["Read from"], second["Read from"]) == ("counter", "power, integrated")
    assert first["Share of training read"] == "100%"
    assert first["Energy in training"] == second["Energy in training"]  # 300 W all the time
    run = good().runs[0]
    steps_s = sum(s.end_ns - s.begin_ns for s in run.steps) / 1e9
    assert abs(run.summary.energy_j / (300 * steps_s) - 1) < 1e-3
    tokens = sum(s.tokens for s in run.steps)
    assert abs(run.summary.joules_per_token * tokens / run.summary.energy_j - 1) < 1e-9


def test_a_banner_says_whose_memory_decides_nothing():
    line = refusal_notice(poor())
    assert line.startswith("The memory of 1 run is graded D, so no verdict on memory rests on it.")
    assert POOR in line
    assert line in [banner.text for banner in banners(poor())]
    assert refusal_notice(good()) == ""


def test_a_comparison_with_a_run_of_grade_d_is_refused_with_the_reason():
    runs = {
        arm: {r.planned.seed: r.summary for r in poor().runs if r.planned.arm == arm}
        for arm in ("full", "lora-r32")
    }
    found = {c.lens: c.refused for c in compare_memory(runs["lora-r32"], runs["full"], (0, 1, 2))}
    assert found["torch-reserved"] is None
    assert found["nvml-device"].startswith(
        "NVML device memory of the baseline, seed 1, is graded D: Contaminated."
    )
    assert all(c.refused is None for c in compare_memory(runs["lora-r32"], runs["full"], (0, 2)))


def test_neither_the_sentence_nor_the_row_takes_such_memory_for_a_finding():
    assert "of the memory" in sentence(good().findings)
    assert "of the memory" not in sentence(poor().findings)
    (row,) = findings_rows(poor())
    assert row.cautions[-1].startswith("Memory: NVML device memory of the baseline, seed 1")
    assert findings_rows(good())[0].cautions == ()


def test_runs_that_were_never_graded_are_not_refused():
    bare = tuple(
        replace(r, summary=r.summary.model_copy(update={"grades": {}})) for r in good().runs
    )
    study = replace(good(), runs=bare)
    assert grades_tables(study) == ()
    assert measurement_tables(study) == ()
    assert all(f.memory[0].refused is None for f in study.findings)


def test_a_study_on_a_cpu_has_grades_and_no_energy():
    study = build_study(Plan(arms=2, seeds=(0,)))
    assert energy_tables(study) == ()
    assert {row["Memory judged by"] for row in by_columns(grades_tables(study)[0])} == {
        "process-tree RSS"
    }
