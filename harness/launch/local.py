"""The launcher `local`: a worker is a process of this machine, in a session and group of its own.

Cold starts a fresh interpreter for each run; warm forks from a server that has imported the
libraries once (`warm`, `worker/forkserver`). A run of several processes always starts cold, through
`accelerate launch` (`parallel`). All set the same variables, and the worker applies
its own limits (`worker/confine`), so all train the same numbers. Workers end when the thread that
started them does: start them from the supervisor's main thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from harness.engines import require_engines
from harness.installed import Installed
from harness.launch import PARENT_VARIABLE, Handle, Launch
from harness.launch.ending import Stop, count_oom_kills
from harness.launch.group import ProcessGroup
from harness.launch.parallel import MODULE as PARALLEL_MODULE
from harness.launch.parallel import ParallelHandle
from harness.launch.warm import ForkServer
from harness.record import Exit
from harness.spec import RunSpec

ENTRY = "harness.worker.__main__:run_attempt"


def worker_variables(launch: Launch) -> dict[str, str]:
    """Return the environment variables that a worker gets on top of the supervisor's."""
    return {
        **thread_variables(launch.threads),
        **FIXED_VARIABLES,
        # An empty value hides every GPU; ordinals and NVML's order agree under PCI order only.
        "CUDA_VISIBLE_DEVICES": ",".join(launch.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def thread_variables(threads: int) -> dict[str, str]:
    """Return the variables that size the thread pools of OpenMP, MKL and OpenBLAS."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


FIXED_VARIABLES: Mapping[str, str] = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    # Arrow's default pool reserves a gigabyte of writable address space, which a limit on private
    # memory would count although nothing uses it.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class LocalLauncher:
    """Starts workers on this machine, in the interpreter `python`, this process's own unless named.

    `installed` is what that one has, where it is another. `command` replaces the cold worker's program (the
    attempt's folder is appended), `parallel` the one that starts several; `entry` and `preload` replace
    what a warm worker runs and what its server imports.
    """

    name = "local"

    def __init__(
        self,
        is_cold: bool,
        command: Sequence[str] | None = None,
        entry: str = ENTRY,
        preload: Sequence[str] | None = None,
        parallel: Sequence[str] | None = None,
        python: str = sys.executable,
        installed: Installed | None = None,
    ) -> None:
        self.python: str | None = python
        self._command = list(command or (python, "-m", "harness.worker"))
        self._parallel = list(parallel or (python, "-m", PARALLEL_MODULE))
        self._installed = installed
        self._handles: list[Handle] = []
        variables = {**FIXED_VARIABLES, **thread_variables(1)}
        self._server = None if is_cold else ForkServer(entry, preload, variables, python)

    def __enter__(self) -> Self:
        if self._server:
            self._server.spawn()
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.close()
        if self._server:
            self._server.close()

    @property
    def is_ready(self) -> bool:
        """Whether start() would start a worker at once; false while libraries are imported."""
        return self._server is None or self._server.is_ready

    def check(self, specs: Sequence[RunSpec], study: Path | None = None) -> None:
        """Refuse runs whose sampling engine or logger is not installed. Raises: MachineError."""
        require_engines(specs, self._installed)

    def prepare(self, attempt: Path, launch: Launch) -> Launch:
        """Return the conditions as they are: the worker applies them to itself."""
        return launch

    def start(self, attempt: Path, launch: Launch) -> Handle:
        """Start a worker on an attempt's folder, which holds `launch.json`.

        Waits for the fork server's imports if they are not done. Raises: MachineError if the
        server can't import what it should, or a process can't be started.
        """
        variables = worker_variables(launch)
        handle: Handle
        if launch.parallel:
            process = start_process(self._parallel, attempt, variables)
            handle = ParallelHandle(process, launch.parallel.processes)
        elif self._server:
            handle = self._server.start(attempt, variables, launch.threads)
        else:
            handle = ColdHandle(start_process(self._command, attempt, variables))
        self._handles.append(handle)
        return handle


def start_process(
    command: Sequence[str], attempt: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter on an attempt's folder, its output appended to the logs there."""
    environment = {**os.environ, **variables, PARENT_VARIABLE: str(os.getpid())}
    with (attempt / "stdout.log").open("ab") as out, (attempt / "stderr.log").open("ab") as error:
        return subprocess.Popen(
            [*command, str(attempt)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=error,
            env=environment,
            start_new_session=True,
        )


class ColdHandle:
    """A worker in an interpreter of its own, a child of the supervisor."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._group = ProcessGroup(process.pid)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def poll(self) -> Exit | None:
        """Return how the worker ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return Exit(code=code) if code >= 0 else Exit(signal=-code)

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
        """Kill what is left of the worker and its group, and reap it."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._group.end()
