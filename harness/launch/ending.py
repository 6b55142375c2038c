"""How an attempt ended: from what is left of it, to a status and a sentence.

The order of evidence: what training itself came to (a valid `result.json` with an outcome), then
why the supervisor ended it, then the rest of what the worker said, then its exit. Pure but for the
readers at the end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.record import OUTCOMES, Exit, Result, Status
from harness.text import clean

REASON_LENGTH = 300
_TAIL_BYTES = 16384
_LAST_LINES = 10  # further up, a word about memory may be a warning or a model's completion
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HOST_MEMORY_LINES = (
    "MemoryError",
    "std::bad_alloc",
    "can't allocate memory",
    "Cannot allocate memory",
    "Unable to allocate",
    "not enough memory: you tried to allocate",
)
_GPU_MEMORY_LINES = ("CUDA out of memory", "CUDA error: out of memory", "torch.OutOfMemoryError")


@dataclass(frozen=True)
class Stop:
    """A status and why, from who knows better than an exit code: the supervisor, or a launcher."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What an ended worker leaves behind."""

    exit: Exit
    result: Result | None = None
    result_problem: str | None = None  # a result.json that is there but can't be read
    stderr_tail: Sequence[str] = ()
    stop: Stop | None = None  # why the supervisor ended it
    verdict: Stop | None = None  # what the launcher is sure of
    was_oom_kill: bool = False  # the kernel's count of memory kills rose as the worker ended


@dataclass(frozen=True)
class Ending:
    """An attempt's status, why in one sentence, and how its process ended."""

    status: Status
    reason: str | None
    exit: Exit
    result: Result | None


def decide(evidence: Evidence) -> Ending:
    """Judge how an attempt ended."""
    status, reason = _judge(evidence)
    ended_by = evidence.exit.ended_by
    if evidence.stop is not None:
        ended_by = "supervisor"
    elif signal_of(evidence.exit) in _FROM_OUTSIDE:
        ended_by = "outside"
    return Ending(
        status=status,
        reason=one_line(reason) if reason else None,
        exit=evidence.exit.model_copy(update={"ended_by": ended_by}),
        result=evidence.result,
    )


def _judge(evidence: Evidence) -> tuple[Status, str | None]:
    result, stop, verdict = evidence.result, evidence.stop, evidence.verdict
    if result is not None and result.status in OUTCOMES:
        # The result is the worker's last word: an accident after it changes nothing.
        return result.status, result.reason
    if stop is not None and not _was_waiting(stop, verdict):
        return stop.status, stop.reason
    if verdict is not None:
        return verdict.status, verdict.reason
    if result is not None:
        return result.status, result.reason
    return _judge_exit(evidence)


def _was_waiting(stop: Stop, verdict: Stop | None) -> bool:
    """Whether a limit only ended a worker that waited for a process of its own, killed for memory."""
    is_limit = stop.status in (Status.TIMEOUT, Status.STALLED)
    return is_limit and verdict is not None and verdict.status is Status.OOM_HOST


def _judge_exit(evidence: Evidence) -> tuple[Status, str]:
    last = evidence.stderr_tail[-1] if evidence.stderr_tail else None
    how = describe_exit(evidence.exit)
    if signal_of(evidence.exit) == signal.SIGKILL and evidence.was_oom_kill:
        return Status.OOM_HOST, "the kernel killed the worker because memory ran out"
    gpu_line = _find(evidence.stderr_tail, _GPU_MEMORY_LINES)
    if gpu_line:
        return Status.OOM_GPU, gpu_line
    memory_line = _find(evidence.stderr_tail, _HOST_MEMORY_LINES)
    if memory_line:
        return Status.OOM_HOST, f"the worker ran out of memory: {memory_line}"
    if evidence.result_problem:
        return Status.CRASHED, f"{how}; {evidence.result_problem}"
    if last is None:
        return Status.CRASHED, f"{how} without a result and without a word on stderr"
    return Status.CRASHED, f"{how}: {last}"


def describe_exit(ended: Exit) -> str:
    """Say how a process ended: 'the worker ended with exit code 3'."""
    number = signal_of(ended)
    if number is not None:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"the worker was ended by {name}"
    if ended.code is None:
        return "the worker did not end, even by SIGKILL"
    return f"the worker ended with exit code {ended.code}"


def signal_of(ended: Exit) -> int | None:
    """Return the signal that ended a process, also one told as exit code 128 + signal."""
    if ended.signal is not None:
        return ended.signal
    told = (ended.code or 0) - 128
    return told if told in _FROM_OUTSIDE else None


def one_line(text: str) -> str:
    """Make a reason of a text: one line, no escape codes, no paths, at most 300 characters."""
    return clean(" ".join(clean(text, 4 * REASON_LENGTH).split()), REASON_LENGTH)


def _find(lines: Sequence[str], signs: Iterable[str]) -> str | None:
    signs = tuple(signs)
    last = reversed(lines[-_LAST_LINES:])
    return next((line for line in last if any(sign in line for sign in signs)), None)


def read_result(attempt: Path) -> tuple[Result | None, str | None]:
    """Read an attempt's `result.json`; return it or what is wrong with it, or neither."""
    try:
        return Result.model_validate_json((attempt / "result.json").read_bytes()), None
    except FileNotFoundError:
        return None, None
    except (OSError, ValidationError) as error:
        kind = type(error).__name__
        return None, f"result.json can't be read ({kind}), expected the worker's last word"


def read_stderr_tail(attempt: Path) -> list[str]:
    """Return the last lines of an attempt's stderr that are not empty."""
    try:
        with (attempt / "stderr.log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = (one_line(line) for line in text.splitlines())
    return [line for line in lines if line]


def count_oom_kills(
    cgroups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return how often the kernel killed for memory in this process's cgroup, None if unknown.

    Outside a memory cgroup the machine's own count serves.
    """
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if controllers == "":
            candidates = (root / relative / "memory.events", root / "memory.events")
        elif "memory" in controllers.split(","):
            mount = root / "memory"
            candidates = (mount / relative / "memory.oom_control", mount / "memory.oom_control")
        else:
            continue
        for file in candidates:
            count = _counter(file)
            if count is not None:
                return count
    return _counter(Path("/proc/vmstat"))


def _counter(file: Path) -> int | None:
    try:
        rows = [row.split() for row in file.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == "oom_kill"), None)
