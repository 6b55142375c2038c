"""The launcher `local`, cold: how workers start, what they may use, and that nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.errors import MachineError
from harness.launch import Handle, Launch
from harness.launch.local import LocalLauncher, worker_variables
from harness.launch.watch import Limits, Watched
from harness.record import Exit, Status
from harness.worker.confine import confine
from tests.fake_worker import COMMAND, ENTRY, make_attempt
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
LIMITS = Limits(timeout_s=30, stall_s=30, grace_s=0.3)


def watch_to_the_end(handle: Handle, attempt: Path, limits: Limits = LIMITS):
    with Watched(handle, attempt, limits) as watched:
        wait_until(watched.poll, 20)
        return watched.poll()


def run_cold(tmp_path: Path, launch: Launch | None = None, limits: Limits = LIMITS, **trainer):
    attempt = make_attempt(tmp_path, launch, **trainer)
    launch = launch or Launch(waits_for_sampler=False)
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        return watch_to_the_end(launcher.start(attempt, launch), attempt, limits)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_worker_that_does_its_work_is_ok(tmp_path):
    ending = run_cold(tmp_path)
    assert (ending.status, ending.reason, ending.exit) == (Status.OK, None, Exit(code=0))
    assert ending.result.steps_done == 5


@pytest.mark.parametrize(
    ("fake", "status", "word", "exit_"),
    [
        ("crash", Status.CRASHED, "boom: the fake worker crashed", Exit(code=1)),
        ("exit3", Status.CRASHED, "exit code 3", Exit(code=3)),
        ("abort", Status.CRASHED, "SIGABRT", Exit(signal=signal.SIGABRT)),
        ("no-result", Status.CRASHED, "without a result", Exit(code=0)),
        ("nan", Status.NAN, "asked for nan", Exit(code=1)),
        ("unavailable", Status.UNAVAILABLE, "asked for unavailable", Exit(code=1)),
    ],
)
def test_an_ending_is_named(tmp_path, fake, status, word, exit_):
    ending = run_cold(tmp_path, fake=fake)
    assert (ending.status, ending.exit) == (status, exit_)
    assert word in ending.reason


def test_output_is_kept_and_escape_codes_stay_out_of_the_reason(tmp_path):
    ending = run_cold(tmp_path, fake="escapes")
    assert "\x1b[31m" in (tmp_path / "attempt-1" / "stderr.log").read_text()
    assert "alert <script>" in ending.reason
    assert "\x1b" not in ending.reason
    assert "title" not in ending.reason


def test_more_memory_than_the_limit_is_out_of_host_memory(tmp_path):
    launch = Launch(waits_for_sampler=False, memory_limit_bytes=600 << 20)
    ending = run_cold(tmp_path, launch, fake="oom")
    assert (ending.status, ending.exit) == (Status.OOM_HOST, Exit(code=1))
    assert "MemoryError" in ending.reason


def test_sigterm_ends_a_worker_within_the_grace_time(tmp_path):
    attempt = make_attempt(tmp_path, fake="hang")
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        watched = Watched(handle, attempt, Limits(30, 30, grace_s=20))
        wait_until((attempt / "steps.jsonl").exists)
        watched.cancel()
        wait_until(watched.poll, 5)
    ending = watched.poll()
    assert ending.status is Status.CANCELLED
    assert ending.exit == Exit(signal=signal.SIGTERM, ended_by="supervisor")


def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace_time(tmp_path):
    attempt = make_attempt(tmp_path, fake="ignore-sigterm")
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        watched = Watched(handle, attempt, LIMITS)
        wait_until((attempt / "steps.jsonl").exists)
        begin = time.monotonic()
        watched.cancel()
        wait_until(watched.poll, 5)
        assert time.monotonic() - begin > LIMITS.grace_s
    assert watched.poll().exit == Exit(signal=signal.SIGKILL, ended_by="supervisor")


def test_a_silent_worker_is_stalled(tmp_path):
    ending = run_cold(tmp_path, limits=Limits(30, 0.8, 0.2), fake="hang")
    assert ending.status is Status.STALLED
    assert "no step and no phase ended for 0.8 s" in ending.reason


def test_a_worker_that_keeps_stepping_past_its_time_is_timed_out(tmp_path):
    ending = run_cold(tmp_path, limits=Limits(1.0, 30, 0.2), max_steps=10**6)
    assert ending.status is Status.TIMEOUT


@pytest.mark.slow
def test_a_result_stands_when_the_worker_then_hangs(tmp_path):
    attempt = make_attempt(tmp_path, fake="hang-at-exit")
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        wait_until((attempt / "result.json").exists)
        ending = watch_to_the_end(handle, attempt, Limits(30, 0.8, 0.2))
    assert ending.status is Status.OK
    assert ending.exit.ended_by == "supervisor"


@pytest.mark.slow
def test_grandchildren_do_not_outlive_their_worker(tmp_path):
    attempt = make_attempt(tmp_path, fake="grandchildren", fake_step_s=0.2)
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        root = psutil.Process(handle.pid)
        wait_until(root.children)
        grandchild = root.children()[0].pid
        wait_until(handle.poll)
        assert not is_gone(grandchild)
        handle.close()
        assert is_gone(grandchild)
        handle.close()


def test_leaving_the_launcher_ends_its_workers(tmp_path):
    attempt = make_attempt(tmp_path, fake="ignore-sigterm")
    with LocalLauncher(is_cold=True, command=COMMAND) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        wait_until((attempt / "steps.jsonl").exists)
    assert handle.poll() == Exit(signal=signal.SIGKILL)
    handle.signal(signal.SIGTERM)  # an ended worker ignores it


SUPERVISOR = """
import sys, time
from pathlib import Path
from harness.launch import Launch
from harness.launch.local import LocalLauncher
from harness.measure.sampler import Sampler
from tests.fake_worker import COMMAND, ENTRY
attempt, is_cold = Path(sys.argv[1]), sys.argv[2] == "cold"
launcher = LocalLauncher(is_cold, COMMAND, ENTRY, preload=())
launcher.__enter__()
handle = launcher.start(attempt, Launch())
sampler = Sampler.start(handle.pid, attempt, 20)
print(handle.pid, sampler._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_worker_and_sampler_die_with_a_killed_supervisor(tmp_path, kind):
    attempt = make_attempt(tmp_path, Launch(), fake="ignore-sigterm")
    command = [sys.executable, "-c", SUPERVISOR, str(attempt), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        wait_until((attempt / "steps.jsonl").exists)
        assert not any(is_gone(pid) for pid in pids)
        supervisor.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids), 10)
    assert (attempt / "sampler.json").exists()


