"""The processes of one run: which of them this is, and what each leaves when it fails.

Only the first one writes the files of an attempt; another that fails leaves `rank-N.json`, a result
like the first's, so that the launcher can tell a cause from its consequences: when one process ends,
the others fail too, at the next exchange with it. Imports no ML library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.files import write_atomically
from harness.launch import Launch
from harness.record import Result, Status

# A rank that fails gives the first one this long to say the same of itself, before its own end
# makes torch's launcher end all the others.
PATIENCE_S = 2.0
# What torch, gloo and NCCL say of an exchange whose other side is gone.
_LOST_PEER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "NCCL",
    "gloo/transport",
)


@dataclass(frozen=True)
class Rank:
    """One of the processes that train a run."""

    index: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes the attempt's files."""
        return self.index == 0

    @property
    def name(self) -> str:
        """How a reason calls it."""
        return f"process {self.index} of {self.count} (counted from 0)"


ALONE = Rank(0, 1)


def rank_of(launch: Launch) -> Rank:
    """Say which process of a run this is, by the variables of torch's launcher.

    They count for a run of several processes only: a lone worker may have them set for another
    reason. One machine: the local rank is the rank.
    """
    if launch.parallel is None:
        return ALONE
    return Rank(int(os.environ["RANK"]), launch.parallel.processes)


def leave_word(attempt: Path, rank: Rank, result: Result) -> None:
    """Write what a process other than the first came to, and give the first time to do so too."""
    path = attempt / f"rank-{rank.index}.json"
    write_atomically(path, result.model_dump_json(indent=1).encode() + b"\n")
    deadline = time.monotonic() + PATIENCE_S
    while not (attempt / "result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def words(attempt: Path, count: int) -> Iterator[tuple[Rank, Result]]:
    """Yield what processes other than the first left, the earliest first."""
    files = [(attempt / f"rank-{index}.json", Rank(index, count)) for index in range(1, count)]
    found = sorted((f.stat().st_mtime_ns, f, rank) for f, rank in files if f.exists())
    for _, file, rank in found:
        yield rank, Result.model_validate_json(file.read_bytes())


def is_consequence(result: Result) -> bool:
    """Whether a process failed only because it lost another one."""
    is_accident = result.status is Status.CRASHED
    return is_accident and any(sign in (result.reason or "") for sign in _LOST_PEER)
