"""The sampler: a process beside the worker that reads every source at a fixed rate.

    python -m harness.measure.sampler --pid PID --out ATTEMPT_DIR --hz 20 [--gpu UUID]

A process and never a thread in the worker: the worker's interpreter lock would set its rate, and
its cost would be the worker's. It appends to `memory.csv`, touches `sampler.ready` after the first
sample, and writes `sampler.json` at the end. It ends with its target, on SIGTERM, or when the
supervisor that started it is gone. No import of pydantic or pandas: a run waits for its start.
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
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from harness.measure.nvml import NvmlSource, load_nvml
from harness.measure.sources import ProcessTree, RssSource, Sample, Source, TargetGone

SPOOL, READY, SUMMARY, LOG = "memory.csv", "sampler.ready", "sampler.json", "sampler.log"
FORMAT = 1  # samples.FORMAT, which would cost an import of pydantic
# A kill -9 of the sampler loses at most this much.
FLUSH_S = 0.5
# A stop request is seen after at most this long, however low the rate.
NAP_S = 0.1


class Spool:
    """Appends samples to a CSV file, whole lines at a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._waiting: list[str] = []
        if path.stat().st_size == 0:
            self._waiting.append(",".join(Sample._fields) + "\n")

    def add(self, samples: Sequence[Sample]) -> None:
        """Keep samples for the next flush."""
        self._waiting += [
            ",".join("" if value is None else str(value) for value in sample) + "\n"
            for sample in samples
        ]

    def flush(self) -> None:
        """Hand everything kept to the kernel, which keeps it when this process is killed."""
        self._file.write("".join(self._waiting))
        self._file.flush()
        self._waiting.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


@dataclass
class Pace:
    """Instants at which samples were taken, and how far apart."""

    samples: int = 0
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_ns: int = 0

    def mark(self, t_ns: int) -> None:
        """Count a sample."""
        if self.samples:
            self.longest_gap_ns = max(self.longest_gap_ns, t_ns - self.last_ns)
        else:
            self.first_ns = t_ns
        self.last_ns = t_ns
        self.samples += 1

    @property
    def achieved_hz(self) -> float | None:
        """Intervals per second; None with fewer than two samples."""
        if self.samples < 2:
            return None
        return (self.samples - 1) * 1e9 / (self.last_ns - self.first_ns)


def next_deadline(start_ns: int, period_ns: int, now_ns: int) -> int:
    """Return the first deadline of the grid after now: missed ones are skipped, never made up."""
    return start_ns + ((now_ns - start_ns) // period_ns + 1) * period_ns


@dataclass
class Sampling:
    """The loop and what it has seen so far."""

    sources: Sequence[Source]
    attempt: Path
    hz: float
    is_stopped: Callable[[], bool]
    pace: Pace = field(default_factory=Pace)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def run(self) -> None:
        """Sample until the target is gone or a stop is asked for."""
        spool = Spool(self.attempt / SPOOL)
        cpu_start, start_ns = time.process_time(), time.monotonic_ns()
        period_ns = int(1e9 / self.hz)
        flush_ns = start_ns
        try:
            while not self.is_stopped():
                now_ns = time.monotonic_ns()
                spool.add([sample for source in self.sources for sample in source.read(now_ns)])
                self.pace.mark(now_ns)
                if now_ns >= flush_ns:
                    spool.flush()
                    flush_ns = now_ns + int(FLUSH_S * 1e9)
                if self.pace.samples == 1:
                    (self.attempt / READY).touch()
                self._sleep_until(next_deadline(start_ns, period_ns, time.monotonic_ns()))
        except TargetGone:
            pass
        finally:
            spool.close()
            self.cpu_s = time.process_time() - cpu_start
            self.wall_s = (time.monotonic_ns() - start_ns) / 1e9

    def _sleep_until(self, deadline_ns: int) -> None:
        while not self.is_stopped():
            left_s = (deadline_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            time.sleep(min(left_s, NAP_S))

    def summary(self, gpus: Sequence[str], notes: Sequence[str]) -> dict[str, object]:
        """Return the content of `sampler.json` (samples.SamplerSummary)."""
        own_notes = [note for source in self.sources for note in source.notes]
        return {
            "format": FORMAT,
            "requested_hz": self.hz,
            "achieved_hz": self.pace.achieved_hz,
            "longest_gap_s": self.pace.longest_gap_ns / 1e9 if self.pace.samples > 1 else None,
            "samples": self.pace.samples,
            "cpu_s": time.process_time(),
            "sampling_cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "lenses": [lens for source in self.sources for lens in source.lenses],
            "gpus": list(gpus),
            "notes": [*notes, *own_notes],
        }


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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
    def start(cls, pid: int, attempt: Path, hz: float = 20.0, gpus: Sequence[str] = ()) -> Self:
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

        Safe to call twice.
        """
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
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
    parser.add_argument("--hz", type=float, default=20.0, help="samples per second")
    parser.add_argument("--gpu", action="append", default=[], help="UUID of a GPU to read")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="the supervisor's pid")
    options = parser.parse_args(arguments)
    is_stopped = stop_flag(options.parent)
    sources: list[Source] = []
    notes: list[str] = []
    try:
        tree = ProcessTree(options.pid)
        sources.append(RssSource(tree))
        nvml, absence = load_nvml() if options.gpu else (None, None)
        notes += [absence.note] if absence else []
        sources += [NvmlSource(nvml, uuid, lambda: tree.pids) for uuid in options.gpu if nvml]
    except TargetGone:
        notes.append("the worker had ended before the first sample")
    sampling = Sampling(sources, options.out, options.hz, is_stopped)
    if sources:
        sampling.run()
    gpus = [source.uuid for source in sources if isinstance(source, NvmlSource) and source.lenses]
    summary = json.dumps(sampling.summary(gpus, notes), indent=1)
    write_atomically(options.out / SUMMARY, summary + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
