"""What a study changes of its own process while it runs, and puts back: signals, and trackio's folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def trackio_in(study: Path) -> Iterator[None]:
    """Have `report_to: trackio` write into the study, unless the user chose another place.

    By environment variable, because trackio reads it when it is imported, and TRL imports trackio:
    a fork server has done so before it knows of any run.
    """
    name = "TRACKIO_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str((study / "trackio").resolve())
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
