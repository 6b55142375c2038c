"""The fault table: what a run comes to, and what its user reads, when the GPU's driver fails beside it.

    python -m tests.nvml.faults --markdown faults.md
    python -m tests.nvml.faults --only gpu-lost --fake

Each fault is a trace of `nvml/traces`, played to the sampler of a real run: TRL trains the embedded model
on a CPU, and one run meets no fault. Where a trace says 0.6 s stands the moment at which half of the
steps were done. Ends with 1 if a fault ended a training, hung, or did not fall into training.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.nvml.fault_table import (
    SAMPLER_FAILS,
    Before,
    Row,
    as_markdown,
    before_row,
    during_rows,
    print_table,
)
from tests.scripted_nvml import NoCompiler, compile_library, find_trace, variables

MATRIX = Path(__file__).parents[1] / "data" / "faults.yaml"
HEALTHY = "healthy"
DURING = (
    "gpu-lost", "needs-reset", "unknown-error", "not-supported", "no-permission", "slow-calls",
    "hanging-call", "hanging-start", "counter-wraps", "counter-restarts", "old-driver", "shared-gpu",
    "foreign-pids", "unified-memory", SAMPLER_FAILS,
)  # fmt: skip
BEFORE = ("version-mismatch", "hanging-list")  # the driver fails before anything trains
HALF = 20  # of the matrix's 40 steps
LATEST_S = 600.0  # by then a fault comes of itself
LOG_BYTES = 4096
BOUND_S = 180.0  # for each run, and as long again for libraries to be imported


@dataclass
class Played:
    """A run's trace, and when its fault came (time.monotonic)."""

    name: str
    seed: int
    folder: Path
    moment_s: float | None = None

    def write(self, at_s: float) -> None:
        """Write the trace with its fault at a time of its own."""
        source = find_trace(HEALTHY if self.name == SAMPLER_FAILS else self.name)
        text = re.sub(r"\b(from|to) 0\.6\b", rf"\1 {at_s:.3f}", source.read_text())
        part = self.folder / f"{self.seed}.part"
        part.write_text(text)
        part.replace(self.folder / f"{self.seed}.trace")

    def fail(self, attempt: Path, command: psutil.Process) -> None:
        """Let the fault come now."""
        self.moment_s = time.monotonic()
        if self.name == SAMPLER_FAILS:
            for process in command.children(recursive=True):
                line = process.cmdline()
                if "harness.measure.sampler" in line and str(attempt) in line:
                    # Its samples may grow no more, as on a full disk; its log still can.
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LOG_BYTES, LOG_BYTES))
        elif (self.folder / f"{self.seed}.start").exists():
            start_s = float((self.folder / f"{self.seed}.start").read_text())
            self.write(self.moment_s - start_s)


def play(names: Sequence[str], library: Path, output: Path, is_fake: bool) -> Iterator[Row]:
    """Run a study with a fault for each of its seeds, the first without one, and read it back."""
    folder = output / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    played = [Played(name, seed, folder) for seed, name in enumerate((HEALTHY, *names))]
    for each in played:
        each.write(LATEST_S)
    command = [sys.executable, "-m", "tests.nvml.by_seed", "--matrix", str(MATRIX)]
    command += ["--traces", str(folder), "-o", str(output / "study"), "--seeds"]
    command += [str(each.seed) for each in played] + ["--fake"] * is_fake
    environment = variables(library, find_trace(HEALTHY)) | {"FAKE_STEP_S": "0.06"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        problem = _watch(process, played, output / "study" / "runs")
    finally:
        _end(process)
    moments = {each.seed: (each.name, each.moment_s) for each in played}
    yield from during_rows(output / "study", moments, problem)


def _watch(process: subprocess.Popen[bytes], played: Sequence[Played], runs: Path) -> str | None:
    """Let each fault come when its run is half done; return what is wrong if no run ends for long."""
    command = psutil.Process(process.pid)
    done, until_s = 0, time.monotonic() + 2 * BOUND_S
    while process.poll() is None:
        now_done = len(list(runs.glob("*/record.json")))
        if now_done > done:
            done, until_s = now_done, time.monotonic() + BOUND_S
        if time.monotonic() > until_s:
            return f"no run ended for {BOUND_S:.0f} s, and the command was ended"
        for each in played:
            for steps in runs.glob(f"*.s{each.seed}-*/attempt-1/steps.jsonl"):
                if each.moment_s is None and steps.read_bytes().count(b"\n") >= HALF:
                    each.fail(steps.parent, command)
        time.sleep(0.02)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that hangs, workers and all."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask_in_vain(name: str, library: Path, output: Path, is_fake: bool) -> Row:
    """Start a study where the driver fails when it is asked for its GPUs."""
    # As a user of the checkout would name it: the refusal says it again.
    command = [sys.executable, "-m", "tests.nvml.replayed", "--matrix", os.path.relpath(MATRIX)]
    command += ["-o", str(output / name), "--filter", "*.lora.*", "--no-report"]
    command += ["--fake"] * is_fake
    environment = variables(library, find_trace(name))
    began_s = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, told = process.communicate(timeout=BOUND_S)
        except subprocess.TimeoutExpired:
            _end(process)
            return before_row(name, Before(None, "", BOUND_S, has_trained=False))
    trained = any((output / name).glob("runs/*/record.json"))
    return before_row(
        name, Before(process.returncode, told, time.monotonic() - began_s, has_trained=trained)
    )


def make_rows(only: Sequence[str], output: Path, *, is_fake: bool) -> list[Row]:
    """Play the faults of these names, or all of them."""
    library = output / "library"
    library.mkdir(parents=True, exist_ok=True)
    compile_library(library)
    during = [name for name in DURING if not only or name in only]
    before = [name for name in BEFORE if not only or name in only]
    rows = list(play(during, library, output, is_fake)) if during else []
    return rows + [ask_in_vain(name, library, output, is_fake) for name in before]


def main() -> int:
    """Print the table, and end with 1 if a fault ended a training or hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.nvml.faults")
    names = [*DURING, *BEFORE]
    parser.add_argument("--only", action="append", default=[], choices=names, metavar="NAME")
    parser.add_argument("--fake", action="store_true", help="train nothing")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output-dir", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        output = (options.output_dir or Path(temporary)).resolve()
        try:
            rows = make_rows(options.only, output, is_fake=options.fake)
        except NoCompiler as error:
            parser.error(str(error))
    print_table(rows)
    text = as_markdown(rows)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    for row in rows:
        if row.problem:
            sys.stderr.write(f"{row.name}: {row.problem}\n")
    return int(any(row.problem for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
