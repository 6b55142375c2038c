"""Others on a run's GPUs: what they add, take away, hold unseen, and held before; one thing at a time."""

from __future__ import annotations

import pytest

from harness.grade import grade_run
from harness.strangers import added_by_others, stands_above_idle
from tests.test_grade import GIB, GOOD, HELD, MIB, SECONDS, device, graded, two_gpus, watch
from tests.timelines import gpu, span

LENSES = ("nvml-device", "nvml-above-idle", "run")


def shared(others=0, idle=0, told=True, own=HELD, **changes):
    """A run beside others: idle is nobody's that is listed; others are, unless not told."""
    listed = others if isinstance(others, list) else [others] * len(SECONDS)
    held = [own[i] + idle + listed[i] for i in range(len(SECONDS))]
    memory = gpu(
        SECONDS, nvml_device_bytes=held, **{**GOOD, "foreign_bytes": listed if told else None}
    )
    return {"memory": memory, "sampler": device(idle_bytes=idle + listed[0], **changes)}


def grades(**found):
    return tuple(grade_run(watch(**found))[lens].grade for lens in LENSES)


def came(size, before=0):
    return [before + (int(size) if t > 6 else 0) for t in SECONDS]


def test_a_stranger_who_comes_and_whose_memory_is_not_told_is_not_nobody():
    """A list that tells 0 until a stranger of unknown size is on it, and nothing from then on."""
    told = [0 if t < 6 else None for t in SECONDS]
    held = [own + (8 * GIB if t > 6 else 0) for t, own in zip(SECONDS, HELD, strict=True)]
    memory = gpu(SECONDS, nvml_device_bytes=held, **{**GOOD, "foreign_bytes": told})
    found = {"memory": memory, "sampler": device(foreign_pids=(77,))}
    assert grades(**found) == ("C", "C", "C")
    assert "how much they held is not told" in graded("nvml-above-idle", **found)[1]


def test_one_of_two_strangers_whose_memory_is_not_told_is_seen_in_the_lists_that_tell_the_workers():
    listed = [100 * MIB if t < 6 else None for t in SECONDS]
    memory = gpu(
        SECONDS, nvml_device_bytes=HELD, nvml_process_bytes=20 * GIB,
        **{**GOOD, "foreign_bytes": listed},
    )  # fmt: skip
    said = graded("nvml-device", memory=memory, sampler=device(foreign_pids=(77, 78)))[1]
    assert "2 other processes on the device; how much they held is not told" in said
    accounted = memory.assign(foreign_bytes=100 * MIB)
    said = graded("nvml-device", memory=accounted, sampler=device(foreign_pids=(77,)))[1]
    assert said == "Other processes held up to 100 MiB on the device while it trained."


@pytest.mark.parametrize("trusted", [True, None, False])
def test_memory_that_nobody_listed_held_before_the_run_counts_whatever_is_known_of_processes(
    trusted,
):
    """Ten GiB of a program that draws, of a client of MPS, or where no list may be read."""
    found = shared(idle=10 * GIB, told=trusted is True, has_trusted_pids=trusted)
    assert grades(**found) == ("D", "B", "B")
    assert stands_above_idle(watch(**found))


def test_what_an_idle_driver_holds_is_no_strangers():
    assert grades(**shared(idle=60 * MIB)) == ("A", "A", "A")
    small = [(0 if t < 1 else 1) * GIB for t in SECONDS]
    phases = (span("load", 0, 2), span("train", 2, 12))
    assert grades(**shared(idle=60 * MIB, own=small), phases=phases) == ("A", "A", "A")
    # Version 1 of the query counts in what the driver keeps for itself, and says so by itself.
    assert grades(**shared(idle=900 * MIB, memory_version=1)) == ("B", "A", "A")
    assert grades(**shared(idle=900 * MIB)) == ("D", "B", "B")


def test_a_stranger_who_was_listed_before_the_run_is_no_untold_memory():
    found = shared(others=GIB)
    assert not stands_above_idle(watch(**found))
    assert grades(**found) == ("D", "A", "D")


@pytest.mark.parametrize(
    ("idle", "trusted", "is_above"),
    [
        (0, True, False),
        (0, False, True),
        (200 * MIB, True, False),  # less than 1 % of 21.2 GiB
        (220 * MIB, True, True),
        (220 * MIB, None, True),
    ],
)
def test_above_idle_stands_for_a_run_where_the_device_would_mislead(idle, trusted, is_above):
    found = shared(idle=idle, told=trusted is True, has_trusted_pids=trusted)
    assert stands_above_idle(watch(**found)) == is_above


