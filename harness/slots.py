"""Where runs execute: a pinned CPU core each, or a GPU each, and nobody else's.

A run of several processes takes a place for each. Two studies on one core or GPU would disturb each
other's times and memory, so every place that is in use holds a machine-wide lock (the kernel's,
released however its holder dies). Free places come first; a place that another study holds is used
only where there is no other, and that is said. Containers have temporary folders of their own: they
see each other's locks where they share the folder that HARNESS_LOCKS names.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from harness.errors import ConfigError, MachineError
from harness.measure.container import Ram
from harness.measure.gpus import GpuList, list_gpus, visible_gpus
from harness.measure.hidden import explain_none
from harness.spec import Matrix, RunSpec

MEMORY_PER_WORKER = 4 * 2**30  # bytes; a worker of the CPU matrices stays below it
Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Slot:
    """A place for one run."""

    core: int | None
    gpu: str | None

    @property
    def name(self) -> str:
        """How messages and the lock call it."""
        return f"GPU {self.gpu}" if self.gpu else f"core {self.core}"


def find_slots(
    matrix: Matrix, device: Device, found: GpuList | None = None, named: str | None = None
) -> tuple[Slot, ...]:
    """List every place of this machine where a matrix could run; `found` if its GPUs are listed already.

    `named` is what a command is given for the matrix; its name if None. Raises: MachineError if a GPU was
    asked for and there is none.
    """
    wanted = matrix.device if device == "auto" else device
    if wanted != "cpu":
        found = found or list_gpus()
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible_gpus(found.gpus, devices)
        if gpus:
            return tuple(Slot(None, g.uuid) for g in gpus)
        if wanted == "gpu":
            named = named or matrix.name
            raise MachineError(
                f"matrix {matrix.name!r} needs a CUDA GPU and none can be used here "
                f"({explain_none(found, devices)}; {_machine()}). `harness plan --matrix {named}` says "
                f"what it needs; here run `harness bench --matrix {named} --rehearse` to see that every "
                "arm runs, or `harness bench --matrix cpu`"
            )
    return tuple(Slot(core, None) for core in sorted(os.sched_getaffinity(0)))


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"this machine has {len(os.sched_getaffinity(0))} CPU cores and {memory:.0f} GiB of memory"
    )


def processes(spec: RunSpec) -> int:
    """How many places a run takes."""
    return spec.parallel.processes if spec.parallel else 1


def refuse_unfit(specs: Sequence[RunSpec], slots: Sequence[Slot]) -> None:
    """Refuse runs of several processes that these places can't hold or shard.

    Raises: MachineError listing every such arm.
    """
    has_gpus = bool(slots[0].gpu)
    what = "GPUs" if has_gpus else "usable CPU cores"
    problems = list[str]()
    for spec in {(s.pair, s.arm): s for s in specs}.values():
        asked = spec.parallel
        if asked is None:
            continue
        arm = f"{spec.pair}.{spec.arm}"
        if asked.processes > len(slots):
            problems.append(
                f"{arm} needs {asked.processes} {what}, and {len(slots)} can be used here"
            )
        if any(slot.gpu and slot.gpu.startswith("MIG-") for slot in slots):
            problems.append(
                f"{arm} asks for {asked.processes} GPUs, and CUDA shows a run one MIG slice at most: run "
                "it on whole GPUs"
            )
        if asked.strategy != "ddp" and not has_gpus:
            problems.append(
                f"{arm} asks for {asked.strategy}, but accelerate runs plain DDP on a CPU: run it on "
                f"{asked.processes} GPUs, or ask for strategy ddp"
            )
        elif asked.strategy == "zero3" and find_spec("deepspeed") is None:
            problems.append(
                f"{arm} asks for zero3, and the package deepspeed is not installed: "
                "`pip install deepspeed`, or ask for fsdp2"
            )
    if problems:
        raise MachineError("\n".join(problems))


def count_places(slots: Sequence[Slot], jobs: int | None, specs: Sequence[RunSpec]) -> int:
    """Decide how many places a command takes, for as many runs as go side by side.

    `jobs` is a number of runs, None as many as fit. The largest run always has its places. Raises:
    ConfigError if more runs were asked for than there are places.
    """
    largest = max((processes(s) for s in specs), default=1)
    counted = count_jobs(slots, jobs)
    return max(largest, counted if jobs is None else min(len(slots), counted * largest))


def count_jobs(slots: Sequence[Slot], jobs: int | None) -> int:
    """Decide how many runs of one process go side by side.

    Raises: ConfigError if more were asked for than there are places.
    """
    if jobs is not None and jobs > len(slots):
        what = "GPUs" if slots[0].gpu else "usable CPU cores"
        raise ConfigError(
            f"--jobs {jobs} asks for more workers than the {len(slots)} {what}; each worker has one "
            "of its own, or they would disturb each other's measurement"
        )
    if jobs is not None or slots[0].gpu:
        return jobs or len(slots)
    fit = Ram.here().available_bytes // MEMORY_PER_WORKER
    return max(1, min(len(slots), fit))


@contextmanager
def hold(slots: Sequence[Slot], count: int) -> Iterator[tuple[tuple[Slot, ...], tuple[str, ...]]]:
    """Hold `count` places; yields them, and the names of those that another study holds too."""
    folder, held = _lock_folder(), dict[Slot, int]()
    try:
        for slot in slots:
            lock = _try_lock(folder / _lock_name(slot))
            if lock is not None:
                held[slot] = lock
        chosen = (*held, *(s for s in slots if s not in held))[:count]
        for slot in [s for s in held if s not in chosen]:
            os.close(held.pop(slot))
        yield chosen, tuple(s.name for s in chosen if s not in held)
    finally:
        for lock in held.values():
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    """Lock a file and return its descriptor, None if another process holds it.

    Not by `filelock`, which refuses a file that another user made in a shared folder: here every
    user of the machine comes to the same file, and reading it is enough for the kernel's lock.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        try:
            lock = os.open(path, flags | os.O_CREAT, 0o644)
        except PermissionError:  # fs.protected_regular: another user's file, in a folder of all
            lock = os.open(path, flags)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _lock_name(slot: Slot) -> str:
    name = "".join(c if c.isalnum() else "-" for c in slot.name)
    return f"harness-{name}.lock"


def _lock_folder() -> Path:
    """The folder that HARNESS_LOCKS names, if one can write there; else the temporary folder.

    Raises: MachineError if there is no temporary folder: workers need one too.
    """
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise MachineError(
            "no folder for temporary files can be written: TMPDIR, /tmp and /var/tmp are missing, full or "
            "read-only; make room in one, set TMPDIR to another, or in a container mount one (`--tmpfs "
            "/tmp:exec,mode=1777`)"
        ) from error
    chosen = os.environ.get("HARNESS_LOCKS")
    return Path(chosen if chosen and os.access(chosen, os.W_OK) else temporary)
