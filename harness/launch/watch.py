"""Watching a worker without blocking: time limits, stalls, stopping it, and saying how it ended.

The supervisor calls `poll()` on each of its workers a few times a second; nothing here sleeps. The
clock is passed in, so tests turn hours into one call.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.files import HEARTBEAT
from harness.launch import Handle
from harness.launch.ending import (
    Ending,
    Evidence,
    Stop,
    decide,
    read_result,
    read_stderr_tail,
)
from harness.record import Exit, Status

# Any growth of these is progress; the heartbeat is for work that writes neither steps nor phases.
PROGRESS_FILES = ("steps.jsonl", "phases.jsonl", HEARTBEAT)
# A process that SIGKILL does not end sits in the kernel (a dead disk or driver): report it.
UNKILLABLE_S = 30.0
_OOM_COUNT_S = 1.0


@dataclass(frozen=True)
class Limits:
    """How long a worker may run, be silent, and take to leave after SIGTERM, in seconds."""

    timeout_s: float
    stall_s: float
    grace_s: float = 10.0


class Watched:
    """A started worker under limits. Always `close()` it, or use it as a context manager."""

    def __init__(
        self,
        handle: Handle,
        attempt: Path,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        oom_kills: Callable[[], int | None] | None = None,
    ) -> None:
        self.handle = handle
        self._attempt, self._limits, self._clock = attempt, limits, clock
        self._oom_kills = oom_kills or handle.oom_kills
        self._started_at = self._progressed_at = self._oom_counted_at = clock()
        self._oom_counts = (self._oom_kills(),) * 2  # a second ago or more, and since
        self._progress = self._read_progress()
        self._stop: Stop | None = None
        self._stopped_at = 0.0
        self._is_killed = False
        self._ending: Ending | None = None

    def poll(self) -> Ending | None:
        """Return how the attempt ended, or None while it runs; applies the limits."""
        if self._ending is not None:
            return self._ending
        ended = self.handle.poll()
        now = self._clock()
        if ended is not None:
            return self._conclude(ended)
        if self._stop is not None:
            return self._press(now)
        self._count_oom_kills(now)
        self._check_limits(now)
        return None

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Begin to end the worker: SIGTERM now, SIGKILL after the grace time. Keep polling."""
        self.end(Stop(Status.CANCELLED, reason))

    def end(self, stop: Stop) -> None:
        """Begin to end the worker for a reason; the first counts. Keep polling."""
        self._begin_stop(stop)

    def kill(self) -> None:
        """Cut the grace time short: SIGKILL now. Keep polling."""
        self.cancel()
        if not self._is_killed:
            self._is_killed = True
            self.handle.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill and reap whatever the worker left in its process group. Safe to call twice."""
        self.handle.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_limits(self, now: float) -> None:
        limits = self._limits
        progress = self._read_progress()
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
        if now - self._started_at > limits.timeout_s:
            self._begin_stop(
                Stop(Status.TIMEOUT, f"still running after its {limits.timeout_s:g} s")
            )
        elif now - self._progressed_at > limits.stall_s:
            self._begin_stop(
                Stop(Status.STALLED, f"no step and no phase ended for {limits.stall_s:g} s")
            )

    def _begin_stop(self, stop: Stop) -> None:
        if self._stop is None and self._ending is None:
            self._stop, self._stopped_at = stop, self._clock()
            self.handle.signal(signal.SIGTERM)

    def _press(self, now: float) -> Ending | None:
        waited_s = now - self._stopped_at
        if waited_s > self._limits.grace_s and not self._is_killed:
            self._is_killed = True
            self.handle.signal(signal.SIGKILL)
        if waited_s > self._limits.grace_s + UNKILLABLE_S:
            return self._conclude(Exit())
        return None

    def _conclude(self, ended: Exit) -> Ending:
        result, problem = read_result(self._attempt)
        before, count = self._oom_counts[0], self._oom_kills()
        self._ending = decide(
            Evidence(
                exit=ended,
                result=result,
                result_problem=problem,
                stderr_tail=read_stderr_tail(self._attempt),
                stop=self._stop,
                verdict=self.handle.verdict(),
                was_oom_kill=None not in (count, before) and count != before,
            )
        )
        return self._ending

    def _count_oom_kills(self, now: float) -> None:
        # Counted while the worker lives, so that only a kill around its end counts as its own. The
        # last count but one is compared: a worker being killed may still look alive.
        if now - self._oom_counted_at >= _OOM_COUNT_S:
            self._oom_counted_at = now
            self._oom_counts = (self._oom_counts[1], self._oom_kills())

    def _read_progress(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_fingerprint(self._attempt / name) for name in PROGRESS_FILES)


def _fingerprint(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
