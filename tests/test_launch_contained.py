"""A worker in a container is followed to its end, whatever becomes of the container or its engine."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.launch.contained import ContainerHandle
from harness.record import Container, Exit, Status
from tests.fake_engine import RUNNING, FakeEngine, ended
from tests.test_launch_local import is_gone
from tests.waiting import wait_until

NAME = "harness-x-1"
LIMIT = 2**30
CONTAINER = Container(
    name=NAME, engine="docker 0.0", image="i", image_id="sha256:aa", user="0:0",
    memory_limit_bytes=LIMIT,
)  # fmt: skip


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(containers={NAME: RUNNING}, prints=b"out\n", complains=b"err\n")


@contextmanager
def followed(engine: FakeEngine, attempt: Path, **changes) -> Iterator[ContainerHandle]:
    handle = ContainerHandle(CONTAINER, attempt, engine.connect, **{"pid": None, **changes})
    try:
        yield handle
    finally:
        handle.close()


def end_of(engine: FakeEngine, attempt: Path, **changes) -> tuple[Exit | None, str, str]:
    """Follow to the end: the exit, and the launcher's verdict if it has one."""
    with followed(engine, attempt, **changes) as handle:
        wait_until(handle.poll)
        verdict = handle.verdict()
        return (
            handle.poll(),
            verdict.status if verdict else "",
            verdict.reason if verdict else "",
        )


def test_it_runs_until_the_engine_says_that_it_does_not(engine, tmp_path):
    with followed(engine, tmp_path) as handle:
        assert handle.poll() is None
        engine.containers[NAME] = ended(0)
        wait_until(handle.poll)
        assert handle.poll() == Exit(code=0)
        assert handle.verdict() is None
        assert (tmp_path / "stdout.log").read_text() == "out\n"
        assert (tmp_path / "stderr.log").read_text() == "err\n"
    assert engine.removed == [NAME]


@pytest.mark.parametrize("code", [1, 137, 143])
def test_an_exit_code_is_passed_on_as_it_is(engine, tmp_path, code, monkeypatch):
    monkeypatch.setattr("harness.launch.contained.OOM_WORD_S", 0.1)
    engine.containers[NAME] = ended(code)
    assert end_of(engine, tmp_path) == (Exit(code=code), "", "")


def test_out_of_memory_is_the_engine_s_word_and_names_the_limit(engine, tmp_path):
    engine.containers[NAME] = ended(137, was_oom_killed=True)
    exit_, status, reason = end_of(engine, tmp_path)
    assert (exit_, status) == (Exit(code=137), Status.OOM_HOST)
    assert reason == "the worker's container ran out of its limit of 1.00 GiB"


def test_the_engine_s_word_on_memory_may_come_late(engine, tmp_path):
    engine.containers[NAME] = ended(137)
    with followed(engine, tmp_path) as handle:
        assert handle.poll() is None
        engine.containers[NAME] = ended(137, was_oom_killed=True)
        wait_until(handle.poll)
        verdict = handle.verdict()
    assert verdict is not None
    assert verdict.status is Status.OOM_HOST


def test_a_child_killed_for_memory_is_no_verdict_on_a_worker_that_ended_well(engine, tmp_path):
    engine.containers[NAME] = ended(0, was_oom_killed=True)
    assert end_of(engine, tmp_path) == (Exit(code=0), "", "")


def test_a_container_that_somebody_removed_has_crashed(engine, tmp_path):
    del engine.containers[NAME]
    exit_, status, reason = end_of(engine, tmp_path)
    assert (exit_, status) == (Exit(ended_by="outside"), Status.CRASHED)
    assert "removed by somebody else" in reason


def test_a_program_that_could_not_start_is_told_in_the_engine_s_words(engine, tmp_path):
    engine.containers[NAME] = replace(ended(127), was_started=False, error="python: not found")
    _, status, reason = end_of(engine, tmp_path)
    assert (status, reason) == (
        Status.CRASHED,
        "the container could not start: python: not found",
    )


def test_a_signal_goes_through_the_engine_and_an_ended_worker_gets_none(engine, tmp_path):
    with followed(engine, tmp_path) as handle:
        handle.signal(signal.SIGTERM)
        assert engine.signals == [(NAME, signal.SIGTERM)]
        engine.containers[NAME] = ended(0)
        wait_until(handle.poll)
        handle.signal(signal.SIGKILL)
    assert engine.signals == [(NAME, signal.SIGTERM)]


def test_without_an_engine_a_process_is_followed_and_signalled_by_itself(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setattr("harness.launch.contained.GONE_S", 0.2)
    with subprocess.Popen(["sleep", "60"]) as process:
        engine.containers[NAME] = replace(RUNNING, pid=process.pid)
        engine.is_away = True
        with followed(engine, tmp_path, pid=process.pid, away_s=0.1) as handle:
            with pytest.raises(AssertionError):
                wait_until(handle.poll, 0.8)  # the process lives: it is not given up
            handle.signal(signal.SIGTERM)
            process.wait(10)
            wait_until(handle.poll)
            verdict = handle.verdict()
        assert is_gone(process.pid)
    assert verdict is not None
    assert verdict.status is Status.CRASHED
    assert "the container engine went away while the worker ran" in verdict.reason


def test_closing_without_an_engine_ends_a_process_that_nobody_would_follow(engine, tmp_path):
    with subprocess.Popen(["sleep", "60"]) as process:
        engine.is_away = True
        with followed(engine, tmp_path, pid=process.pid):
            pass
        assert process.wait(10) == -signal.SIGKILL


def test_a_process_of_ours_is_signalled_without_asking_the_engine(engine, tmp_path):
    with subprocess.Popen(["sleep", "60"]) as process:
        with followed(engine, tmp_path, pid=process.pid) as handle:
            handle.signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert engine.signals == []


def test_closed_once_it_is_closed(engine, tmp_path):
    with followed(engine, tmp_path) as handle:
        handle.close()
        handle.close()
    assert engine.removed == [NAME]


def test_logs_that_can_not_be_written_do_not_hide_the_end(engine, tmp_path):
    (tmp_path / "stdout.log").mkdir()
    engine.containers[NAME] = ended(3)
    assert end_of(engine, tmp_path) == (Exit(code=3), "", "")


def test_what_was_printed_stays_when_the_engine_has_lost_it(engine, tmp_path):
    (tmp_path / "stdout.log").write_text("out\nand more\n")
    engine.containers[NAME] = ended(0)
    end_of(engine, tmp_path)
    assert (tmp_path / "stdout.log").read_text() == "out\nand more\n"


def test_an_engine_elsewhere_has_patience_and_then_is_given_up(engine, tmp_path):
    engine.is_away = True
    exit_, status, _ = end_of(engine, tmp_path, away_s=0.3)
    assert (exit_, status) == (Exit(ended_by="outside"), Status.CRASHED)


def test_an_engine_that_comes_back_in_time_goes_on_as_if_nothing_was(engine, tmp_path):
    engine.is_away = True
    with followed(engine, tmp_path, away_s=30.0) as handle:
        assert handle.poll() is None
        engine.containers[NAME] = ended(3)
        engine.is_away = False
        wait_until(handle.poll)
        assert (handle.poll(), handle.verdict()) == (Exit(code=3), None)


def test_closing_ends_the_following_of_one_that_runs_on(engine, tmp_path):
    with followed(engine, tmp_path) as handle:
        assert handle.poll() is None
    assert handle.poll() is not None
    assert engine.containers == {}
    handle.close()
