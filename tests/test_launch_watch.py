"""Watching: limits, stalls and stops, on a hand-moved clock and a handle without a process."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

import pytest

from harness.launch.ending import Stop
from harness.launch.watch import Limits, Watched
from harness.record import Exit, Result, Status


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeHandle:
    pid: int | None = None
    ended: Exit | None = None
    signals: list[int] = field(default_factory=list)
    is_closed: bool = False
    known: Stop | None = None

    def poll(self) -> Exit | None:
        return self.ended

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def oom_kills(self) -> int | None:
        return 0

    def verdict(self) -> Stop | None:
        return self.known

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handle() -> FakeHandle:
    return FakeHandle()


@pytest.fixture
def watched(tmp_path, clock, handle) -> Watched:
    limits = Limits(timeout_s=3600, stall_s=600, grace_s=10)
    return Watched(handle, tmp_path, limits, clock, oom_kills=lambda: 0)


def test_nothing_happens_to_a_worker_that_steps(tmp_path, clock, handle, watched):
    for step in range(6):
        clock.now += 590
        with (tmp_path / "steps.jsonl").open("a") as file:
            file.write(f"{step}\n")
        assert watched.poll() is None
    assert handle.signals == []


@pytest.mark.parametrize("name", ["steps.jsonl", "phases.jsonl", "heartbeat"])
def test_growth_of_any_progress_file_postpones_the_stall(tmp_path, clock, handle, watched, name):
    clock.now += 599
    (tmp_path / name).write_text("x")
    watched.poll()
    clock.now += 599
    watched.poll()
    assert handle.signals == []
    clock.now += 2
    watched.poll()
    assert handle.signals == [signal.SIGTERM]


def test_the_ladder_of_a_stall(clock, handle, watched):
    clock.now += 601
    assert watched.poll() is None
    assert watched.poll() is None
    clock.now += 9.9
    watched.poll()
    assert handle.signals == [signal.SIGTERM]
    clock.now += 0.2
    watched.poll()
    watched.poll()
    assert handle.signals == [signal.SIGTERM, signal.SIGKILL]
    handle.ended = Exit(signal=signal.SIGKILL)
    ending = watched.poll()
    assert (ending.status, ending.exit.ended_by) == (Status.STALLED, "supervisor")
    assert watched.poll() is ending


def test_a_process_that_sigkill_does_not_end_is_given_up(clock, handle, watched):
    watched.cancel()
    clock.now += 41
    ending = watched.poll()
    assert ending.status is Status.CANCELLED
    assert ending.exit == Exit(ended_by="supervisor")


def test_the_first_reason_stands(clock, handle, watched):
    clock.now += 601
    watched.poll()
    watched.cancel()
    handle.ended = Exit(code=143)
    assert watched.poll().status is Status.STALLED


def test_kill_does_not_wait_for_the_grace_time(handle, watched):
    watched.cancel()
    watched.kill()
    watched.kill()
    assert handle.signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_worker_that_had_finished_is_ok_although_it_was_cancelled(tmp_path, handle, watched):
    (tmp_path / "result.json").write_text(Result(status=Status.OK).model_dump_json())
    watched.cancel()
    handle.ended = Exit(signal=signal.SIGTERM)
    assert watched.poll().status is Status.OK


def test_a_memory_kill_counts_when_the_count_rose_as_the_worker_ended(tmp_path, clock, handle):
    kills = 5
    watched = Watched(handle, tmp_path, Limits(3600, 600), clock, oom_kills=lambda: kills)
    for _ in range(3):
        clock.now += 2
        watched.poll()
    kills += 1
    handle.ended = Exit(signal=signal.SIGKILL)
    assert watched.poll().status is Status.OOM_HOST


def test_a_memory_kill_of_another_time_does_not_count(tmp_path, clock, handle):
    kills = 5
    watched = Watched(handle, tmp_path, Limits(3600, 600), clock, oom_kills=lambda: kills)
    kills += 1
    for _ in range(3):
        clock.now += 2
        watched.poll()
    handle.ended = Exit(signal=signal.SIGKILL)
    assert watched.poll().status is Status.CRASHED


def test_leaving_closes_the_handle(handle, watched):
    with watched:
        pass
    assert handle.is_closed
