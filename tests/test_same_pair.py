"""One pair by every lens and statistic, and the seeds that its ratios rest on."""

from __future__ import annotations

import math

import pytest

from harness.lenses import LENS_NAMES
from harness.same_pair import same_pair_table
from tests.gpu_study import Hardware, build_gpu_study
from tests.study_factory import Plan

DASH = "\u2013"
SFT = ("sft",)
CELLS = tuple(f"sft-micro.full.s{seed}" for seed in range(3))


def study(contaminated=(), seeds=(0, 1, 2)):
    return build_gpu_study(Hardware(contaminated=contaminated), Plan(arms=2, seeds=seeds), SFT)


def by_columns(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def ratios(study):
    return {row["Lens"]: row["Peak"] for row in by_columns(same_pair_table(study))}


def test_the_same_pair_is_shown_by_lens_and_statistic():
    whole = study(seeds=(0, 1))
    rows = by_columns(same_pair_table(whole))
    assert {(r["Pair"], r["Arm"], r["Baseline"]) for r in rows} == {
        ("sft-micro", "lora-r32", "full")
    }
    by_lens = {r["Lens"]: r for r in rows}
    assert by_lens["torch reserved memory"]["Peak"] == f"{8.2 / 22.5:.0%}"
    assert by_lens["torch reserved memory"]["Time-weighted mean"] == DASH
    runs = {(r.planned.arm, r.planned.seed): r.summary for r in whole.runs}
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


@pytest.mark.parametrize("cell", [CELLS[1], "sft-micro.lora-r32.s1"])
def test_a_seed_in_which_either_arm_is_of_grade_d_is_in_no_ratio(cell):
    clean, found = ratios(study()), ratios(study(contaminated=(cell,)))
    name = LENS_NAMES["nvml-device"]
    assert found[f"{name} (1 of 3 seeds left out: graded D)"] == clean[name] == "38%"
    assert name not in found
    process = LENS_NAMES["nvml-process"]  # it reads the run's own share, whoever else is there
    assert found[process] == clean[process]


def test_a_ratio_that_has_no_other_seed_stays_and_is_marked():
    found = ratios(study(contaminated=CELLS))
    assert found[f"{LENS_NAMES['nvml-device']} (graded D)"] == f"{8.95 / 26.25:.0%}"
