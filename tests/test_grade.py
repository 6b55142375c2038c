"""What lowers a grade, and what does not: one hand-made run with a fault at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.grade import grade_run
from harness.grade_faults import Watch
from harness.lenses import RSS, summed
from harness.memory_figures import memory_statistics, sampled_series, statistics_by_device
from harness.missed_peak import missed_peak
from harness.samples import DeviceSummary, SamplerSummary
from tests.timelines import gpu, samples, span

DATA = Path(__file__).parent / "data" / "gpu"
GIB, MIB = 2**30, 2**20
PHASES = (
    span("load", 0, 2, torch_reserved_peak_bytes=4 * GIB),
    span("train", 2, 12, torch_reserved_peak_bytes=20 * GIB),
)
SECONDS = [i / 10 for i in range(125)]
HELD = [(0 if t < 1 else 5 if t < 2 else 21) * GIB for t in SECONDS]  # nothing before a context
DEVICE = DeviceSummary(uuid="GPU-a", idle_bytes=0, memory_version=2, has_trusted_pids=True)
SAMPLER = SamplerSummary(
    requested_hz=10,
    achieved_hz=9.9,
    longest_gap_s=0.1,
    samples=125,
    cpu_s=1.0,
    sampling_cpu_s=0.5,
    wall_s=12.5,
    lenses=("nvml-device",),
    devices=(DEVICE,),
)
GOOD = {"throttle_reasons": 0x1, "sm_clock_mhz": 1980.0, "foreign_bytes": 0}


def watch(memory=None, sampler=SAMPLER, phases=PHASES, is_counted=True, **more):
    """A run as the summary sees it."""
    if memory is None:
        memory = gpu(SECONDS, nvml_device_bytes=HELD, **GOOD)
    devices = sampler.devices if sampler else ()
    each = sampled_series(memory, devices, phases)
    statistics = memory_statistics(phases, each)
    by_device = statistics_by_device(phases, each)
    series = {lens: summed(of.values()) for lens, of in each.items()}
    missed = {
        lens: missed_peak(read, statistics[lens], phases, is_counted=is_counted and lens != RSS)
        for lens, read in series.items()
    }
    found = Watch(
        counted_steps=100,
        step_s=0.5,
        phases=phases,
        memory=memory,
        statistics=statistics,
        series=series,
        missed=missed,
        sampler=sampler,
        first_device=next(iter(by_device.values()), {}),
    )
    return replace(found, **more)


def device(**changes):
    """The sampler's summary with another word on its device."""
    return SAMPLER.model_copy(update={"devices": (DEVICE.model_copy(update=changes),)})


def graded(lens="run", **more):
    found = grade_run(watch(**more))[lens]
    return found.grade, " ".join(found.reasons)


def uncounted(*phases):
    """The same phases without torch's counters, so that no bound makes a gap harmless."""
    return tuple(p.model_copy(update={"torch_reserved_peak_bytes": None}) for p in phases)


def test_a_run_without_a_fault_is_graded_a_by_every_lens():
    grades = grade_run(watch())
    assert {lens: found.grade for lens, found in grades.items()} == {
        "nvml-device": "A", "nvml-above-idle": "A", "torch-reserved": "A", "run": "A",
    }  # fmt: skip
    assert all(found.reasons == () for found in grades.values())


@pytest.mark.parametrize(
    ("gap", "grade", "said"),
    [
        (0.4, "A", ""),
        (0.6, "B", "as long as 1.2 steps"),
        (1.5, "C", "15% of training"),
        (6.0, "D", "60% of training"),
    ],
)
def test_a_gap_is_held_against_the_step_and_all_of_training(gap, grade, said):
    seconds = [t for t in SECONDS if not 4 < t < 4 + gap - 1e-9]
    memory = gpu(seconds, nvml_device_bytes=21 * GIB, **GOOD)
    got = graded("nvml-device", memory=memory, phases=uncounted(*PHASES))
    assert got[0] == grade
    assert said in got[1]


