"""What can be read about a run's memory at one instant: the source protocol, and process-tree RSS.

RSS counts a page once for each process that maps it, so a tree whose processes share pages (a
forked data loader, a worker forked from the fork server) reads higher than the machine's own use.
What this leaves out: proportional set size, which would settle that, costs milliseconds a read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

HOST = "host"
# Listing children walks files of every thread: too dear to do at every sample.
REFRESH_S = 1.0


class Sample(NamedTuple):
    """One device at one instant, in the order of `samples.MEMORY_COLUMNS`; None: no answer."""

    t_ns: int
    device: str
    rss_bytes: int | None = None
    processes: int | None = None
    nvml_device_bytes: int | None = None
    nvml_process_bytes: int | None = None
    utilization_percent: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: int | None = None
    foreign_bytes: int | None = None


class Source(Protocol):
    """Something that can be read again and again and never raises for a missing value."""

    name: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the samples must know, one sentence each."""

    @property
    def lenses(self) -> tuple[str, ...]:
        """The lenses that have given at least one value so far."""

    def read(self, t_ns: int) -> list[Sample]:
        """Return one sample per device for the instant `t_ns`."""


class TargetGone(Exception):  # noqa: N818 - an end, not an error
    """The root process has ended: there is nothing more to sample."""


class ProcessTree:
    """A root process and its descendants, listed anew at most once a second.

    A process once seen stays in the tree until it ends, also when its parent ended before it. A new
    one counts from the sample after the one that found it: between fork and exec a child shows its
    parent's whole RSS, and a command that a worker runs would read as a doubling of its memory.
    """

    def __init__(self, root_pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._root = psutil.Process(root_pid)
        except psutil.NoSuchProcess as error:
            raise TargetGone from error
        self._members: dict[int, psutil.Process] = {root_pid: self._root}
        self._clock = clock
        self._refreshed_at: float | None = None

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the last refresh."""
        return frozenset(self._members)

    def has_root(self) -> bool:
        """Whether the root still runs: the same process, not a later one with its number."""
        try:
            return self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def rss(self) -> tuple[int, int]:
        """Return the tree's RSS in bytes and its number of processes.

        Raises: TargetGone once the root has ended.
        """
        newcomers = self._refresh_if_due()
        total = 0
        for pid, process in list(self._members.items()):
            try:
                rss = int(process.memory_info().rss)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                rss = 0
            # A live process owns some page; 0 is a zombie or a process that just vanished.
            if rss == 0:
                if process is self._root and not self.has_root():
                    raise TargetGone
                if process is not self._root:
                    del self._members[pid]
            total += rss
        count = len(self._members)
        self._members |= newcomers
        return total, count

    def _refresh_if_due(self) -> dict[int, psutil.Process]:
        now = self._clock()
        if self._refreshed_at is not None and now - self._refreshed_at < REFRESH_S:
            return {}
        is_first, self._refreshed_at = self._refreshed_at is None, now
        if not self.has_root():
            raise TargetGone
        # Drops members whose number has since gone to a stranger.
        self._members = {p: m for p, m in self._members.items() if m.is_running()}
        waiting = list(self._members)
        listed = set(waiting)
        while waiting:
            for pid in child_pids(waiting.pop()):
                if pid not in listed:
                    listed.add(pid)
                    waiting.append(pid)
        found: dict[int, psutil.Process] = {}
        for pid in listed - self._members.keys():
            try:
                found[pid] = psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
        if not is_first:
            return found
        self._members |= found
        return {}


def child_pids(pid: int) -> list[int]:
    """Return the process ids of a process's direct children; empty if it has ended."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        files = [task / "children" for task in tasks.iterdir()]
    except OSError:
        return [] if Path("/proc/self").exists() else _children_by_psutil(pid)
    if files and not files[0].exists() and files[0].parent.exists():
        return _children_by_psutil(pid)  # a kernel without CONFIG_PROC_CHILDREN
    found: list[int] = []
    for file in files:
        try:
            found += [int(word) for word in file.read_text().split()]
        except OSError:
            continue
    return found


def _children_by_psutil(pid: int) -> list[int]:
    # Reads every process of the machine, which is why it is only the fallback.
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


class RssSource:
    """RSS of a worker's process tree."""

    name = "rss"

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._has_answered = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing to say: RSS is there or the target is gone."""
        return ()

    @property
    def lenses(self) -> tuple[str, ...]:
        """`rss` once it was read."""
        return ("rss",) if self._has_answered else ()

    def read(self, t_ns: int) -> list[Sample]:
        """Return the tree's RSS. Raises: TargetGone."""
        rss_bytes, processes = self._tree.rss()
        self._has_answered = True
        return [Sample(t_ns, HOST, rss_bytes=rss_bytes, processes=processes)]
