"""math-verify without its time limits, which are of the clock: a busy machine would score otherwise.

A run needs the limits, since a model may write anything. The corpus is known, and nothing in it takes long.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_time_limits() -> Iterator[None]:
    """Have no alarm go off in this process.

    Its functions look `signal.alarm` up when they are called, whatever limit they were given.
    """
    alarm = signal.alarm
    signal.alarm = lambda *_: 0
    try:
        yield
    finally:
        signal.alarm = alarm
