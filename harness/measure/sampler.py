"""The sampler: a process beside the worker that reads every source at a fixed rate.

    python -m harness.measure.sampler --pid PID --out ATTEMPT_DIR --hz 50 [--gpu UUID]

A process and never a thread in the worker: the worker's interpreter lock would set its rate, and
its cost would be the worker's. It appends to `memory.csv`, touches `sampler.ready` after the first
sample, and writes `sampler.json` at the end. It ends with its target, on SIGTERM, or when the
supervisor that started it is gone; one that a driver holds fast is killed, and `sealing` writes its
summary from what it left. No import of pydantic or pandas: a run waits for its start.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from harness.measure.device import NvmlSource
from harness.measure.nvml import load_nvml
from harness.measure.pace import HZ, Pace, Pacer, next_deadline, share_for
from harness.measure.sources import RssSource, Source
from harness.measure.spool import LOG, READY, SO_FAR, SPOOL, SUMMARY, Spool, write_atomically
from harness.measure.tree import ProcessTree, TargetGone

FORMAT = 1  # samples.FORMAT, which would cost an import of pydantic
# A kill -9 of the sampler loses at most this much.
CHORES_S = 0.5
SO_FAR_S = 5.0
# A stop request is seen after at most this long, however low the rate.
NAP_S = 0.1
# Of the rate that was asked for; less is worth a note.
KEPT = 0.9
# After SIGKILL. A process that even that does not end sits in the driver, and nobody waits for it.
UNKILLABLE_S = 5.0


@dataclass
class Sampling:
    """The loop and what it has seen so far."""

    sources: Sequence[Source]
    attempt: Path
    pacer: Pacer
    is_stopped: Callable[[], bool]
    requested_hz: float
    notes: Sequence[str] = ()  # from before the first sample
    pace: Pace = field(default_factory=Pace)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    _cpu_start_s: float = 0.0
    _start_ns: int = 0
    _times_ns: list[int] = field(default_factory=list)  # of samples that `pace` has yet to count
    _told_ns: int = 0  # when the summary so far was written, and how many strangers it tells of
    _strangers: int = 0

    def announce(self) -> None:
        """Leave a summary of nothing yet, before a driver is asked: it may never answer."""
        self._write_so_far(time.monotonic_ns())

    def run(self) -> None:
        """Sample until the target is gone or a stop is asked for."""
        spool = Spool(self.attempt / SPOOL)
        self._cpu_start_s, self._start_ns = time.process_time(), time.monotonic_ns()
        self._write_so_far(self._start_ns)
        try:
            self._loop(spool)
        except TargetGone:
            pass
        finally:
            spool.close()
            self._take_time()

    def _loop(self, spool: Spool) -> None:
        # Few steps and objects: after a sleep everything that a sample touches is out of the caches, and
        # costs several times what it does in a row. So what can wait is done for many samples at once.
        reads = [source.read for source in self.sources]
        is_stopped, monotonic_ns, sleep = self.is_stopped, time.monotonic_ns, time.sleep
        deadline_ns = chores_ns = self._start_ns
        period_ns, nap_ns = int(1e9 / self.pacer.hz), int(NAP_S * 1e9)
        rows = spool.rows
        while not is_stopped():
            now_ns = monotonic_ns()
            for read in reads:
                rows += read(now_ns)
            self._times_ns.append(now_ns)
            if now_ns >= chores_ns:
                self._do_chores(spool, now_ns)
                chores_ns = now_ns + int(CHORES_S * 1e9)
                period_ns = int(1e9 / self.pacer.hz)
            deadline_ns += period_ns
            left_ns = deadline_ns - monotonic_ns()
            if left_ns <= 0:
                deadline_ns = next_deadline(deadline_ns, period_ns, deadline_ns - left_ns)
                left_ns = max(0, deadline_ns - monotonic_ns())
            if left_ns < nap_ns:
                sleep(left_ns / 1e9)
            else:
                self._sleep(left_ns / 1e9)

    def _sleep(self, left_s: float) -> None:
        until_s = time.monotonic() + left_s
        while left_s > NAP_S and not self.is_stopped():
            time.sleep(NAP_S)
            left_s = until_s - time.monotonic()
        if 0 < left_s <= NAP_S:
            time.sleep(left_s)

    def _do_chores(self, spool: Spool, now_ns: int) -> None:
        """Hand on what was sampled, set the rate, and now and then say how it goes."""
        spool.flush()
        self._take_time()
        if self.pace.samples == 1:
            (self.attempt / READY).touch()
        wall_s = (now_ns - self._start_ns) / 1e9
        if self.pacer.is_due(wall_s):
            self.pacer.adjust(wall_s, self.cpu_s)
        strangers = sum(len(source.strangers) for source in self.sources)
        # A stranger on a GPU is news at once: under --exclusive the supervisor waits for that word.
        if now_ns >= self._told_ns + int(SO_FAR_S * 1e9) or strangers > self._strangers:
            self._strangers = strangers
            self._write_so_far(now_ns)

    def _take_time(self) -> None:
        for t_ns in self._times_ns:
            self.pace.mark(t_ns)
        self._times_ns.clear()
        self.cpu_s = time.process_time() - self._cpu_start_s
        self.wall_s = (time.monotonic_ns() - self._start_ns) / 1e9

    def _write_so_far(self, now_ns: int) -> None:
        self._told_ns = now_ns
        write_atomically(self.attempt / SO_FAR, json.dumps(self.summary()), is_lasting=False)

    def finish(self) -> None:
        """Write the summary."""
        write_atomically(self.attempt / SUMMARY, json.dumps(self.summary(), indent=1) + "\n")
        (self.attempt / SO_FAR).unlink(missing_ok=True)

    def summary(self) -> dict[str, object]:
        """Return the content of `sampler.json` (samples.SamplerSummary)."""
        gaps_ns = [self.pace.longest_gap_ns, *(source.longest_gap_ns for source in self.sources)]
        devices = [source.device for source in self.sources if source.device is not None]
        lenses = dict.fromkeys(lens for source in self.sources for lens in source.lenses)
        return {
            "format": FORMAT,
            "requested_hz": self.requested_hz,
            "achieved_hz": self.pace.achieved_hz,
            "longest_gap_s": max(gaps_ns) / 1e9 if self.pace.samples > 1 else None,
            "samples": self.pace.samples,
            "cpu_s": time.process_time(),
            "sampling_cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "lenses": list(lenses),
            "gpus": [s.name for s in self.sources if s.device is not None and s.lenses],
            "notes": [*self.notes, *self._pace_notes(), *_told_once(self.sources)],
            "devices": devices,
            "paced_down_hz": self.pacer.lowest_hz,
        }

    def _pace_notes(self) -> list[str]:
        if self.pacer.lowest_hz is not None and self.pacer.lowest_hz < KEPT * self.requested_hz:
            return [
                f"the sampler lowered itself to {self.pacer.lowest_hz:.0f} samples a second at the lowest, "
                f"to keep within {self.pacer.share:.1%} of a core"
            ]
        achieved_hz = self.pace.achieved_hz
        if achieved_hz is not None and self.wall_s > 1 and achieved_hz < KEPT * self.requested_hz:
            return [
                f"memory was sampled {achieved_hz:.1f} times a second, not {self.requested_hz:g}: this "
                "machine or a GPU's driver was slow to answer"
            ]
        return []


def _told_once(sources: Sequence[Source]) -> list[str]:
    """The sources' sentences; one that not all GPUs share says which it is of."""
    devices = [source for source in sources if source.device is not None]
    others = [note for source in sources if source.device is None for note in source.notes]
    found: dict[str, None] = {}
    for source in devices:
        for note in source.notes:
            is_shared = all(note in other.notes for other in devices)
            found[note if is_shared else f"{source.name}: {note}"] = None
    return [*others, *found]


