"""The launcher `local`, warm: the fork server and its workers."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from harness.errors import MachineError
from harness.launch import Launch
from harness.launch.local import LocalLauncher
from harness.launch.watch import Limits, Watched
from harness.record import Exit, Status
from tests.fake_worker import ENTRY, make_attempt
from tests.test_launch_local import is_gone, wait_until

LAUNCH = Launch(waits_for_sampler=False)


def warm_launcher(entry: str = ENTRY, preload: tuple[str, ...] = ()) -> LocalLauncher:
    return LocalLauncher(is_cold=False, entry=entry, preload=preload)


def finish(handle, attempt: Path, limits: Limits | None = None):
    with Watched(handle, attempt, limits or Limits(30, 30, 0.3)) as watched:
        wait_until(watched.poll, 20)
        return watched.poll()


def test_a_warm_run_starts_at_once_and_says_so(tmp_path):
    with warm_launcher() as launcher:
        wait_until(lambda: launcher.is_ready)
        attempt = make_attempt(tmp_path)
        begin = time.monotonic()
        handle = launcher.start(attempt, LAUNCH)
        wait_until((attempt / "phases.jsonl").exists)
        assert time.monotonic() - begin < 5.0  # an import of the libraries takes longer
        ending = finish(handle, attempt)
    assert ending.status is Status.OK
    assert ending.result.started_warm
    assert ending.exit == Exit(code=0)


def test_start_waits_for_the_imports(tmp_path):
    attempt = make_attempt(tmp_path)
    with warm_launcher() as launcher:
        assert finish(launcher.start(attempt, LAUNCH), attempt).status is Status.OK


@pytest.mark.slow
def test_several_workers_run_side_by_side_and_their_endings_are_told_apart(tmp_path):
    fakes = {
        "ok": Status.OK,
        "crash": Status.CRASHED,
        "hang": Status.TIMEOUT,
        "oom": Status.OOM_HOST,
    }
    with warm_launcher() as launcher:
        watched = {}
        for fake in fakes:
            limit = 600 << 20 if fake == "oom" else None
            launch = Launch(waits_for_sampler=False, memory_limit_bytes=limit)
            attempt = make_attempt(tmp_path / fake, launch, fake=fake)
            limits = Limits(2 if fake == "hang" else 30, 30, 0.3)
            watched[fake] = Watched(launcher.start(attempt, launch), attempt, limits)
        wait_until(lambda: None not in [w.poll() for w in watched.values()], 20)
    assert {fake: w.poll().status for fake, w in watched.items()} == fakes


def test_a_crash_prints_its_traceback_to_the_attempts_log(tmp_path):
    attempt = make_attempt(tmp_path, fake="crash")
    with warm_launcher() as launcher:
        ending = finish(launcher.start(attempt, LAUNCH), attempt)
    assert "Traceback" in (attempt / "stderr.log").read_text()
    assert "boom" in ending.reason


def test_a_warm_worker_leads_a_group_that_is_killed_as_one(tmp_path):
    attempt = make_attempt(tmp_path, fake="grandchildren", fake_step_s=0.3)
    with warm_launcher() as launcher:
        handle = launcher.start(attempt, LAUNCH)
        assert os.getpgid(handle.pid) == handle.pid
        root = psutil.Process(handle.pid)
        wait_until(root.children)
        grandchild = root.children()[0].pid
        ending = finish(handle, attempt)
        assert is_gone(grandchild)
    assert ending.status is Status.OK


@pytest.mark.slow
def test_a_worker_that_ignores_sigterm_is_killed(tmp_path):
    attempt = make_attempt(tmp_path, fake="ignore-sigterm")
    with warm_launcher() as launcher:
        handle = launcher.start(attempt, LAUNCH)
        wait_until((attempt / "steps.jsonl").exists)  # it ignores the signal by now
        ending = finish(handle, attempt, Limits(1.0, 30, 0.2))
    assert ending.exit == Exit(signal=signal.SIGKILL, ended_by="supervisor")
    assert ending.status is Status.TIMEOUT


def test_an_import_that_fails_is_told_with_the_servers_last_words(tmp_path):
    with (
        warm_launcher(preload=("no_such_library",)) as launcher,
        pytest.raises(MachineError, match=r"(?s)while importing.*no_such_library.*--cold"),
    ):
        launcher.start(make_attempt(tmp_path), LAUNCH)


def test_a_server_killed_while_it_imports_is_told_with_what_may_have_done_it(tmp_path, monkeypatch):
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    words = r"killed, as the kernel does where memory runs out; there are [\d.]+ GiB"
    with (
        warm_launcher(preload=("killed",)) as launcher,
        pytest.raises(MachineError, match=words),
    ):
        launcher.start(make_attempt(tmp_path / "run"), LAUNCH)


def test_a_missing_folder_is_told_and_the_server_goes_on(tmp_path):
    with warm_launcher() as launcher:
        with pytest.raises(MachineError, match="FileNotFoundError"):
            launcher.start(tmp_path / "absent", LAUNCH)
        attempt = make_attempt(tmp_path / "present")
        assert finish(launcher.start(attempt, LAUNCH), attempt).status is Status.OK


def test_workers_of_a_killed_server_end_and_the_next_start_gets_a_new_server(tmp_path):
    attempt = make_attempt(tmp_path / "a", fake="hang")
    with warm_launcher() as launcher:
        handle = launcher.start(attempt, LAUNCH)
        wait_until((attempt / "steps.jsonl").exists)
        psutil.Process(handle.pid).parent().kill()
        ending = finish(handle, attempt)
        assert ending.status is Status.CRASHED
        assert ending.exit.ended_by == "outside"
        wait_until(lambda: is_gone(handle.pid), 10)
        second = make_attempt(tmp_path / "b")
        assert finish(launcher.start(second, LAUNCH), second).status is Status.OK
        assert handle.poll().signal == signal.SIGKILL


def test_leaving_the_launcher_ends_server_and_workers(tmp_path):
    attempt = make_attempt(tmp_path, fake="ignore-sigterm")
    with warm_launcher() as launcher:
        handle = launcher.start(attempt, LAUNCH)
        server = psutil.Process(handle.pid).parent().pid
        wait_until((attempt / "steps.jsonl").exists)
    assert is_gone(handle.pid)
    assert is_gone(server)


def test_a_warm_worker_gets_the_variables_of_its_launch_and_default_signals(tmp_path):
    attempt = make_attempt(tmp_path)
    launch = Launch(waits_for_sampler=False, threads=2, gpus=("GPU-7",))
    with warm_launcher(entry="tests.test_launch_warm:describe_self") as launcher:
        finish(launcher.start(attempt, launch), attempt)
    told = json.loads((attempt / "self.json").read_text())
    assert told == {
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "GPU-7",
        "PYTORCH_NVML_BASED_CUDA_CHECK": None,
        "PYTHONHASHSEED": "0",
        "is_leader": True,
        "handlers": [True, True, True],
        "open_files": 3,
    }


def describe_self(attempt: Path, is_warm: bool) -> int:
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_NVML_BASED_CUDA_CHECK")
    told = {name: os.environ.get(name) for name in (*names, "PYTHONHASHSEED")}
    open_files = [fd for fd in range(64) if Path(f"/proc/self/fd/{fd}").exists()]
    handlers = [
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        signal.getsignal(signal.SIGINT) == signal.default_int_handler,
    ]
    told |= {"is_leader": os.getsid(0) == os.getpid(), "handlers": handlers}
    (attempt / "self.json").write_text(json.dumps({**told, "open_files": len(open_files)}))
    return 0
