"""Several processes of a run: which is which, and whose word is the run's when one fails."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness.launch import Launch
from harness.record import Result, Status
from harness.settings import Parallel
from harness.worker import ranks
from harness.worker.distributed import conclude
from harness.worker.ranks import ALONE, Rank, is_consequence, leave_word, rank_of

LOST = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


def failed(reason: str, status: Status = Status.CRASHED, steps: int = 2) -> Result:
    return Result(status=status, reason=reason, steps_done=steps)


def put(attempt: Path, rank: int, result: Result) -> None:
    name = "result.json" if rank == 0 else f"rank-{rank}.json"
    (attempt / name).write_text(result.model_dump_json())
    os.utime(attempt / name, ns=(time.time_ns(), time.time_ns()))


def said(attempt: Path) -> Result:
    return Result.model_validate_json((attempt / "result.json").read_text())


def test_a_lone_worker_is_the_first_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert rank_of(Launch()) == ALONE
    launch = Launch(parallel=Parallel(processes=4, strategy="ddp"))
    assert rank_of(launch) == Rank(3, 4)
    assert not rank_of(launch).is_first


def test_torch_says_what_is_looked_for_when_a_peer_is_gone():
    """See test_launch_parallel for gloo's own words, from real processes."""
    assert is_consequence(failed(LOST))
    assert is_consequence(failed("DistBackendError: NCCL communicator was aborted"))
    assert not is_consequence(failed("ValueError: boom"))
    assert not is_consequence(Result(status=Status.OK))
    assert not is_consequence(failed("NCCL error: CUDA out of memory", Status.OOM_GPU))


def test_the_first_process_s_own_failure_stands(tmp_path):
    put(tmp_path, 0, failed("ValueError: mine"))
    put(tmp_path, 1, failed(LOST))
    assert conclude(tmp_path, 2, {0: 1, 1: 1}) == 1
    assert said(tmp_path).reason == "ValueError: mine"


def test_what_training_came_to_stands(tmp_path):
    put(tmp_path, 0, failed("the loss was not a number", Status.NAN))
    assert conclude(tmp_path, 2, {0: 1, 1: -signal.SIGTERM}) == 1
    assert said(tmp_path).status is Status.NAN


@pytest.mark.parametrize("first_said", [True, False])
def test_the_earliest_cause_of_another_process_is_the_run_s(tmp_path, first_said):
    if first_said:
        put(tmp_path, 0, failed(LOST))
    put(tmp_path, 1, failed(LOST))
    put(tmp_path, 3, failed("CUDA out of memory", Status.OOM_GPU, steps=7))
    put(tmp_path, 2, failed("ValueError: later"))
    assert conclude(tmp_path, 4, {1: 1}) == 1
    assert said(tmp_path).status is Status.OOM_GPU
    assert said(tmp_path).reason == "process 3 of 4 (counted from 0): CUDA out of memory"
    assert said(tmp_path).steps_done == 7


def test_a_signal_that_ended_a_process_is_the_exit_of_the_run(tmp_path, capsys):
    put(tmp_path, 0, failed(LOST))
    codes = {0: 1, 1: -signal.SIGTERM, 2: -signal.SIGKILL}
    assert conclude(tmp_path, 3, codes) == 128 + signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert capsys.readouterr().err == "process 2 of 3 (counted from 0) was ended by SIGKILL\n"


def test_a_lost_connection_that_nobody_explains_is_kept(tmp_path):
    put(tmp_path, 0, failed(LOST))
    assert conclude(tmp_path, 2, {0: 1, 1: -signal.SIGTERM}) == 1
    assert said(tmp_path).reason == LOST


def test_no_word_and_no_signal_leaves_the_exit_code(tmp_path, capsys):
    assert conclude(tmp_path, 2, {1: 3}) == 1
    assert capsys.readouterr().err == "process 1 of 2 (counted from 0) ended with exit code 3\n"
    assert not (tmp_path / "result.json").exists()


def test_a_process_that_fails_gives_the_first_time_to_say_so(tmp_path):
    put(tmp_path, 0, failed("mine"))
    begin = time.monotonic()
    leave_word(tmp_path, Rank(1, 2), failed("theirs"))
    assert time.monotonic() - begin < ranks.PATIENCE_S / 2
    assert [(r.index, w.reason) for r, w in ranks.words(tmp_path, 2)] == [(1, "theirs")]