def test_above_idle_stands_for_nothing_where_idle_was_read_too_late():
    late = [t for t in SECONDS if t > 1.5]
    memory = gpu(late, nvml_device_bytes=21 * GIB, **{**GOOD, "foreign_bytes": None})
    sampler = device(has_trusted_pids=False, idle_bytes=21 * GIB)
    assert not stands_above_idle(watch(memory=memory, sampler=sampler))
    assert "stands for the run" not in graded(memory=memory, sampler=sampler)[1]


@pytest.mark.parametrize(("idle", "more"), [(0.9, 0.8), (4, 3)])
def test_what_a_stranger_adds_is_not_hidden_by_memory_that_nobody_listed_held(idle, more):
    found = shared(others=came(more * GIB), idle=int(idle * GIB))
    assert graded("nvml-above-idle", **found)[0] == "D"
    assert added_by_others(watch(**found)) == int(more * GIB)


@pytest.mark.parametrize(("more", "said"), [(0.7, "held up to 717"), (-0.7, "gave back 717")])
def test_what_others_add_or_give_back_is_held_against_the_lenss_own_peak(more, said):
    """2 GiB beside a stranger's 70: 0.7 is 1 % of the device's peak, and a third of the run's own."""
    own = [(0 if t < 1 else 1 if t < 2 else 2) * GIB for t in SECONDS]
    found = shared(others=came(more * GIB, before=70 * GIB), own=own)
    phases = (span("load", 0, 2), span("train", 2, 12, torch_reserved_peak_bytes=GIB))
    grade, reasons = graded("nvml-above-idle", **found, phases=phases)
    assert grade == "D"
    assert said in reasons


def test_each_gpu_is_judged_by_what_is_known_of_it():
    """15 GiB of a stranger on the one; process ids of another namespace on the other."""
    first, second = ({**GOOD, "nvml_device_bytes": HELD, "foreign_bytes": f} for f in (0, None))
    first["foreign_bytes"] = came(15 * GIB)
    both = two_gpus(("GPU-a", first), ("GPU-b", second))
    one, other = both["sampler"].devices
    devices = (one, other.model_copy(update={"has_trusted_pids": False}))
    both["sampler"] = both["sampler"].model_copy(update={"devices": devices})
    for lens in LENSES:
        grade, said = graded(lens, **both)
        assert (grade, "15.00 GiB" in said, "another namespace" in said) == ("D", True, True)


def test_memory_that_torch_shows_to_be_gone_leaves_the_devices_figure_as_it_is():
    """5 GiB of residue until the model is loaded; then context and 20 GiB of torch's, 21 in all."""
    held = [5 * GIB if t < 2 else 21 * GIB for t in SECONDS]
    memory = gpu(SECONDS, nvml_device_bytes=held, **GOOD)
    found = {"memory": memory, "sampler": device(idle_bytes=5 * GIB)}
    assert grades(**found) == ("B", "D", "B")
    assert "given back since" in graded("nvml-device", **found)[1]
    assert "above it is too low" in graded("nvml-above-idle", **found)[1]
    # Where 10 GiB stand beside what torch reserved, nothing shows that they are gone.
    phases = (span("load", 0, 2), span("train", 2, 12, torch_reserved_peak_bytes=11 * GIB))
    assert graded("nvml-device", **found, phases=phases)[0] == "D"


def test_residue_that_is_freed_before_loading_is_no_idle_memory():
    """5 GiB of the process before; the GPU is empty when loading begins, and 21 GiB are the run's."""
    held = [5 * GIB if t < 0.5 else own for t, own in zip(SECONDS, HELD, strict=True)]
    phases = (
        span("load", 0.8, 2, torch_reserved_peak_bytes=4 * GIB),
        span("train", 2, 12, torch_reserved_peak_bytes=20 * GIB),
    )
    memory = gpu(SECONDS, nvml_device_bytes=held, **GOOD)
    sampler = device(idle_bytes=5 * GIB)
    assert grades(memory=memory, sampler=sampler, phases=phases) == ("A", "A", "A")
    # Nor has a stranger given anything back who had left by then.
    others = memory.assign(foreign_bytes=[5 * GIB if t < 0.5 else 0 for t in SECONDS])
    assert grades(memory=others, sampler=sampler, phases=phases) == ("A", "A", "A")
