"""The worker's two journals: steps.jsonl and phases.jsonl, a line as soon as it is known.

A phase mark costs a few microseconds and one short write, outside the optimizer step's arithmetic.
On CUDA torch's peak counters are read and reset at every edge of a phase, so that each phase has a
peak of its own; a nested phase (generate inside train) is not counted in the outer one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from harness.record import Phase, PhaseRow, StepRow


class Journal:
    """Writes the steps and phases of one attempt."""

    def __init__(self, attempt: Path, is_cuda: bool) -> None:
        self._steps = (attempt / "steps.jsonl").open("a", encoding="utf-8")
        self._phases = (attempt / "phases.jsonl").open("a", encoding="utf-8")
        self._process = psutil.Process()
        self._is_cuda = is_cuda
        self._open: list[list[int]] = []  # per open phase: [allocated peak, reserved peak], bytes
        self.current_step = 0
        self.spans: dict[str, int] = {}  # phase → how often it ended

    def step(self, row: StepRow) -> None:
        """Write one optimizer step."""
        self._steps.write(row.model_dump_json() + "\n")
        self._steps.flush()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Mark a span; written when it ends, also when it ends by an exception."""
        self._fold_peaks()
        self._open.append([0, 0])
        begin_ns = time.monotonic_ns()
        try:
            yield
        finally:
            end_ns = time.monotonic_ns()
            self._fold_peaks()
            allocated, reserved = self._open.pop()
            row = PhaseRow(
                phase=name,
                begin_ns=begin_ns,
                end_ns=end_ns,
                step=self.current_step,
                rss_bytes=self._process.memory_info().rss,
                torch_allocated_peak_bytes=allocated if self._is_cuda else None,
                torch_reserved_peak_bytes=reserved if self._is_cuda else None,
            )
            self.spans[name] = self.spans.get(name, 0) + 1
            self._phases.write(row.model_dump_json() + "\n")
            self._phases.flush()

    def _fold_peaks(self) -> None:
        """Give the peaks since the last edge to the innermost open phase, and start over."""
        if not self._is_cuda:
            return
        if self._open:
            peaks = self._open[-1]
            peaks[0] = max(peaks[0], torch.cuda.max_memory_allocated())
            peaks[1] = max(peaks[1], torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()