@pytest.mark.parametrize(
    ("until_s", "grade", "said"), [(9, "D", "the last 3.0 s, 30% of"), (11.5, "B", "")]
)
def test_a_reading_that_ended_before_training_did_is_graded_as_that_of_a_lost_gpu(
    until_s, grade, said
):
    memory = gpu([t for t in SECONDS if t <= until_s], nvml_device_bytes=21 * GIB, **GOOD)
    got = graded("nvml-device", memory=memory, phases=uncounted(*PHASES), step_s=0.4)
    assert got[0] == grade
    assert said in got[1]


EVALUATED = (span("load", 0, 2), span("train", 2, 162), span("evaluate", 32, 132))


def in_tenths(end_s, is_read):
    """A GPU's samples ten times a second, where it is read."""
    seconds = [t / 10 for t in range(end_s * 10) if is_read(t / 10)]
    held = [(0 if t < 1 else 21) * GIB for t in seconds]
    return gpu(seconds, nvml_device_bytes=held, **GOOD)


@pytest.mark.parametrize("evaluated_s", [100, 400, 4000])
def test_half_of_training_unseen_is_no_measurement_however_long_an_evaluation_took(evaluated_s):
    end = 62 + evaluated_s
    phases = (span("load", 0, 2), span("train", 2, end), span("evaluate", 32, end - 30))
    memory = in_tenths(end + 1, lambda t: t < end - 30 or t > end)
    assert graded("nvml-device", memory=memory, phases=phases, step_s=4.0) == (
        "D",
        "Longest gap between samples in training 30.0 s, 50% of training.",
    )


def test_an_evaluation_that_was_not_seen_is_no_gap_in_training():
    """The 100 s of an evaluation, and 0.3 of 60 s of training at its ends."""
    memory = in_tenths(163, lambda t: not 31.85 < t < 132.15)
    assert graded("nvml-device", memory=memory, phases=EVALUATED, step_s=0.5) == ("A", "")
    grade, said = graded("nvml-device", memory=memory, phases=EVALUATED, step_s=0.2)
    assert (grade, "as long as 2.0 steps" in said) == ("B", True)


def test_a_reading_that_ended_in_an_evaluation_is_held_against_training_alone():
    """Read until an evaluation began; of 65 s of training the last 5 are unseen, then the last 13."""
    for rest_s, grade in ((5, "C"), (13, "D")):
        phases = (span("load", 0, 2), span("train", 2, 162 + rest_s), span("evaluate", 62, 162))
        memory = in_tenths(200, lambda t: t < 62.05)
        got = graded("nvml-device", memory=memory, phases=phases, step_s=0.4)
        assert got[0] == grade
        assert f"Not read in the last {rest_s}" in got[1]


def test_a_phase_has_the_time_that_no_phase_within_it_has():
    """All of a step was generation, which was seen; of training itself there was no time to see."""
    phases = (span("load", 0, 2), span("train", 2, 12), span("generate", 2, 12))
    assert graded("nvml-device", phases=phases) == ("A", "")


def test_a_gap_longer_than_ten_steps_is_a_large_doubt():
    assert graded("nvml-device", step_s=0.005, phases=uncounted(*PHASES))[0] == "C"
    assert graded("nvml-device", step_s=0.05, phases=uncounted(*PHASES))[0] == "B"


def test_torchs_counter_makes_a_gap_harmless():
    seconds = [t for t in SECONDS if not 4 < t < 10]
    held = [(5 if t < 2 else 21) * GIB for t in seconds]
    grade, said = graded("nvml-device", memory=gpu(seconds, nvml_device_bytes=held, **GOOD))
    assert grade == "B"
    assert said.endswith("torch's counters bound a missed peak at 0 MiB.")
    # What was seen is far below what torch counted: the bound is large, and the gap counts.
    low = gpu(seconds, nvml_device_bytes=12 * GIB, **GOOD)
    assert graded("nvml-device", memory=low)[0] == "D"


