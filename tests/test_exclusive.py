"""`--exclusive`: GPUs that other programs use are waited for, and strangers during a run are told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import MachineError
from harness.exclusive import Guard, find_stranger
from harness.measure.gpus import Gpu, GpuList, GpuProcess, MigSlice
from tests.doctor_cases import H100

GIB = 2**30
STRANGER = (GpuProcess(77, 2 * GIB),)


class Machine:
    """GPUs whose users a test changes, and a clock that it moves."""

    def __init__(self, *gpus: Gpu) -> None:
        self.gpus, self.now, self.looks = gpus, 0.0, 0
        self.told: list[str] = []

    def look(self) -> GpuList:
        self.looks += 1
        return GpuList(self.gpus)

    def guard(self, wait_s: float = 60, sees_strangers: bool = True) -> Guard:
        return Guard(wait_s, self.told.append, self.look, lambda: self.now, sees_strangers)


def test_a_free_gpu_is_used_at_once():
    machine = Machine(H100)
    assert machine.guard().is_clear(["GPU-0"])
    assert machine.told == []


def test_a_run_on_the_cpu_asks_no_gpu():
    machine = Machine()
    assert machine.guard().is_clear([])
    assert machine.looks == 0


def test_a_stranger_is_waited_for_with_one_message():
    machine = Machine(replace(H100, processes=STRANGER))
    guard = machine.guard()
    for second in range(30):
        machine.now = second
        assert not guard.is_clear(["GPU-0"])
    assert machine.told == ["GPU-0 is used by process 77: waiting up to 60 s for it to end"]
    machine.gpus, machine.now = (H100,), 31
    assert guard.is_clear(["GPU-0"])


def test_what_a_run_leaves_for_a_moment_is_not_worth_a_word():
    machine = Machine(replace(H100, processes=STRANGER))
    guard = machine.guard()
    assert not guard.is_clear(["GPU-0"])
    machine.gpus, machine.now = (H100,), 1.5
    assert guard.is_clear(["GPU-0"])
    assert machine.told == []


def test_a_gpu_is_looked_at_once_a_second_while_it_is_waited_for():
    machine = Machine(replace(H100, processes=STRANGER))
    guard = machine.guard()
    for tick in range(50):
        machine.now = tick / 10
        guard.is_clear(["GPU-0"])
    assert machine.looks == 5


def test_waiting_ends_with_what_was_found_and_what_to_do():
    machine = Machine(replace(H100, processes=STRANGER))
    guard = machine.guard(wait_s=5)
    assert not guard.is_clear(["GPU-0"])
    machine.now = 5
    with pytest.raises(MachineError, match=r"GPU-0 is used by process 77 after 5 s") as caught:
        guard.is_clear(["GPU-0"])
    assert caught.value.exit_code == 7
    assert "what finished is kept" in str(caught.value)


def test_memory_that_nobody_is_listed_for_is_a_stranger_too():
    machine = Machine(replace(H100, used_bytes=12 * GIB))
    guard = machine.guard(wait_s=0)
    with pytest.raises(MachineError, match=r"12.00 GiB of GPU-0 are in use by nobody"):
        guard.is_clear(["GPU-0"])


def test_a_gpu_that_no_driver_tells_of_is_not_taken_for_free():
    machine = Machine()
    with pytest.raises(MachineError, match=r"GPU-0 can't be looked at \(it is not listed\)"):
        machine.guard(wait_s=0).is_clear(["GPU-0"])


def test_only_the_gpus_of_the_run_count():
    other = replace(H100, uuid="GPU-1", index=1, processes=STRANGER)
    assert Machine(H100, other).guard().is_clear(["GPU-0"])


def test_a_slice_is_judged_by_its_own_processes():
    slices = (
        MigSlice("MIG-a", "a", GIB),
        MigSlice("MIG-b", "b", GIB, processes=STRANGER),
    )
    machine = Machine(replace(H100, is_mig_enabled=True, mig_slices=slices, processes=STRANGER))
    assert machine.guard().is_clear(["MIG-a"])
    assert not machine.guard().is_clear(["MIG-b"])


def test_where_ids_are_foreign_it_is_said_what_will_not_be_seen():
    machine = Machine(H100)
    machine.guard(sees_strangers=False)
    assert "seen before a run, and not while it trains" in machine.told[0]


@pytest.mark.parametrize("name", ["sampler.json", "sampler.so-far.json"])
def test_a_stranger_during_a_run_is_told_by_the_sampler(tmp_path, name):
    assert find_stranger(tmp_path) is None
    device = {"uuid": "GPU-0", "foreign_pids": [], "foreign_bytes_max": None}
    (tmp_path / name).write_text(json.dumps({"devices": [device]}))
    assert find_stranger(tmp_path) is None
    came = device | {"foreign_pids": [77], "foreign_bytes_max": 2 * GIB}
    (tmp_path / name).write_text(json.dumps({"devices": [device, came]}))
    assert find_stranger(tmp_path) == (
        "process 77 of another program came to GPU-0 and held 2.00 GiB, and the run was exclusive"
    )


@pytest.mark.parametrize("text", ["", "[", "{}"])
def test_a_torn_word_of_the_sampler_is_no_stranger(tmp_path, text):
    (tmp_path / "sampler.so-far.json").write_text(text)
    assert find_stranger(tmp_path) is None


@pytest.mark.parametrize("words", [["--exclusive"], ["--exclusive", "30"]])
def test_the_option_takes_a_time_or_none(words):
    done = CliRunner().invoke(cli, ["bench", "--matrix", "cpu", "--dry-run", *words])
    assert done.exit_code == 0, done.output
