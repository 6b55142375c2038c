"""Whose memory a GPU holds: the worker's, strangers', or nobody's that can be told.

NVML lists processes by the ids of the host. Where ids here are others (most containers), adding them up
would be to measure strangers: the process lens is then null, and the device above its idle memory stands
for the run. The kernel's namespace says so in most cases and what is listed in the rest: ids that no
process here has, or memory that grew although no process of the worker is listed. What this leaves out:
programs that only draw (NVML's graphics list), which are in the idle memory, and clients of MPS, which
NVML lists elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# A CUDA context takes about 500 MiB; less than half of it may be anything.
UNEXPLAINED_BYTES = 256 * 2**20
# Evidence must last so long, and through so many lists: a list can lag behind the memory.
DOUBT_S = 1.0
DOUBT_LISTS = 3
INSTEAD = "the GPU's memory above its idle memory stands for the run"

Listed = Sequence[tuple[int, int | None]]  # process id, bytes


class Held(NamedTuple):
    """What a list of processes comes to; None: not told, or ids that can't be trusted."""

    own_bytes: int | None
    foreign_bytes: int | None


def is_here(pid: int) -> bool:
    """Whether a process with this number exists, also one of another user or behind hidepid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@dataclass
class Tenants:
    """Tells the worker's processes on one GPU from strangers, for as long as ids can be trusted."""

    owns: Callable[[int], bool]
    is_trusted: bool
    exists: Callable[[int], bool] = is_here
    foreign_bytes_max: int | None = None
    why_not: str | None = None  # a sentence, once ids turned out to be another namespace's
    _foreign_pids: dict[int, None] = field(default_factory=dict)
    _is_confirmed: bool = False  # a process of the worker was listed
    _doubts: int = 0
    _doubted_at: float = 0.0

    @property
    def foreign_pids(self) -> tuple[int, ...]:
        """Strangers that were seen, in the order they came."""
        return tuple(self._foreign_pids)

    def judge(self, listed: Listed, grown_bytes: int | None, now_s: float) -> Held:
        """Split a list into the worker's memory and strangers'; `grown_bytes` is the GPU's above idle."""
        own = [used for pid, used in listed if self.owns(pid)]
        others = [(pid, used) for pid, used in listed if not self.owns(pid)]
        self._is_confirmed |= bool(own)
        if not self._is_confirmed:
            self._doubt(others, grown_bytes, now_s)
        if not self.is_trusted:
            return Held(None, None)
        # A process that has ended is in the list for a moment more, and is no stranger's.
        foreign = [(pid, used) for pid, used in others if self.exists(pid)]
        self._foreign_pids |= dict.fromkeys(pid for pid, _ in foreign)
        foreign_bytes = _sum([used for _, used in foreign])
        if foreign_bytes is not None:
            self.foreign_bytes_max = max(foreign_bytes, self.foreign_bytes_max or 0)
        return Held(_sum(own) if own else None, foreign_bytes)

    def _doubt(self, others: Listed, grown_bytes: int | None, now_s: float) -> None:
        """Take in evidence that ids are another namespace's."""
        missing = next((pid for pid, _ in others if not self.exists(pid)), None)
        held = _sum([used for _, used in others])
        unexplained = (grown_bytes or 0) - held if held is not None else 0
        if missing is None and unexplained < UNEXPLAINED_BYTES:
            self._doubts = 0
            return
        self._doubts += 1
        if self._doubts == 1:
            self._doubted_at = now_s
        if self._doubts < DOUBT_LISTS or now_s - self._doubted_at < DOUBT_S:
            return
        self.is_trusted = False
        self.foreign_bytes_max = None
        self._foreign_pids.clear()
        found = (
            f"NVML lists process {missing}, which is not here"
            if missing is not None
            else f"the GPU's memory grew by {unexplained / 2**30:.2f} GiB and NVML lists no process of the "
            "worker"
        )
        self.why_not = f"NVML process memory not measured: {found}; {INSTEAD}"


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
