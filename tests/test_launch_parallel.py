"""Runs of several processes: how they start, what is said when one fails, and that none stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, repeat
from pathlib import Path

import pytest

from harness.launch import Launch
from harness.launch.local import LocalLauncher, worker_variables
from harness.launch.parallel import config_file, launch_arguments, mixed_precision
from harness.launch.watch import Limits, Watched
from harness.record import Exit, Status
from harness.settings import Parallel
from harness.spec import RunSpec
from tests.fake_ranks import COMMAND
from tests.fake_worker import make_attempt
from tests.test_launch_local import is_gone
from tests.waiting import wait_until

DDP = Parallel(processes=2, strategy="ddp")
LIMITS = Limits(timeout_s=60, stall_s=60, grace_s=5)


@contextmanager
def started(tmp_path: Path, launch: Launch | None = None, **fake) -> Iterator[tuple]:
    """A launcher that starts `tests.fake_ranks` in two processes, watched."""
    launch = launch or Launch(parallel=DDP, waits_for_sampler=False)
    attempt = make_attempt(tmp_path, launch, **fake)
    with LocalLauncher(is_cold=True, parallel=COMMAND) as launcher:
        handle = launcher.start(attempt, launch)
        kills = count() if fake.get("fake_oom") else repeat(0)  # the kernel's count, growing or not
        with Watched(handle, attempt, LIMITS, oom_kills=lambda: next(kills)) as watched:
            yield attempt, watched


def seen(attempt: Path, step: int) -> list[dict] | None:
    """What both processes noted, once both have done that many steps."""
    try:
        notes = [json.loads((attempt / f"seen-{i}.json").read_text()) for i in (0, 1)]
    except FileNotFoundError:
        return None
    return notes if all(n["step"] >= step for n in notes) else None


def wait_for(attempt: Path, step: int) -> list[dict]:
    wait_until(lambda: seen(attempt, step), 40)
    notes = seen(attempt, step)
    assert notes is not None
    return notes


def ending_of(watched: Watched):
    wait_until(watched.poll, 60)
    return watched.poll()


@pytest.mark.slow
def test_two_processes_train_on_a_core_each_and_one_writes(tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2]
    launch = Launch(parallel=DDP, waits_for_sampler=False, cores=(cores[0], cores[-1]))
    with started(tmp_path, launch, fake="ok") as (attempt, watched):
        ending = ending_of(watched)
    assert (ending.status, ending.exit) == (Status.OK, Exit(code=0))
    notes = wait_for(attempt, 5)
    assert [n["cores"] for n in notes] == [[cores[0]], [cores[-1]]]
    assert notes[0]["pid"] != notes[1]["pid"]
    assert (attempt / "environment.json").exists()
    assert not (attempt / "rank-1.json").exists()


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_process(tmp_path):
    with started(tmp_path, fake="hang") as (attempt, watched):
        notes = wait_for(attempt, 2)
        watched.cancel()
        ending = ending_of(watched)
        assert ending.status is Status.CANCELLED
        assert ending.exit.ended_by == "supervisor"
        assert all(is_gone(n["pid"]) for n in notes)
        watched.close()
        watched.handle.signal(signal.SIGTERM)  # an ended run ignores it


SUPERVISOR = """
import sys, time
from pathlib import Path
from harness.launch import Launch
from harness.launch.local import LocalLauncher
from harness.settings import Parallel
from tests.fake_ranks import COMMAND
launcher = LocalLauncher(is_cold=True, parallel=COMMAND)
launch = Launch(parallel=Parallel(processes=2, strategy="ddp"), waits_for_sampler=False)
print(launcher.start(Path(sys.argv[1]), launch).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_supervisor_takes_every_process_with_it(tmp_path):
    launch = Launch(parallel=DDP, waits_for_sampler=False)
    attempt = make_attempt(tmp_path, launch, fake="hang")
    command = [sys.executable, "-c", SUPERVISOR, str(attempt)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        pids = [int(supervisor.stdout.readline())]
        pids += [n["pid"] for n in wait_for(attempt, 2)]
        assert not any(is_gone(pid) for pid in pids)
        supervisor.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids), 10)


@pytest.mark.slow
def test_what_a_process_started_does_not_outlive_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRANDCHILD", str(tmp_path / "grandchild"))
    with started(tmp_path, fake="grandchild", max_steps=50) as (_, watched):
        wait_until((tmp_path / "grandchild").exists, 40)
        assert ending_of(watched).status is Status.OK
        grandchild = int((tmp_path / "grandchild").read_text())
        assert not is_gone(grandchild)
    assert is_gone(grandchild)


@pytest.mark.slow
def test_an_exception_in_the_second_process_is_the_reason_and_not_the_lost_connection(tmp_path):
    with started(tmp_path, fake="raise", exchanges=True) as (_, watched):
        ending = ending_of(watched)
    assert ending.status is Status.CRASHED
    assert ending.reason == "process 1 of 2 (counted from 0): ValueError: boom of the second"
    assert ending.result.steps_done == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fake", "status", "words"),
    [
        ("oom-gpu", Status.OOM_GPU, "process 1 of 2 (counted from 0): CUDA out of memory"),
        ("first-raises", Status.CRASHED, "ValueError: boom of the first"),
    ],
)
def test_the_cause_is_named(tmp_path, fake, status, words):
    with started(tmp_path, fake=fake, exchanges=True) as (_, watched):
        ending = ending_of(watched)
    assert ending.status is status
    assert ending.reason.startswith(words)


@pytest.mark.slow
@pytest.mark.parametrize("was_oom", [False, True])
def test_a_killed_process_is_named_and_may_have_run_out_of_memory(tmp_path, was_oom):
    with started(tmp_path, fake="kill", exchanges=True, fake_oom=was_oom) as (_, watched):
        ending = ending_of(watched)
    assert ending.exit.ended_by == "outside"
    if was_oom:
        assert ending.status is Status.OOM_HOST
    else:
        assert ending.status is Status.CRASHED
        assert "process 1 of 2 (counted from 0) was ended by SIGKILL" in ending.reason


def test_every_gpu_of_a_run_is_visible():
    launch = Launch(gpus=("GPU-1", "GPU-2"))
    assert worker_variables(launch)["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert launch.device == "GPU-1,GPU-2"
    assert Launch().device == "cpu"


def spec_of(tmp_path: Path, **trainer) -> RunSpec:
    make_attempt(tmp_path, **trainer)
    return RunSpec.model_validate_json((tmp_path / "spec.json").read_text())


@pytest.mark.parametrize(
    ("trainer", "word"),
    [({}, "bf16"), ({"bf16": True}, "bf16"), ({"bf16": False}, "no"), ({"fp16": True}, "fp16")],
)
def test_accelerate_is_told_the_precision_that_trl_takes(tmp_path, trainer, word):
    assert mixed_precision(spec_of(tmp_path, **trainer)) == word


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero3"])
def test_every_strategy_has_its_file(tmp_path, strategy):
    launch = Launch(parallel=Parallel(processes=4, strategy=strategy))
    arguments = launch_arguments(spec_of(tmp_path), launch, tmp_path, "a.module")
    assert arguments[:2] == ["--config_file", str(config_file(strategy))]
    assert arguments[-3:] == ["-m", "a.module", str(tmp_path)]
    assert config_file(strategy).is_file()
