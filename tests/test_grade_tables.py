"""What the report says of a measurement, and that grade D decides nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from harness.claims import sentence
from harness.findings import banners, findings_rows
from harness.grade_tables import (
    energy_tables,
    grades_tables,
    judged_lenses,
    measurement_tables,
    missed_text,
    refusal_notice,
)
from harness.lenses import HOST
from harness.ratios import compare_memory
from harness.summary import summarise
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


def read_otherwise(study, cell, read):
    """The study as it would be, had one run's memory been read otherwise."""

    def changed(run):
        memory = read(run)
        made = summarise(run.spec, run.record, run.steps, run.phases, memory, 2)
        return replace(run, memory=memory, summary=made)

    return replace(
        study, runs=tuple(changed(r) if r.planned.cell == cell else r for r in study.runs)
    )


def lost_in_load(run):
    """The GPU answers nothing more once the model is loaded."""
    loaded = next(row.end_ns for row in run.phases if row.phase == "load")
    memory = run.memory.copy()
    silent = (memory["device"] != HOST) & (memory["t_ns"] > loaded)
    memory.loc[silent, [c for c in memory.columns if c not in ("t_ns", "device")]] = None
    return memory


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


def test_both_arms_are_graded_by_the_lens_that_their_comparison_rests_on():
    """A GPU that was lost before training, or never read, in one seed: torch's counter judges."""
    for read in (lost_in_load, lambda run: run.memory[run.memory["device"] == HOST]):
        study = read_otherwise(good(), POOR, read)
        assert "torch reserved peak in training" in sentence(study.findings)
        for row in by_columns(grades_tables(study)[0]):
            assert row["Memory judged by"] == "torch reserved memory"
            assert row["That lens"] == "A (3 runs)"
        assert refusal_notice(study) == ""  # the verdict does rest on all of them


def test_a_lost_gpu_still_lowers_its_run():
    full, lora = by_columns(grades_tables(read_otherwise(good(), POOR, lost_in_load))[0])
    assert (full["Runs"], lora["Runs"]) == ("A 2, D 1", "A (3 runs)")


def test_a_baseline_has_every_lens_that_a_comparison_of_it_is_judged_by():
    """One of two arms has a seed without NVML; the baseline is compared with both."""
    found = [
        finding.model_copy(update={"arm": arm, "memory": memory})
        for finding in good().findings
        for arm, memory in (("lora-r32", finding.memory), ("other", finding.memory[1:]))
    ]
    assert found[1].memory[0].lens == "torch-reserved"
    assert judged_lenses(found, "sft-micro", "full") == ("nvml-device", "torch-reserved")
    assert judged_lenses(found, "sft-micro", "other") == ("torch-reserved",)
    assert judged_lenses(found, "sft-micro", "lora-r32", seed=1) == ("nvml-device",)
    assert judged_lenses(found, "sft-micro", "full", seed=9) == ()


def test_a_run_that_nothing_is_compared_with_has_a_lens_of_its_own():
    plan = Plan(arms=2, seeds=(0,), failures={"sft-micro.lora-r32.s0": "missing"})
    study = build_gpu_study(Hardware(contaminated=("sft-micro.full.s0",)), plan, SFT)
    (row,) = by_columns(grades_tables(study)[0])
    assert (row["Memory judged by"], row["That lens"]) == ("NVML device memory", "D (1 run)")
    lost = read_otherwise(study, "sft-micro.full.s0", lost_in_load)
    assert by_columns(grades_tables(lost)[0])[0]["Memory judged by"] == "torch reserved memory"


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