@pytest.mark.parametrize(("seconds", "grade"), [([3], "D"), ([1], "D"), ([2, 4, 6, 8, 10], "C")])
def test_few_samples_in_training_are_no_measurement(seconds, grade):
    memory = gpu(seconds, nvml_device_bytes=21 * GIB, **GOOD)
    assert graded("nvml-device", memory=memory, phases=uncounted(*PHASES))[0] == grade


def test_a_phase_that_no_sample_fell_into_is_named():
    phases = (*PHASES, span("weight_sync", 4.02, 4.08))
    grade, said = graded("nvml-device", phases=phases)
    assert (grade, said) == ("B", "No sample fell into the phase weight sync (60 ms in all).")


@pytest.mark.parametrize(("hz", "grade"), [(9.1, "A"), (8.0, "B"), (4.0, "C"), (0.5, "D")])
def test_the_rate_is_held_against_what_was_asked_for(hz, grade):
    sampler = SAMPLER.model_copy(update={"achieved_hz": hz})
    assert graded("nvml-device", sampler=sampler, phases=uncounted(*PHASES))[0] == grade


def test_a_sampler_that_lowered_itself_says_so():
    sampler = SAMPLER.model_copy(update={"paced_down_hz": 5.0})
    assert graded("nvml-device", sampler=sampler) == (
        "B",
        "The sampler lowered itself to 5.00 Hz at the lowest, to keep within its share of a core.",
    )
    little = SAMPLER.model_copy(update={"paced_down_hz": 9.1})
    assert graded("nvml-device", sampler=little)[0] == "A"


@pytest.mark.parametrize(("steps", "grade"), [(10, "A"), (9, "B"), (3, "B"), (2, "C"), (0, "C")])
def test_too_few_steps_lower_every_lens(steps, grade):
    for lens in ("nvml-device", "torch-reserved", "run"):
        assert graded(lens, counted_steps=steps)[0] == grade


@pytest.mark.parametrize(
    ("mask", "share", "grade"),
    [
        (0x1, 1.0, "A"),  # idle
        (0x2, 1.0, "A"),  # application clocks
        (0x4, 0.05, "A"),
        (0x4, 0.5, "B"),  # power cap
        (0x8, 0.005, "A"),
        (0x40, 0.05, "B"),  # heat, in hardware
        (0x20, 0.5, "C"),  # heat, in software
        (0x84, 0.5, "C"),  # power brake and cap
    ],
)
def test_throttling_lowers_the_run_and_leaves_memory_alone(mask, share, grade):
    inside = [t for t in SECONDS if 2 <= t <= 12]
    cut = 2 + share * (len(inside) / 10)
    masks = [mask if 2 <= t < cut - 1e-9 else 0 for t in SECONDS]
    memory = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "throttle_reasons": masks})
    assert graded(memory=memory)[0] == grade
    assert graded("nvml-device", memory=memory)[0] == "A"


@pytest.mark.parametrize(("mask", "said"), [(0x40, "Slowed down by heat"), (0x4, "power cap")])
def test_of_several_gpus_the_one_that_was_slowed_down_most_counts(mask, said):
    """One of eight in 40 % of training: 5 % of all samples, and every step waits for it."""
    names = [f"GPU-{i}" for i in range(8)]
    masks = [mask if 2 <= t < 6 else 0 for t in SECONDS]
    rows = {name: {**GOOD, "nvml_device_bytes": HELD} for name in names}
    rows["GPU-3"]["throttle_reasons"] = masks
    memory = pd.concat([gpu(SECONDS, name, **row) for name, row in rows.items()])
    devices = tuple(DEVICE.model_copy(update={"uuid": name}) for name in names)
    sampler = SAMPLER.model_copy(update={"devices": devices})
    grade, reason = graded(memory=memory, sampler=sampler)
    assert grade == ("C" if mask == 0x40 else "B")
    assert said in reason
    assert "in 40% of the samples of training on GPU-3, the worst of 8 GPUs." in reason


