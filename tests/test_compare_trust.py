"""Memory that can't be trusted: no comparison rests on it, and the result says so."""

from __future__ import annotations

from functools import cache

import pytest

from harness.compare.concluding import exit_code
from harness.compare.explain import explain
from harness.compare.limits import Limits
from harness.compare.reading import side_of
from harness.compare.trust import growth_refusal, refusal, refusal_note
from harness.compare.verdict import compare_sides
from harness.grade import MeasurementGrade
from harness.record import Status
from harness.store import Store
from tests.comparison_sides import make_run, make_side
from tests.gpu_study import Hardware, build_gpu_study
from tests.study_factory import Plan

WHY = "Contaminated. Other processes held up to 15.0 GiB on the device while it trained."
SEEDS = (0, 1, 2)
STRANGERS = tuple(f"sft-micro.lora-r32.s{seed}" for seed in SEEDS)


def run_of(grade, lens="nvml-device", step_s=1.0, reasons=(WHY,), **more):
    run = make_run("sft-plain", "full", "full", 0)
    run = run.model_copy(update={"config": {**run.config, "device": "cuda"}})
    grades = {lens: MeasurementGrade(grade=grade, reasons=reasons)}
    update = {"grades": grades, "growth_bytes": {lens: 1}, "step_wall_s": (step_s,) * 3, **more}
    return run.model_copy(update=update)


@cache
def study(contaminated=()):
    """Three seeds on a GPU; beside some of them another process held 3 GiB."""
    machine = Hardware(contaminated=contaminated)
    return build_gpu_study(machine, Plan(arms=2, seeds=SEEDS), ("sft",))


def sides(tmp_path, *contaminated):
    return [side_of(study(cells), Store(tmp_path / "none")) for cells in contaminated]


def test_only_grade_d_is_refused_with_its_gravest_reason():
    assert refusal(run_of("D"), "nvml-device") == WHY.rstrip(".")
    assert refusal(run_of("D"), "torch-reserved") is None
    assert refusal(run_of("C"), "nvml-device") is None
    assert refusal(make_run("sft-plain", "full", "full", 0), "rss") is None


@pytest.mark.parametrize("lens", ["rss", "nvml-device", "nvml-process"])
def test_a_moments_training_is_no_reason_to_refuse_its_rss_alone(lens):
    why = ("1 sample in training: its peak was hardly looked for.",)
    assert refusal(run_of("D", lens, step_s=20.0, reasons=why), lens)
    assert (refusal(run_of("D", lens, step_s=0.1, reasons=why), lens) is None) is (lens == "rss")


def test_growth_of_a_device_is_as_good_as_what_is_above_its_idle_memory():
    """A desktop's memory, there all the time, is taken off; idle memory that went is taken off in vain."""

    def grown(device, above):
        grades = {
            lens: MeasurementGrade(grade=grade, reasons=(WHY,))
            for lens, grade in (("nvml-device", device), ("nvml-above-idle", above))
        }
        return growth_refusal(run_of("A", grades=grades), "nvml-device")

    assert grown(device="D", above="B") is None
    assert grown(device="B", above="D") == WHY.rstrip(".")
    assert growth_refusal(run_of("D"), "nvml-device") == WHY.rstrip(".")  # above idle not graded


def test_the_note_counts_runs_once_and_leaves_out_those_that_failed():
    def side(*runs):
        return make_side().model_copy(update={"runs": runs})

    assert refusal_note([side(run_of("C")), side(run_of("D", status=Status.CRASHED))]) is None
    assert refusal_note([side(run_of("D")), side(run_of("A"))]) == (
        "Memory of 1 run graded D: not compared by that lens (TRL 1.16.0, sft-plain.full.s0, NVML device "
        f"memory: {WHY[:-1]})."
    )
    told = refusal_note([side(run_of("D"), run_of("D")), side(run_of("D"))])
    assert told is not None
    assert told.startswith(
        "Memory of 3 runs graded D: not compared by that lens (first TRL 1.16.0, "
    )


def test_what_is_read_beside_a_run_on_the_cpu_is_not_compared():
    """A desktop's memory on the GPU would be graded D in every run of a CPU matrix."""

    def beside(size, grade):
        def change(run):
            more = {"peak_bytes": {"nvml-device": {"train": size + run.seed}}}
            grades = {"nvml-device": MeasurementGrade(grade=grade, reasons=(WHY,))}
            growth = {"nvml-device": size}
            return run.model_copy(update={"growth_bytes": growth, "grades": grades, **more})

        return make_side(change, seeds=SEEDS, pairs=("sft-plain",))

    for grade in "AD":
        found = compare_sides(beside(2**30, grade), beside(2**33, grade))
        assert found.word == "same"
        kinds = {d.kind for cell in found.cells for d in cell.differences}
        assert kinds.isdisjoint({"memory", "missing"})
        assert not any(note.startswith("Memory of") for note in found.notes)


def test_grades_of_lenses_come_with_a_studys_runs(tmp_path):
    (side,) = sides(tmp_path, STRANGERS)
    grades = {run.cell: run.grades for run in side.runs}
    assert grades[STRANGERS[0]]["nvml-device"].grade == "D"
    assert grades[STRANGERS[0]]["torch-reserved"].grade == "A"
    assert grades["sft-micro.full.s0"]["nvml-device"].grade == "A"
    assert "run" not in grades[STRANGERS[0]]


def test_another_processs_memory_is_no_regression_and_not_called_the_same(tmp_path):
    base, candidate = sides(tmp_path, (), STRANGERS)
    found = explain(compare_sides(base, candidate, Limits()), base, candidate)
    words = {cell.arm: cell.word for cell in found.cells}
    lora = next(cell for cell in found.cells if cell.arm == "lora-r32")
    assert words["lora-r32"] == "undecided"
    assert [d.what for d in lora.differences if d.word == "undecided"] == ["memory/nvml-device"]
    assert not [d for d in lora.differences if d.word == "changed"]
    assert found.suspected == ()
    assert found.causes == ()
    assert exit_code(found) == 6
    (note,) = [note for note in found.notes if note.startswith("Memory of")]
    assert note.startswith("Memory of 3 runs graded D: not compared by that lens (first ")
    assert "Other processes held up to 3.00 GiB" in note


def test_the_same_memory_without_a_stranger_is_still_a_regression(tmp_path):
    base, candidate = sides(tmp_path, (), STRANGERS)
    untold = tuple(run.model_copy(update={"grades": {}}) for run in candidate.runs)
    found = compare_sides(base, candidate.model_copy(update={"runs": untold}))
    lora = next(cell for cell in found.cells if cell.arm == "lora-r32")
    whats = {d.what for d in lora.differences if d.kind == "memory"}
    assert {"growth/nvml-device", "peak/nvml-device/training"} <= whats
    assert not any(note.startswith("Memory of") for note in found.notes)
