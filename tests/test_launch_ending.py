"""From what a worker leaves behind to a status and a sentence."""

from __future__ import annotations

import signal

import pytest

from harness.launch.ending import (
    Evidence,
    Stop,
    count_oom_kills,
    decide,
    read_result,
    read_stderr_tail,
)
from harness.record import Exit, Result, Status

KILLED = Exit(signal=signal.SIGKILL)
STALLED = Stop(Status.STALLED, "silent")


def status_of(**evidence) -> Status:
    return decide(Evidence(**{"exit": Exit(code=1), **evidence})).status


@pytest.mark.parametrize("status", [Status.OK, Status.NAN, Status.DIVERGED, Status.OOM_GPU])
def test_an_outcome_stands_whatever_came_after_it(status):
    result = Result(status=status)
    assert status_of(result=result) is status
    assert status_of(result=result, exit=KILLED, stop=STALLED, was_oom_kill=True) is status


def test_a_stop_outweighs_an_accident_that_the_worker_tells():
    assert status_of(result=Result(status=Status.CRASHED), stop=STALLED) is Status.STALLED
    assert status_of(result=Result(status=Status.CONFIG)) is Status.CONFIG


@pytest.mark.parametrize(
    ("stop", "status"),
    [("timeout", "oom-host"), ("stalled", "oom-host"), ("cancelled", "cancelled")],
)
def test_a_limit_that_ended_a_worker_out_of_memory_is_not_the_reason(stop, status):
    verdict = Stop(Status.OOM_HOST, "the container ran out of memory")
    stop = Stop(Status(stop), "ended by the supervisor")
    assert status_of(exit=KILLED, stop=stop, verdict=verdict) is Status(status)
    crash = Stop(Status.CRASHED, "gone")
    assert status_of(exit=KILLED, stop=STALLED, verdict=crash) is Status.STALLED


def test_a_kill_is_out_of_memory_only_where_the_kernel_counted_one():
    assert status_of(exit=KILLED, was_oom_kill=True) is Status.OOM_HOST
    assert status_of(exit=KILLED) is Status.CRASHED
    assert status_of(exit=Exit(code=137), was_oom_kill=True) is Status.OOM_HOST
    assert status_of(exit=Exit(code=1), was_oom_kill=True) is Status.CRASHED


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("MemoryError", Status.OOM_HOST),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
            Status.OOM_HOST,
        ),
        ("what(): std::bad_alloc", Status.OOM_HOST),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", Status.OOM_GPU),
        ("ValueError: no", Status.CRASHED),
    ],
)
def test_the_last_lines_of_stderr_tell_memory_from_other_crashes(line, status):
    ending = decide(Evidence(exit=Exit(code=1), stderr_tail=["Traceback", line]))
    assert ending.status is status
    assert line in ending.reason


def test_a_word_about_memory_far_up_is_not_the_cause():
    tail = ["a warning: Cannot allocate memory", *["step"] * 20, "ValueError: no"]
    assert status_of(stderr_tail=tail) is Status.CRASHED


@pytest.mark.parametrize(
    ("exit_", "ended_by"),
    [
        (Exit(code=1), "itself"),
        (Exit(signal=signal.SIGSEGV), "itself"),
        (Exit(code=143), "outside"),
        (KILLED, "outside"),
    ],
)
def test_who_ended_a_worker(exit_, ended_by):
    assert decide(Evidence(exit=exit_)).exit.ended_by == ended_by
    assert decide(Evidence(exit=exit_, stop=STALLED)).exit.ended_by == "supervisor"


def test_a_reason_is_one_short_clean_line():
    text = "\x1b[31mred\x1b[0m\nsecond " + "x" * 1000
    reason = decide(
        Evidence(exit=Exit(code=1), result=Result(status=Status.CRASHED, reason=text))
    ).reason
    assert reason.startswith("red second x")
    assert len(reason) <= 300


def test_a_torn_result_is_named(tmp_path):
    assert read_result(tmp_path) == (None, None)
    (tmp_path / "result.json").write_text('{"status": "o')
    result, problem = read_result(tmp_path)
    assert result is None
    ending = decide(Evidence(exit=Exit(code=0), result_problem=problem))
    assert ending.status is Status.CRASHED
    assert "result.json can't be read" in ending.reason


def test_the_tail_of_stderr_is_cheap_and_tolerates_any_bytes(tmp_path):
    assert read_stderr_tail(tmp_path) == []
    (tmp_path / "stderr.log").write_bytes(b"x" * 10**6 + b"\n\n\xff\xfe last\n\n")
    assert read_stderr_tail(tmp_path)[-1].endswith("last")


@pytest.mark.parametrize(
    ("cgroup", "file", "text"),
    [
        ("0::/job\n", "job/memory.events", "low 0\noom 4\noom_kill 3\n"),
        ("0::/\n", "memory.events", "oom_kill 3\n"),
        ("5:cpu:/\n4:memory:/job\n0::/\n", "memory/job/memory.oom_control", "oom_kill 3\n"),
    ],
)
def test_memory_kills_are_counted_under_both_versions_of_cgroups(tmp_path, cgroup, file, text):
    (tmp_path / "cgroup").write_text(cgroup)
    counter = tmp_path / "fs" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(text)
    assert count_oom_kills(tmp_path / "cgroup", tmp_path / "fs") == 3