@pytest.mark.parametrize(("last", "grade"), [(1900, "A"), (1800, "B"), (2200, "B"), (1500, "C")])
def test_a_clock_that_drifts_lowers_the_run(last, grade):
    clocks = [1980.0 if t < 9 else float(last) for t in SECONDS]
    memory = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "sm_clock_mhz": clocks})
    got = graded(memory=memory)
    assert got[0] == grade
    assert grade == "A" or f"from 1980 to {last} MHz" in got[1]


@pytest.mark.parametrize(("foreign", "grade"), [(0, "A"), (100 * MIB, "C"), (GIB, "D")])
def test_other_processes_while_training_contaminate_the_device(foreign, grade):
    others = [foreign if t > 6 else 0 for t in SECONDS]
    memory = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "foreign_bytes": others})
    grades = grade_run(watch(memory=memory))
    assert grades["run"].grade == grades["nvml-device"].grade == grade
    assert grades["torch-reserved"].grade == "A"
    before = [GIB if t < 1.5 else 0 for t in SECONDS]
    earlier = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "foreign_bytes": before})
    assert graded(memory=earlier)[0] == "A"


def test_what_others_held_before_the_run_is_no_part_of_above_idle():
    """Another program holds 1 GiB all the time: the device reads it, above idle does not."""
    memory = gpu(
        SECONDS,
        nvml_device_bytes=[held + GIB for held in HELD],
        **{**GOOD, "foreign_bytes": GIB},
    )
    grades = grade_run(watch(memory=memory, sampler=device(idle_bytes=GIB)))
    assert (grades["nvml-device"].grade, grades["nvml-above-idle"].grade) == ("D", "A")


def test_process_ids_of_another_namespace_are_said():
    memory = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "foreign_bytes": None})
    grade, said = graded("nvml-above-idle", memory=memory, sampler=device(has_trusted_pids=False))
    assert grade == "B"
    assert "the device above its idle baseline stands for the run" in said


@pytest.mark.parametrize(("lost_s", "grade", "when"), [(6, "D", "before"), (12.2, "C", "after")])
def test_a_device_that_was_lost_is_graded_by_when(lost_s, grade, when):
    sampler = device(lost_ns=int(lost_s * 1e9), lost_because="the GPU was lost.")
    got = graded("nvml-device", sampler=sampler)
    assert got[0] == grade
    assert f"nothing more, {when}" in got[1]
    assert got[1].endswith("(the GPU was lost).")


def test_an_old_memory_query_counts_against_the_device_and_not_above_idle():
    sampler = device(memory_version=1)
    assert graded("nvml-device", sampler=sampler)[0] == "B"
    assert graded("nvml-above-idle", sampler=sampler)[0] == "A"


@pytest.mark.parametrize(
    ("reserved", "grade", "said"),
    [
        (20.0, "A", ""),
        (19.1, "A", ""),  # 1.9 GiB above torch: context and libraries
        (18.0, "B", "3.00 GiB above what torch reserved"),
        (10.0, "C", "11.00 GiB above what torch reserved"),
        (22.0, "B", "1.00 GiB below what torch reserved"),
        (30.0, "C", "9.00 GiB below"),
        (60.0, "D", "39.00 GiB below"),
    ],
)
def test_nvml_is_held_against_torchs_reservation(reserved, grade, said):
    phases = (span("train", 2, 12, torch_reserved_peak_bytes=int(reserved * GIB)),)
    memory = gpu(SECONDS, nvml_device_bytes=21 * GIB, **GOOD)
    got = graded("nvml-above-idle", memory=memory, phases=phases)
    assert got[0] == grade
    assert said in got[1]


def test_real_runs_of_an_h100_contradict_nothing():
    """tests/data/gpu: what NVML read while steps ran, and what torch said it had reserved."""
    recorded = json.loads((DATA / "h100-80gb.json").read_text())["runs"]
    pairs = [
        (run["peak_bytes_in_steps"]["nvml-device"], reserved)
        for run in recorded
        if (reserved := run["peak_bytes"].get("torch-reserved", {}).get("train"))
    ]
    assert len(pairs) == 6
    for device, reserved in pairs:
        phases = (span("train", 2, 12, torch_reserved_peak_bytes=reserved),)
        memory = gpu(SECONDS, nvml_device_bytes=device, **GOOD)
        assert graded("nvml-device", memory=memory, phases=phases) == ("A", "")
        assert 0.7 * GIB < device - reserved < 0.8 * GIB


