"""Seconds that a test measured itself, as the rounds of a benchmark: so that they are stored and compared.

What is measured here is a ratio of two commands, or a share of a core: pytest-benchmark's own timing of a
call would store something else. A test is marked `benchmark(timer=CLOCK)` and calls `record`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Clock:
    """A timer that moves only when it is told to."""

    __name__ = "recorded"  # how the stored file calls its timer

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.seconds


CLOCK = Clock()


def record(benchmark: Any, seconds: Sequence[float], **extra: Any) -> None:
    """Enter measured seconds as rounds, with what else belongs to them."""
    left = iter(seconds)

    def one_round() -> None:
        CLOCK.seconds = next(left)

    def start() -> None:
        CLOCK.seconds = 0.0

    benchmark.extra_info.update(extra)
    benchmark.pedantic(one_round, setup=start, rounds=len(seconds), iterations=1)