def test_a_worker_whose_starter_died_before_it_could_look_ends_itself(tmp_path):
    attempt = make_attempt(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as starter:
        starter.wait()
    variables = {**os.environ, "HARNESS_PARENT_PID": str(starter.pid)}
    done = subprocess.run([*COMMAND, str(attempt)], env=variables, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (attempt / "phases.jsonl").exists()


def test_a_worker_sees_the_gpu_it_was_given_and_no_other():
    assert worker_variables(Launch())["CUDA_VISIBLE_DEVICES"] == ""
    assert worker_variables(Launch(gpus=("GPU-1",)))["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_threads_size_every_pool():
    variables = worker_variables(Launch(threads=3))
    assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "3"


@pytest.mark.parametrize("is_cold", [True, False])
def test_a_worker_runs_on_its_core(tmp_path, is_cold):
    core = max(os.sched_getaffinity(0))
    launch = Launch(waits_for_sampler=False, cores=(core,))
    attempt = make_attempt(tmp_path, launch, fake="hang")
    with LocalLauncher(is_cold, COMMAND, ENTRY, preload=()) as launcher:
        handle = launcher.start(attempt, launch)
        wait_until((attempt / "steps.jsonl").exists)
        assert psutil.Process(handle.pid).cpu_affinity() == [core]


def test_a_core_that_is_not_there_is_refused():
    with pytest.raises(MachineError, match="core 4095 is not usable here"):
        confine(Launch(cores=(4095,)), os.getppid())
