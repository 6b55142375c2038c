"""The worker's two journals: steps.jsonl and phases.jsonl, a line as soon as it is known.

A phase mark costs a few microseconds and one short write, outside the optimizer step's arithmetic.
On CUDA torch's peak counters are read and reset at every edge of a phase, so that each phase has a
peak of its own; a nested phase (generate inside train) is not counted in the outer one. Kernels run
after the call that queued them has returned, so an edge first waits until the GPU has done its work.
torch keeps freed memory for itself; an evaluation gives it back on both edges, or what it held would be
read, by torch and by NVML, as held in the training after it.
Of several processes of a run the first one keeps the journal; the others keep a silent one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from harness.files import HEARTBEAT
from harness.record import StepRow
from harness.samples import Phase, PhaseRow

# Phases into which, and out of which, no memory is carried that torch keeps.
APART: frozenset[Phase] = frozenset({"evaluate"})


class Journal:
    """Writes the steps and phases of one attempt."""

    def __init__(
        self,
        attempt: Path,
        is_cuda: bool,
        wait_for_gpu: Callable[[], object] | None = None,
        is_silent: bool = False,
        free_cache: Callable[[], object] | None = None,
    ) -> None:
        steps, phases = attempt / "steps.jsonl", attempt / "phases.jsonl"
        if is_silent:
            steps = phases = Path(os.devnull)
        self._heartbeat = None if is_silent else attempt / HEARTBEAT
        self._steps = steps.open("a", encoding="utf-8")
        self._phases = phases.open("a", encoding="utf-8")
        self._process = psutil.Process()
        self._is_cuda = is_cuda
        self._wait_for_gpu = wait_for_gpu or (torch.cuda.synchronize if is_cuda else None)
        self._free_cache = free_cache or (torch.cuda.empty_cache if is_cuda else lambda: None)
        self._open: list[list[int]] = []  # per open phase: [allocated peak, reserved peak], bytes
        self.current_step = 0
        self.spans: dict[str, int] = {}  # phase → how often it ended

    def close(self) -> None:
        """Close the files; the end of a worker's process does so too."""
        self._steps.close()
        self._phases.close()

    def step(self, row: StepRow) -> None:
        """Write one optimizer step."""
        self._steps.write(row.model_dump_json() + "\n")
        self._steps.flush()

    def beat(self) -> None:
        """Give a sign of life within a long phase; the supervisor takes silence for a stall."""
        if self._heartbeat is not None:
            self._heartbeat.touch()

    def now_ns(self) -> int:
        """Read the clock once all work that was handed to the GPU is done."""
        if self._wait_for_gpu is not None:
            self._wait_for_gpu()
        return time.monotonic_ns()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Mark a span; written when it ends, also when it ends by an exception."""
        is_apart = name in APART
        if is_apart:
            self._free_cache()
        begin_ns = self.now_ns()
        self._fold_peaks()
        self._open.append([0, 0])
        end_ns = None
        try:
            yield
            if is_apart:
                self._free_cache()
            end_ns = self.now_ns()
        finally:
            # After an exception the GPU may refuse to answer: what was raised is worth more.
            end_ns = end_ns or time.monotonic_ns()
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
