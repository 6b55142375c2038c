"""What a worker does to itself before anything else: core, memory limit, and dying in time.

The worker applies its own limits, from `launch.json`, so that every launcher starts it in the same
way and no code runs between fork and exec (`preexec_fn` is unsafe beside threads).
"""

from __future__ import annotations

import os
import signal
import sys

from harness.errors import MachineError
from harness.launch import PARENT_VARIABLE, Launch

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def confine(launch: Launch, parent_pid: int, local_rank: int = 0) -> None:
    """Tie this process to its starter's life, pin it to its core and limit its memory.

    `parent_pid` counts where PARENT_VARIABLE is not set; `local_rank` says which of several
    processes of a run this is. Raises: MachineError if the core is not one it may use.
    """
    die_with_parent(int(os.environ.pop(PARENT_VARIABLE, parent_pid)))
    if launch.cores:
        pin({launch.cores[local_rank]})
    if launch.memory_limit_bytes is not None:
        limit_memory(launch.memory_limit_bytes)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies; end at once if it has already.

    Elsewhere than on Linux nothing happens. The kernel counts the thread that started this process
    as the parent: a supervisor must start workers from a thread that lives as long as they do.
    """
    if not sys.platform.startswith("linux"):
        return
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def set_parent_death_signal(number: int) -> None:
    """Ask the kernel for a signal when the parent dies; 0 takes the wish back."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def pin(cores: set[int]) -> None:
    """Run on these CPU cores only."""
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = os.sched_getaffinity(0)
    if not cores <= usable:
        missing = ", ".join(str(c) for c in sorted(cores - usable))
        listed = ", ".join(str(c) for c in sorted(usable))
        raise MachineError(
            f"core {missing} is not usable here (usable: {listed}); start fewer runs side by side"
        )
    os.sched_setaffinity(0, cores)


def limit_memory(limit_bytes: int) -> None:
    """Limit private writable memory; an allocation beyond it fails, here as a MemoryError.

    RLIMIT_DATA since Linux 4.7 counts private writable mappings. RLIMIT_AS would count address
    space, of which CUDA reserves terabytes without using it; RLIMIT_RSS has no effect.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
