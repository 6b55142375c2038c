"""Whose memory a GPU holds, told from lists of processes: the worker's, strangers', or nobody's."""

from __future__ import annotations

import os

import pytest

from harness.measure.tenants import Tenants, is_here

MIB = 2**20
OWN, STRANGER, ABSENT = 10, 99, 7_000_000


def tenants(is_trusted: bool = True) -> Tenants:
    return Tenants(lambda pid: pid == OWN, is_trusted, lambda pid: pid != ABSENT)


def judge(of: Tenants, listed, grown_mib: int = 0, seconds: float = 5.0):
    """Show the same list twice a second; return the last answer."""
    for tick in range(int(seconds * 2)):
        held = of.judge([(pid, mib * MIB) for pid, mib in listed], grown_mib * MIB, tick / 2)
    return held


def test_own_and_foreign_memory_are_told_apart():
    of = tenants()
    assert judge(of, [(OWN, 300), (STRANGER, 20)]) == (300 * MIB, 20 * MIB)
    assert judge(of, [(OWN, 300)]) == (300 * MIB, 0)
    assert (of.foreign_bytes_max, of.foreign_pids) == (20 * MIB, (STRANGER,))


def test_a_worker_that_is_not_listed_yet_is_missing_and_not_zero():
    assert judge(tenants(), [(STRANGER, 20)]) == (None, 20 * MIB)
    assert judge(tenants(), []) == (None, 0)


def test_a_process_without_a_figure_leaves_a_null():
    of = tenants()
    assert of.judge([(OWN, None), (STRANGER, None)], 0, 0.0) == (None, None)
    assert of.foreign_pids == (STRANGER,)


def test_ids_that_no_process_here_has_are_another_namespaces():
    of = tenants()
    assert judge(of, [(ABSENT, 9000)], 9000) == (None, None)
    assert not of.is_trusted
    assert of.why_not == (
        "NVML process memory not measured: NVML lists process 7000000, which is not here; the GPU's memory "
        "above its idle memory stands for the run"
    )


def test_memory_that_grew_without_a_process_of_the_worker_means_that_ids_are_foreign():
    of = tenants()
    assert judge(of, [(STRANGER, 100)], 3172) == (None, None)
    assert "grew by 3.00 GiB and NVML lists no process of the worker" in of.why_not
    assert (of.foreign_bytes_max, of.foreign_pids) == (None, ())


def test_growth_that_a_stranger_explains_is_no_evidence():
    of = tenants()
    judge(of, [(STRANGER, 3000)], 3072)
    assert of.is_trusted


def test_evidence_must_last_a_second():
    of = tenants()
    judge(of, [(ABSENT, 9000)], 9000, seconds=1.0)
    assert of.is_trusted


def test_one_listed_process_of_the_worker_settles_it():
    of = tenants()
    judge(of, [(OWN, 600)], 600)
    # The worker has left the GPU, its memory is not free yet, and a process that ended is still listed.
    assert judge(of, [(ABSENT, 900)], 5000) == (None, 0)
    assert (of.is_trusted, of.foreign_pids) == (True, ())


@pytest.mark.parametrize("listed", [[], [(OWN, 300)], [(STRANGER, 300)]])
def test_ids_of_a_container_tell_nothing(listed):
    of = tenants(is_trusted=False)
    assert judge(of, listed) == (None, None)
    assert of.why_not is None, "the source says that from the beginning"


def test_processes_are_looked_for_whoever_they_belong_to():
    assert is_here(os.getpid())
    assert is_here(1)
    assert not is_here(2**31 - 100)
    assert is_here(2**70), "a number that can't be a process id is not judged"
