"""Removes a supervisor's containers once the supervisor is gone, however it went.

    python -m harness.launch.reaper LABEL VALUE

Containers, unlike processes, do not die with who started them. This process holds one end of a pipe;
when the other end closes, it removes every container with the label. What this leaves out: what a run
had come to, which the next command reads from its folder.
"""

from __future__ import annotations

import sys
import time

from harness.errors import MachineError
from harness.launch.engine import EngineGone, EngineRefused, connect

# A container whose making was under way when the supervisor died appears a moment later.
LOOKS, PAUSE_S = 3, 1.0
# What a supervisor says that ends in order: everything it started is known to have been started.
ORDERLY = b"done"


def reap(label: str, value: str) -> int:
    """Remove every container with a label; returns how many there were."""
    engine = connect()
    try:
        names = engine.labelled(label, value)
        for name in names:
            engine.remove(name)
    finally:
        engine.close()
    return len(names)


def main() -> int:
    """Wait for the supervisor's end, then remove its containers."""
    label, value = sys.argv[1:3]
    is_orderly = sys.stdin.buffer.read() == ORDERLY
    left = 0
    for look in range(1 if is_orderly else LOOKS):
        time.sleep(PAUSE_S * min(look, 1))
        try:
            left = reap(label, value)
        except (EngineGone, EngineRefused, MachineError):
            left = 1  # the engine may be on its way back
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
