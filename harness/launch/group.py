"""A worker's process group: signalled as a whole, and ended without a rest."""

from __future__ import annotations

import os
import signal
import time

import psutil

# How long to wait for members to die; only one that sits in the kernel takes that long.
END_S = 1.0


class ProcessGroup:
    """The group led by a worker: itself and what it started, unless that left the group."""

    def __init__(self, leader_pid: int) -> None:
        self._leader_pid = leader_pid
        self._is_ended = False  # from then on the number may belong to somebody else

    def signal(self, number: int) -> None:
        """Send a signal to every member; a group that is gone ignores it."""
        if self._is_ended:
            return
        try:
            os.killpg(self._leader_pid, number)
        except (ProcessLookupError, PermissionError):
            # PermissionError: macOS answers so for a group of zombies.
            return

    def end(self) -> None:
        """Kill every member and wait until none is left but zombies that init has yet to reap.

        Call it once the leader is reaped: it also reaps members, which would take its exit code.
        """
        if self._is_ended:
            return
        self._is_ended = True
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            try:
                os.killpg(self._leader_pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return
            self._reap_adopted()
            if not self._has_live_member():
                return
            time.sleep(0.005)

    def _has_live_member(self) -> bool:
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) != self._leader_pid:
                    continue
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return True
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return False

    def _reap_adopted(self) -> None:
        # As process 1 of a container the supervisor inherits orphans, and nobody else reaps them.
        try:
            while os.waitpid(-self._leader_pid, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
