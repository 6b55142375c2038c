"""What the commands cost beside the work they start, as ratios measured in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

from benchmarks.speed.recorded import CLOCK, record


def seconds(*words: str) -> list[float]:
    """Wall seconds of three runs of a Python command."""
    times = []
    for _ in range(3):
        begin = time.monotonic()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        times.append(time.monotonic() - begin)
    return times


@pytest.mark.benchmark(timer=CLOCK, group="harness --help")
def test_help_costs_a_fraction_of_importing_trl(benchmark):
    import_s = seconds("-c", "from trl import SFTTrainer, GRPOTrainer")
    help_s = seconds("-m", "harness.cli", "--help")
    importing, helping = statistics.median(import_s), statistics.median(help_s)
    print(f"\n--help {helping:.2f} s, importing TRL's trainers {importing:.2f} s")
    record(benchmark, help_s, import_s_median=importing, help_s_median=helping)
    assert helping < importing / 10
