"""Removes a supervisor's containers once the supervisor is gone, however it went.

    python -m harness.launch.reaper LABEL VALUE

Containers, unlike processes, do not die with who started them. This process holds one end of a pipe;
when the other end closes, it removes every container with the label. What this leaves out: what a run
had come to, which the next command reads from its folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import MachineError
from harness.launch.docker_engine import connect
from harness.launch.engine import EngineGone, EngineRefused, opened
from harness.launch.images import remove

# A container whose making was under way when the supervisor died appears a moment later.
LOOKS, PAUSE_S = 3, 1.0
# What a supervisor says that ends in order: everything it started is known to have been started.
ORDERLY = b"done"


@contextmanager
def reaping(label: str, value: str) -> Iterator[None]:
    """See that containers with a label are gone once the block has ended, however it ends."""
    command = [sys.executable, "-m", "harness.launch.reaper", label, value]
    # In a session of its own: what ends the supervisor's group must not end it too.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.communicate(ORDERLY)  # it removes what may be left, and ends


def reap(label: str, value: str) -> None:
    """Remove every container with a label, as far as the engine will."""
    try:
        with opened(connect) as engine:
            for name in engine.labelled(label, value):
                remove(engine, name)
    except (EngineGone, EngineRefused, MachineError):
        return  # it may be on its way back; the next command looks again


def main() -> None:
    """Wait for the supervisor's end, then remove its containers."""
    label, value = sys.argv[1:3]
    is_orderly = sys.stdin.buffer.read() == ORDERLY
    reap(label, value)
    for _ in range(0 if is_orderly else LOOKS - 1):
        time.sleep(PAUSE_S)
        reap(label, value)


if __name__ == "__main__":
    main()