def test_a_pool_and_communication_explain_what_stands_above_torch():
    phases = (span("train", 2, 12, torch_reserved_peak_bytes=11 * GIB),)
    more = {"phases": phases, "memory": gpu(SECONDS, nvml_device_bytes=21 * GIB, **GOOD)}
    assert graded("nvml-device", **more, pool_bytes=8 * GIB)[0] == "A"
    assert graded("nvml-device", **more, pool_bytes=7 * GIB)[0] == "B"
    assert graded("nvml-device", **more, pool_bytes=7 * GIB, processes=2)[0] == "A"


def test_beside_an_engine_that_sleeps_torch_is_no_measure():
    assert graded("torch-reserved", sleeps=True)[0] == "C"
    assert graded("nvml-device", sleeps=True)[0] == "B"
    assert graded("torch-reserved", processes=2)[0] == "B"


def test_the_processs_own_figure_is_the_one_that_is_held_against_torch():
    memory = gpu(SECONDS, nvml_device_bytes=HELD, nvml_process_bytes=9 * GIB, **GOOD)
    grades = grade_run(watch(memory=memory))
    assert (grades["nvml-process"].grade, grades["nvml-device"].grade) == ("D", "A")


def test_of_several_gpus_the_first_is_held_against_torch():
    """Two GPUs hold 21 GiB each; torch counted 20 on the first, and 42 would be no disagreement."""
    memory = pd.concat(
        [gpu(SECONDS, name, nvml_device_bytes=HELD, **GOOD) for name in ("GPU-a", "GPU-b")]
    )
    sampler = SAMPLER.model_copy(
        update={"devices": tuple(DEVICE.model_copy(update={"uuid": u}) for u in ("GPU-a", "GPU-b"))}
    )
    assert graded("nvml-device", memory=memory, sampler=sampler, processes=2)[0] == "A"


def test_what_an_older_study_did_not_record_reads_not_measured_and_never_good():
    older = SAMPLER.model_copy(update={"devices": ()})
    grade, said = graded(memory=gpu(SECONDS, nvml_device_bytes=HELD), sampler=older)
    assert grade == "B"
    for what in ("Other processes", "Throttling", "Drift of the clock", "the driver said"):
        assert f"{what}" in said
    assert said.count("not measured") == 4
    assert graded("nvml-device", sampler=None)[1].count("not measured") == 2


def test_a_cpu_is_graded_by_what_applies_to_it():
    phases = uncounted(*PHASES)
    memory = samples([(t, "host", 10**9, None) for t in SECONDS])
    cpu = SAMPLER.model_copy(update={"devices": ()})
    assert graded(memory=memory, sampler=cpu, phases=phases) == ("A", "")
    assert graded("rss", memory=memory, sampler=cpu, phases=phases, counted_steps=2)[0] == "C"
    thin = samples([(t, "host", 10**9, None) for t in SECONDS if not 3 < t < 10])
    assert graded(memory=thin, sampler=cpu, phases=phases)[0] == "D"


def test_a_run_that_nothing_was_read_of_has_no_grade():
    assert grade_run(watch(memory=gpu([]), phases=uncounted(*PHASES))) == {}


def test_the_gravest_reason_stands_first():
    others = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "foreign_bytes": 2 * GIB})
    found = grade_run(watch(memory=others, counted_steps=5))["run"]
    assert found.grade == "D"
    assert [reason.split()[0] for reason in found.reasons] == ["Contaminated.", "Too"]


