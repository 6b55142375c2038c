"""`--exclusive`: runs train only on GPUs that no other program uses.

Before a run its GPUs must be free; a stranger is waited for, and then the command ends with nothing lost.
During a run the sampler tells of strangers; such a run is ended, and the same command tries it again. What
this leaves out: two studies on one GPU, which `slots` keeps apart, and strangers during a run where process
ids are not the host's: there only the look before a run tells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import MachineError
from harness.measure.gpus import GpuList, list_gpus
from harness.measure.nvml import has_host_pids
from harness.measure.spool import SO_FAR, SUMMARY
from harness.text import memory

LOOK_S = 1.0
# A run that has just ended, and its driver, take a moment to give everything back.
QUIET_S = 3.0
# Memory in use without a process in sight; an idle driver holds far less.
IDLE_BYTES = 2**30


class Guard:
    """Says whether runs may use their GPUs; keeps track of how long one has been waited for."""

    def __init__(
        self,
        wait_s: float,
        tell: Callable[[str], None],
        look: Callable[[], GpuList] = list_gpus,
        clock: Callable[[], float] = time.monotonic,
        sees_strangers: bool | None = None,
    ) -> None:
        self._wait_s, self._tell, self._look, self._clock = wait_s, tell, look, clock
        self._waits_since: float | None = None
        self._looked_at = float("-inf")
        self._has_told = False
        if not (has_host_pids() if sees_strangers is None else sees_strangers):
            tell(
                "process ids here are not the host's: another program on a GPU is seen before a run, "
                "and not while it trains"
            )

    def is_clear(self, uuids: Sequence[str]) -> bool:
        """Whether no other program uses these GPUs; false while they are waited for. Call again and again.

        Raises: MachineError once they have been waited for in vain.
        """
        now = self._clock()
        if not uuids:
            return True
        if now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        used = _uses(self._look(), uuids)
        if not used:
            self._waits_since, self._has_told, self._looked_at = None, False, float("-inf")
            return True
        self._waits_since = now if self._waits_since is None else self._waits_since
        waited_s = now - self._waits_since
        if waited_s >= self._wait_s:
            raise MachineError(
                f"--exclusive: {'; '.join(used)} after {self._wait_s:g} s of waiting. End that program or "
                "name another GPU in CUDA_VISIBLE_DEVICES, then give the same command again: what finished "
                "is kept"
            )
        if waited_s >= QUIET_S and not self._has_told:
            self._has_told = True
            self._tell(f"{'; '.join(used)}: waiting up to {self._wait_s:g} s for it to end")
        return False


def find_stranger(attempt: Path) -> str | None:
    """Say which other program came to a GPU of an attempt, by what its sampler tells so far."""
    for name in (SUMMARY, SO_FAR):
        try:
            devices = json.loads((attempt / name).read_text(encoding="utf-8")).get("devices", ())
        except (OSError, ValueError):
            continue
        for device in devices:
            if device["foreign_pids"]:
                most = device["foreign_bytes_max"]
                held = f" and held {memory(most)}" if most else ""
                pid = device["foreign_pids"][0]
                came = f"process {pid} of another program came to {device['uuid']}{held}"
                return f"{came}, and the run was exclusive"
        return None
    return None


def _uses(listed: GpuList, uuids: Sequence[str]) -> list[str]:
    """Say of each of these GPUs that something else uses who does, or that it can't be told."""
    every = [*listed.gpus, *(gpu.part(part) for gpu in listed.gpus for part in gpu.mig_slices)]
    why = listed.note or "it is not listed"
    known = {gpu.uuid for gpu in every}
    found = [f"{uuid} can't be looked at ({why})" for uuid in uuids if uuid not in known]
    for gpu in every:
        if gpu.uuid not in uuids:
            continue
        pids = [str(process.pid) for process in gpu.processes]
        if pids:
            count = "process" if len(pids) == 1 else "processes"
            found.append(f"{gpu.uuid} is used by {count} {', '.join(pids[:3])}")
        elif gpu.used_bytes is not None and gpu.used_bytes > IDLE_BYTES:
            found.append(
                f"{memory(gpu.used_bytes)} of {gpu.uuid} are in use by nobody that is listed"
            )
    return found
