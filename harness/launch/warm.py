"""The supervisor's end of the fork server: start it, ask it for workers, hear of their ends.

Not safe for several threads: one supervisor loop talks to one server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.errors import MachineError
from harness.launch import PARENT_VARIABLE
from harness.launch.ending import Stop, count_oom_kills
from harness.launch.group import ProcessGroup
from harness.measure.container import Ram
from harness.record import Exit
from harness.text import clean, memory

# Importing takes 10 s; on a cold network disk it has been seen to take minutes.
READY_S = 300.0
ANSWER_S = 30.0
# With this set torch asks NVML, not CUDA, whether there is a GPU: asking CUDA starts its driver,
# and a child forked after that can't use it. The children get their own value back.
NO_CUDA_START = "PYTORCH_NVML_BASED_CUDA_CHECK"


class ForkServer:
    """A process that forks warm workers."""

    def __init__(
        self, entry: str, preload: Sequence[str] | None, variables: Mapping[str, str]
    ) -> None:
        self._command = [sys.executable, "-m", "harness.worker.forkserver", "--entry", entry]
        self._command += ["--preload", ",".join(preload)] if preload is not None else []
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = 0  # start requests made, over all servers
        self._numbers_lost = 0  # of those, the ones that earlier servers took
        self._exits: dict[int, Exit] = {}  # by start number

    def spawn(self) -> None:
        """Start the server; it imports in the background."""
        ours, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, "--control", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env={
                    **os.environ,
                    **self._variables,
                    NO_CUDA_START: "1",
                    PARENT_VARIABLE: str(os.getpid()),
                },
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._late_at = time.monotonic() + READY_S
        self._socket = ours
        self._received = b""
        self._state: dict[str, Any] | None = None
        self._is_gone = False
        self._answers: dict[int, dict[str, Any]] = {}  # by start number
        self._running: dict[int, int] = {}  # pid → start number
        self._numbers_lost = self._numbers

    @property
    def is_ready(self) -> bool:
        """Whether start() would answer at once: with a worker, or with why there can be none."""
        self._listen()
        return self._state is not None or self._is_gone or time.monotonic() > self._late_at

    def start(self, attempt: Path, variables: Mapping[str, str], threads: int) -> WarmHandle:
        """Fork a worker. Raises: MachineError."""
        if self._process is None or (self._is_gone and self._state is not None):
            self.close()
            self.spawn()  # it had served before it was killed: once more
        self._wait_until_ready()
        self._numbers += 1
        number = self._numbers
        request = {
            "start": number,
            "attempt": str(attempt.absolute()),
            "env": {**variables, NO_CUDA_START: os.environ.get(NO_CUDA_START)},
            "threads": threads,
        }
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self._is_gone = True
        deadline = time.monotonic() + ANSWER_S
        while number not in self._answers:
            self._listen(0.5)
            if self._is_gone or time.monotonic() > deadline:
                raise MachineError(f"the fork server did not start a worker{self._last_words()}")
        answer = self._answers.pop(number)
        if "failed" in answer:
            raise MachineError(f"the fork server could not start a worker: {answer['reason']}")
        return WarmHandle(self, number, int(answer["pid"]))

    def exit_of(self, number: int) -> Exit | None:
        """Return how the worker of a start request ended, or None while it runs."""
        self._listen()
        is_lost = self._is_gone or number <= self._numbers_lost
        if number not in self._exits and is_lost:
            # Its workers asked the kernel to die with it.
            return Exit(signal=signal.SIGKILL, ended_by="outside")
        return self._exits.get(number)

    def close(self) -> None:
        """End the server, and with it every worker that it has left. Safe to call twice."""
        if self._process is None:
            return
        self._socket.close()  # the server then kills its workers' groups and ends
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._is_gone = True
        self._process = None

    def _wait_until_ready(self) -> None:
        while self._state is None:
            self._listen(0.5)
            if self._is_gone:
                raise MachineError(
                    f"the fork server ended while importing{self._killed()}{self._last_words()}"
                )
            if time.monotonic() > self._late_at:
                raise MachineError(
                    f"the fork server was not ready after {READY_S:.0f} s; try --cold"
                )
        if self._state["has_started_cuda"]:
            raise MachineError(
                "a library started CUDA while it was imported, so that forked workers could not "
                "use the GPU; run with --cold"
            )

    def _listen(self, timeout_s: float = 0.0) -> None:
        """Take in what the server has said, waiting at most `timeout_s` for the first word."""
        while not self._is_gone and self._process is not None:
            self._socket.settimeout(timeout_s)
            try:
                received = self._socket.recv(65536)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionResetError:
                received = b""
            self._is_gone = not received
            *lines, self._received = (self._received + received).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            timeout_s = 0.0

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._state = message["ready"]
        elif "exited" in message:
            number = self._running.pop(message["exited"], None)
            if number is not None:
                self._exits[number] = Exit(code=message["code"], signal=message["signal"])
        else:
            number = int(message["started"] if "started" in message else message["failed"])
            self._answers[number] = message
            if "started" in message:
                self._running[message["pid"]] = number

    def _killed(self) -> str:
        """Words on a server that something else ended: most often that is the kernel, for memory."""
        if self._process is None:
            return ""
        try:
            was_killed = self._process.wait(5) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return ""
        room = memory(Ram.here().total_bytes)
        hint = f" (killed, as the kernel does where memory runs out; there are {room} here in all)"
        return hint if was_killed else ""

    def _last_words(self) -> str:
        # pread: a seek would move the server's own place in the file.
        text = os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")
        lines = text.strip().splitlines()[-8:]
        said = "".join(f"\n    {clean(line, 300)}" for line in lines)
        return (f"; it said:{said}" if said else "") + "\nRun `harness doctor`, or try --cold."


class WarmHandle:
    """A worker forked by the server, whose child it is."""

    def __init__(self, server: ForkServer, number: int, pid: int) -> None:
        self._server, self._number = server, number
        self._pid = pid
        self._group = ProcessGroup(pid)
        self._exit: Exit | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._pid

    def poll(self) -> Exit | None:
        """Return how the worker ended, or None while it runs."""
        if self._exit is None:
            self._exit = self._server.exit_of(self._number)
        return self._exit

    def signal(self, number: int) -> None:
        """Send a signal to the worker's process group."""
        if self.poll() is None:
            self._group.signal(number)

    def oom_kills(self) -> int | None:
        """Count the kernel's memory kills in this supervisor's cgroup, which is the worker's too."""
        return count_oom_kills()

    def verdict(self) -> Stop | None:
        """Nothing: a process's exit tells all there is."""
        return None

    def close(self) -> None:
        """Kill what is left of the worker and its group; the server reaps it."""
        self._group.end()
        deadline = time.monotonic() + 1.0
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