def two_gpus(*rows, **changes):
    """Two GPUs of one run, and the sampler's word on both."""
    each = [DEVICE.model_copy(update={"uuid": uuid, **changes}) for uuid in ("GPU-a", "GPU-b")]
    memory = pd.concat([gpu(SECONDS, uuid, **row) for uuid, row in rows])
    return {"memory": memory, "sampler": SAMPLER.model_copy(update={"devices": tuple(each)})}


def test_what_others_hold_is_added_up_over_gpus_each_above_its_own_idle():
    """150 MiB on each of two GPUs of 42 GiB: less than 1 % of the sum alone, more together."""
    others = {**GOOD, "nvml_device_bytes": HELD, "foreign_bytes": 300 * MIB}
    both = two_gpus(("GPU-a", others), ("GPU-b", others))
    grade, said = graded("nvml-device", **both)
    assert grade == "D"
    assert "600 MiB" in said
    # 5 GiB of a stranger were on the first before the run; 5 GiB came to the second in training.
    came = {**others, "foreign_bytes": [5 * GIB if t > 6 else 0 for t in SECONDS]}
    stayed = {**others, "foreign_bytes": 5 * GIB}
    more = two_gpus(("GPU-a", stayed), ("GPU-b", came))
    idle = [d.model_copy(update={"idle_bytes": 5 * GIB * (d.uuid == "GPU-a")})
            for d in more["sampler"].devices]  # fmt: skip
    more["sampler"] = more["sampler"].model_copy(update={"devices": tuple(idle)})
    assert graded("nvml-above-idle", **more)[0] == "D"


def test_a_sum_without_one_of_the_runs_gpus_is_no_measurement():
    alone = two_gpus(("GPU-a", {**GOOD, "nvml_device_bytes": HELD}))
    grade, said = graded("nvml-device", **alone)
    assert grade == "D"
    assert "is that of 1 of 2 GPUs" in said


def test_a_stranger_whose_memory_is_not_told_is_a_stranger_all_the_same():
    memory = gpu(SECONDS, nvml_device_bytes=HELD, **{**GOOD, "foreign_bytes": None})
    grade, said = graded(memory=memory, sampler=device(foreign_pids=(77,)))
    assert grade == "C"
    assert said.startswith("Contaminated. 1 other process on the device")


@pytest.mark.parametrize(("idle", "grade"), [(200 * MIB, "B"), (GIB // 2, "D"), (5 * GIB, "D")])
def test_memory_in_use_before_a_run_is_in_the_devices_figure_whoever_holds_it(idle, grade):
    held = [idle + value for value in HELD]
    memory = gpu(SECONDS, nvml_device_bytes=held, **{**GOOD, "foreign_bytes": None})
    sampler = device(has_trusted_pids=False, idle_bytes=idle)
    assert graded("nvml-device", memory=memory, sampler=sampler)[0] == grade
    assert graded("nvml-above-idle", memory=memory, sampler=sampler)[0] == "B"


def test_a_baseline_that_was_read_while_the_model_loaded_is_said():
    late = [t for t in SECONDS if t > 1.5]
    memory = samples([(t, "host", 10**9, None) for t in late])
    cpu = SAMPLER.model_copy(update={"devices": ()})
    grade, said = graded("rss", memory=memory, sampler=cpu, phases=uncounted(*PHASES))
    assert grade == "C"
    assert "First read 1.6 s after the model began to load" in said


def test_others_that_give_memory_back_make_above_idle_too_low():
    """5 GiB of a stranger were there when idle was read, and none in training."""
    others = [5 * GIB if t < 1.5 else 0 for t in SECONDS]
    held = [other + value for other, value in zip(others, HELD, strict=True)]
    memory = gpu(SECONDS, nvml_device_bytes=held, **{**GOOD, "foreign_bytes": others})
    sampler = device(idle_bytes=5 * GIB)
    grade, said = graded("nvml-above-idle", memory=memory, sampler=sampler)
    assert grade == "D"
    assert "gave back 5.00 GiB" in said
    assert graded("nvml-device", memory=memory, sampler=sampler)[0] != "D"
