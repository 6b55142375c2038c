"""A worker in a container: followed by a thread of the supervisor, and never waited for.

The thread copies what the container prints into the attempt's logs and sees its end, so that poll()
only reads what is known. What this leaves out: which containers there are, and why (`docker`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psutil

from harness.errors import MachineError
from harness.launch.ending import Stop
from harness.launch.engine import Engine, EngineGone, EngineRefused, LogError, State, opened
from harness.record import Container, Exit, Status
from harness.text import memory

LOOK_S = 0.2
# The engine's word on memory can follow the end of the process it killed.
OOM_WORD_S = 2.0
# An engine that restarts (an upgrade does so) is back within this, or its containers are given up.
AWAY_S = 60.0
GONE_S = 5.0  # … and sooner where its process is seen to be gone too
_KILLED = 137  # 128 + SIGKILL


class ContainerHandle:
    """A container with a worker in it. `pid` is None where the engine's machine is not this one."""

    def __init__(
        self,
        container: Container,
        attempt: Path,
        connect: Callable[[], Engine],
        pid: int | None,
        away_s: float = AWAY_S,
    ) -> None:
        self._container, self._attempt, self._connect = container, attempt, connect
        self._pid, self._away_s = pid, away_s
        self._process = _process(pid)
        self._exit: Exit | None = None
        self._verdict: Stop | None = None
        self._is_removed = False
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name=container.name)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process id, on this host, of the container's first process, which starts the worker."""
        return self._pid

    def poll(self) -> Exit | None:
        """Return how the container ended, or None while it runs."""
        return None if self._thread.is_alive() else self._exit or Exit(ended_by="outside")

    def oom_kills(self) -> int | None:
        """Nothing to count: the engine says of one container whether memory ran out (`verdict`)."""
        return None

    def verdict(self) -> Stop | None:
        """Say what the engine knows and no exit code tells."""
        return self._verdict

    def signal(self, number: int) -> None:
        """Signal the container's first process, which passes it on to the worker.

        By itself where it is a process of ours: an engine that hangs would hold up the supervisor.
        """
        if self.poll() is not None or self._signal_process(number):
            return
        with suppress(EngineGone, EngineRefused, MachineError), opened(self._connect) as engine:
            engine.signal(self._container.name, number)

    def close(self) -> None:
        """Remove the container, and wait until everything it printed is in the logs."""
        if self._is_removed:
            return
        self._is_closing.set()
        try:
            with opened(self._connect) as engine:
                engine.remove(self._container.name)
            self._is_removed = True
        except (EngineGone, EngineRefused, MachineError):
            # Nobody would follow it any more; what is left the reaper, or the next command, removes.
            self._signal_process(signal.SIGKILL)
        self._thread.join(10)

    def _signal_process(self, number: int) -> bool:
        """Signal the process without an engine; says whether it lives and may be signalled so."""
        if self._process is None or not self._is_alive():
            return False
        try:
            os.kill(self._process.pid, number)
        except OSError:
            return False
        return True

    def _follow(self) -> None:
        """Copy the container's output and wait for its end, through an engine that may go and return."""
        gone_at: float | None = None
        while not self._is_closing.is_set():
            try:
                with opened(self._connect) as engine:
                    # A full disk: the supervisor says so as soon as it writes there itself.
                    with suppress(LogError):
                        copy_logs(engine, self._container.name, self._attempt)
                    gone_at = None
                    if self._has_ended(engine):
                        return
            except (EngineGone, EngineRefused, MachineError) as error:
                gone_at = gone_at or time.monotonic()
                if self._is_given_up(time.monotonic() - gone_at, error):
                    return
            self._is_closing.wait(LOOK_S)

    def _has_ended(self, engine: Engine) -> bool:
        state = engine.state(self._container.name)
        if state is None:
            self._exit = Exit(ended_by="outside")
            self._verdict = Stop(
                Status.CRASHED, "the worker's container was removed by somebody else"
            )
            return True
        if state.is_running or (not state.was_started and state.error is None):
            return False
        self._exit = Exit(code=state.exit_code)
        self._verdict = self._judge(self._await_word(engine, state))
        return True

    def _await_word(self, engine: Engine, state: State) -> State:
        deadline = time.monotonic() + OOM_WORD_S
        while state.exit_code == _KILLED and not state.was_oom_killed:
            if time.monotonic() > deadline or self._is_closing.wait(LOOK_S):
                break
            state = engine.state(self._container.name) or state
        return state

    def _judge(self, state: State) -> Stop | None:
        limit = self._container.memory_limit_bytes
        if state.was_oom_killed and state.exit_code != 0:
            where = (
                f"its limit of {memory(limit)}" if limit else "the memory that its host had left"
            )
            return Stop(Status.OOM_HOST, f"the worker's container ran out of {where}")
        if state.error and not state.was_started:
            return Stop(Status.CRASHED, f"the container could not start: {state.error}")
        return None

    def _is_given_up(self, away_s: float, error: Exception) -> bool:
        """Whether a container whose engine is away is over: its process, or our patience, ended."""
        patience_s = self._away_s if self._process is None else GONE_S
        if self._is_alive() or away_s < patience_s:
            return False
        self._exit = Exit(ended_by="outside")
        self._verdict = Stop(
            Status.CRASHED, f"the container engine went away while the worker ran ({error})"
        )
        return True

    def _is_alive(self) -> bool:
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def copy_logs(engine: Engine, container: str, attempt: Path, *, follows: bool = True) -> None:
    """Write all that a container prints into an attempt's logs, from its start on.

    Over what is there already, which is the same: an engine that has lost it takes nothing away.
    Raises: LogError if they can't be written.
    """
    with _log(attempt / "stdout.log") as out, _log(attempt / "stderr.log") as error:
        engine.read(container, out, error, follows=follows)


@contextmanager
def _log(path: Path) -> Iterator[BinaryIO]:
    try:
        path.touch()
        file = path.open("r+b")
    except OSError as error:
        raise LogError(str(error)) from None
    with file:
        yield file


def _process(pid: int | None) -> psutil.Process | None:
    try:
        return psutil.Process(pid) if pid is not None else None
    except psutil.NoSuchProcess:
        return None
