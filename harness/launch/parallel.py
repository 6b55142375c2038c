"""A run of several processes: what `accelerate launch` is told, and the hold on all of them.

The started process is `harness.worker.distributed`, which calls accelerate's launcher in its own
interpreter and so hears which process failed first. torch's launcher gives every rank a session of
its own, out of reach of the worker's process group: the ranks ask the kernel to die with their
launcher, and whatever a rank started is ended here by the rank's own group. The launcher imports
torch, so the RSS of the process tree counts its 0.2 GB too.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil

from harness.errors import MachineError
from harness.launch import Launch
from harness.launch.ending import Stop, count_oom_kills
from harness.launch.group import ProcessGroup
from harness.record import Exit
from harness.settings import Strategy
from harness.spec import RunSpec

MODULE = "harness.worker.distributed"
_SHIPPED = (
    Path(__file__).parent.parent / "benchmarks",  # an installed wheel
    Path(__file__).parent.parent.parent / "benchmarks",  # a checkout
)


def config_file(strategy: Strategy) -> Path:
    """Return the shipped file that tells accelerate how to run a strategy.

    Raises: MachineError if the installation lacks it.
    """
    for folder in _SHIPPED:
        file = folder / "accelerate" / f"{strategy}.yaml"
        if file.is_file():
            return file
    raise MachineError(
        f"benchmarks/accelerate/{strategy}.yaml is missing from this installation; reinstall it"
    )


def launch_arguments(spec: RunSpec, launch: Launch, attempt: Path, module: str) -> list[str]:
    """Return the arguments of `accelerate launch` that run a module on an attempt's folder."""
    if launch.parallel is None:
        raise ValueError("the run is one process")
    return [
        *("--config_file", str(config_file(launch.parallel.strategy))),
        *("--num_processes", str(launch.parallel.processes)),
        *("--num_machines", "1"),
        *("--main_process_ip", "127.0.0.1"),
        *("--main_process_port", "0"),  # a free one
        *("--mixed_precision", mixed_precision(spec)),
        *("-m", module, str(attempt)),
    ]


def mixed_precision(spec: RunSpec) -> str:
    """Return accelerate's word for a run's autocast; TRL's own default is bf16 unless fp16 is set."""
    if spec.trainer.get("fp16"):
        return "fp16"
    return "no" if spec.trainer.get("bf16") is False else "bf16"


class ParallelHandle:
    """A launcher process with its ranks, a child of the supervisor."""

    def __init__(self, process: subprocess.Popen[bytes], processes: int) -> None:
        self._process = process
        self._processes = processes
        self._group = ProcessGroup(process.pid)
        self._ranks: dict[int, ProcessGroup] = {}  # pid → the group it leads

    @property
    def pid(self) -> int:
        """The launcher's process id."""
        return self._process.pid

    def poll(self) -> Exit | None:
        """Return how the launcher ended, or None while it runs."""
        if len(self._ranks) < self._processes:
            self._note_ranks()
        code = self._process.poll()
        if code is None:
            return None
        return Exit(code=code) if code >= 0 else Exit(signal=-code)

    def signal(self, number: int) -> None:
        """Send a signal to the launcher, which passes it to its ranks, or whose death they share."""
        if self.poll() is None:
            self._group.signal(number)

    def oom_kills(self) -> int | None:
        """Count the kernel's memory kills in this supervisor's cgroup, which is the worker's too."""
        return count_oom_kills()

    def verdict(self) -> Stop | None:
        """Nothing: a process's exit tells all there is."""
        return None

    def close(self) -> None:
        """Kill what is left of the launcher, its ranks and what they started, and reap it."""
        if self.poll() is None:
            self._group.signal(signal.SIGKILL)
        self._process.wait()
        for group in (self._group, *self._ranks.values()):
            group.end()

    def _note_ranks(self) -> None:
        """Remember the ranks while the launcher lives: afterwards nothing would lead to them."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.Error:
            return
        for child in children:
            if child.pid not in self._ranks and _leads_a_session(child.pid):
                self._ranks[child.pid] = ProcessGroup(child.pid)


def _leads_a_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False
