"""The process tree of a worker: who belongs to it, and the memory that it holds.

Memory is read from a descriptor of /proc/PID/statm that stays open: it costs 2 µs where psutil takes 30,
and it speaks of one process for ever, whoever gets its number later. psutil says what is asked for rarely,
and everything where there is no /proc. What this leaves out: what other programs hold on a GPU (`tenants`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

# Listing children walks files of every thread: too dear to do at every sample.
REFRESH_S = 1.0
NEWCOMER_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_GENERATIONS = (
    32  # between a process and an ancestor; more is a loop of numbers that went to others
)


class TargetGone(Exception):  # noqa: N818 - an end, not an error
    """The root process has ended: there is nothing more to sample."""


class Member:
    """A process of a tree. Raises: psutil.NoSuchProcess if there is none."""

    def __init__(self, pid: int) -> None:
        try:
            self.statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        except OSError:
            self.statm = -1
        self.process = psutil.Process(pid)

    def rss(self) -> int:
        """Return its RSS in bytes, 0 once it has ended."""
        try:
            if self.statm >= 0:
                return int(os.pread(self.statm, 64, 0).split(b" ", 2)[1]) * _PAGE_BYTES
            return int(self.process.memory_info().rss)
        except (OSError, IndexError, psutil.NoSuchProcess, psutil.AccessDenied):
            return 0

    @property
    def is_itself(self) -> bool:
        """Whether its number is still its own."""
        return self.rss() > 0 if self.statm >= 0 else self.process.is_running()

    def __del__(self) -> None:
        if self.statm >= 0:
            os.close(self.statm)
            self.statm = -1


class ProcessTree:
    """A root process and its descendants, listed anew at most once a second.

    A process once seen stays in the tree until it ends, also when its parent ended before it. A new
    one counts from NEWCOMER_S after it was found, at any rate: between fork and exec a child shows its
    parent's whole RSS, and a command that a worker runs would read as a doubling of its memory.
    """

    def __init__(self, root_pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._root = Member(root_pid)
        except psutil.NoSuchProcess as error:
            raise TargetGone from error
        self._root_pid = root_pid
        self._take({root_pid: self._root})
        self._ever = {root_pid}
        self._strangers: set[int] = set()
        self._clock = clock
        self._refresh_at = self._count_at = -1.0  # never yet
        self._newcomers: dict[int, Member] = {}

    @property
    def pids(self) -> frozenset[int]:
        """The process ids of the last refresh."""
        return frozenset(self._members)

    def owns(self, pid: int) -> bool:
        """Whether a process is of the tree, or was within a second; one that is not listed is looked up."""
        if pid in self._ever:
            return True
        if pid in self._strangers:
            return False
        is_own = _descends(pid, self._members.keys()) or _is_of_session(pid, self._root_pid)
        (self._ever if is_own else self._strangers).add(pid)
        return is_own

    def has_root(self) -> bool:
        """Whether the root still runs: the same process, not a later one with its number."""
        process = self._root.process
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def rss(self) -> tuple[int, int]:
        """Return the tree's RSS in bytes and its number of processes.

        Raises: TargetGone once the root has ended.
        """
        now = self._clock()
        if self._newcomers and now >= self._count_at:
            self._take(self._members | self._newcomers)
            self._newcomers = {}
        if now >= self._refresh_at:
            self._newcomers, self._count_at = self._refresh(now), now + NEWCOMER_S
        try:
            # The same as below for processes that all live, in a third of the time.
            each = [int(os.pread(fd, 64, 0).split(b" ", 2)[1]) for fd in self._statms]
            total = 0 if 0 in each else sum(each) * _PAGE_BYTES
        except (OSError, IndexError):
            total = 0
        total = total or self._rss_of_some()
        return total, len(self._members)

    def _rss_of_some(self) -> int:
        """Return the RSS of a tree of which some have ended, and drop those."""
        each = {pid: member.rss() for pid, member in self._members.items()}
        # A live process owns some page; 0 is a zombie or a process that just vanished.
        if not each[self._root_pid] and not self.has_root():
            raise TargetGone
        self._take({p: m for p, m in self._members.items() if each[p] or m is self._root})
        return sum(each.values())

    def _take(self, members: dict[int, Member]) -> None:
        self._members = members
        self._statms = tuple(member.statm for member in members.values())

    def _refresh(self, now: float) -> dict[int, Member]:
        is_first, self._refresh_at = self._refresh_at < 0, now + REFRESH_S
        if not self._root.is_itself and not self.has_root():
            raise TargetGone
        self._strangers.clear()
        # Drops members whose number has since gone to a stranger.
        self._take({p: m for p, m in self._members.items() if m is self._root or m.is_itself})
        found = self._find_newcomers()
        # Not those that have ended: their numbers go to strangers in time.
        self._ever = self._members.keys() | found.keys()
        if not is_first:
            return found
        self._take(self._members | found)
        return {}

    def _find_newcomers(self) -> dict[int, Member]:
        waiting = list(self._members)
        listed = set(waiting)
        while waiting:
            for pid in child_pids(waiting.pop()):
                if pid not in listed:
                    listed.add(pid)
                    waiting.append(pid)
        found: dict[int, Member] = {}
        for pid in listed - self._members.keys():
            try:
                found[pid] = Member(pid)
            except psutil.NoSuchProcess:
                continue
        return found


def child_pids(pid: int) -> list[int]:
    """Return the process ids of a process's direct children; empty if it has ended."""
    # Plain calls of the system: with cold caches a Path costs more than the file that it names.
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return [] if Path("/proc/self").exists() else _children_by_psutil(pid)
    found: list[int] = []
    for thread in threads:
        try:
            file = os.open(f"{folder}/{thread}/children", os.O_RDONLY)
        except OSError:
            if Path(folder, thread).exists():
                return _children_by_psutil(pid)  # a kernel without CONFIG_PROC_CHILDREN
            continue
        try:
            found += [int(word) for word in _read_whole(file).split()]
        except OSError:
            continue
        finally:
            os.close(file)
    return found


def _read_whole(file: int) -> bytes:
    pieces = list(iter(lambda: os.read(file, 4096), b""))
    return b"".join(pieces)


def _children_by_psutil(pid: int) -> list[int]:
    # Reads every process of the machine, which is why it is only the fallback.
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _descends(pid: int, members: Collection[int]) -> bool:
    """Whether a process has a member among its ancestors."""
    for _ in range(_GENERATIONS):
        try:
            pid = psutil.Process(pid).ppid()
        except psutil.Error:
            return False
        if pid in members:
            return True
        if pid <= 1:
            return False
    return False


def _is_of_session(pid: int, leader: int) -> bool:
    """Whether a process is of the session that a worker leads: its parent may have ended."""
    try:
        return os.getsid(leader) == leader and os.getsid(pid) == leader
    except OSError:
        return False