def stop_flag(parent_pid: int) -> Callable[[], bool]:
    """Return a function that says whether SIGTERM came or the supervisor is gone."""
    is_asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_asked
        is_asked = True

    signal.signal(signal.SIGTERM, ask)
    # Ctrl-C is for the supervisor, which then stops its samplers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent changes when it dies. Asking for it is portable and does not depend, as
    # PR_SET_PDEATHSIG does, on the life of the thread that started this process.
    return lambda: is_asked or os.getppid() != parent_pid


class Sampler:
    """The supervisor's hold on a sampler process. A context manager: leaving it stops it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    def start(cls, pid: int, attempt: Path, hz: float = HZ, gpus: Sequence[str] = ()) -> Self:
        """Start sampling the process tree of `pid` into an attempt's folder. Returns at once."""
        command = [sys.executable, "-m", "harness.measure.sampler", "--pid", str(pid)]
        command += ["--out", str(attempt), "--hz", str(hz), "--parent", str(os.getpid())]
        command += [word for gpu in gpus for word in ("--gpu", gpu)]
        log = attempt / LOG
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def is_running(self) -> bool:
        """Whether the process still samples."""
        return self._process.poll() is None

    def stop(self, grace_s: float = 2.0) -> None:
        """End the process: SIGTERM, then SIGKILL. It has written its summary unless killed.

        Returns even if a driver keeps the process from ending. Safe to call twice.
        """
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(UNKILLABLE_S)
        if self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample one worker until it ends."""
    parser = argparse.ArgumentParser(prog="harness.measure.sampler")
    parser.add_argument("--pid", type=int, required=True, help="root of the process tree")
    parser.add_argument("--out", type=Path, required=True, help="the attempt's folder")
    parser.add_argument("--hz", type=float, default=HZ, help="samples per second")
    parser.add_argument("--share", type=float, help="of a core; default 0.01 for each 50 Hz")
    parser.add_argument("--gpu", action="append", default=[], help="UUID of a GPU to read")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="the supervisor's pid")
    options = parser.parse_args(arguments)
    share = options.share or share_for(options.hz)
    is_stopped = stop_flag(options.parent)
    sources: list[Source] = []
    notes: list[str] = []
    pacer = Pacer(options.hz, share)
    sampling = Sampling(sources, options.out, pacer, is_stopped, options.hz, notes)
    sampling.announce()
    try:
        tree = ProcessTree(options.pid)
        gpus: list[NvmlSource] = []
        sources.append(RssSource(tree, lambda: any(gpu.tells_memory for gpu in gpus)))
        nvml, absence = load_nvml() if options.gpu else (None, None)
        notes += [f"GPU memory not measured: {absence.note}"] if absence else []
        each = share / max(1, len(options.gpu))
        gpus += [NvmlSource(nvml, gpu, tree.owns, share=each) for gpu in options.gpu if nvml]
        sources += gpus
    except TargetGone:
        notes.append("the worker had ended before the first sample")
    if sources:
        sampling.run()
    sampling.finish()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
