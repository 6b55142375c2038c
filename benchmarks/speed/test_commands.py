"""What the commands cost beside the work they start, as ratios measured in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(*words: str) -> float:
    """Median wall seconds of three runs of a Python command."""
    times = []
    for _ in range(3):
        begin = time.monotonic()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        times.append(time.monotonic() - begin)
    return statistics.median(times)


def test_help_costs_a_fraction_of_importing_trl(benchmark):
    importing = seconds("-c", "from trl import SFTTrainer, GRPOTrainer")
    helping = seconds("-m", "harness.cli", "--help")
    print(f"\n--help {helping:.2f} s, importing TRL's trainers {importing:.2f} s")
    benchmark.extra_info.update(help_s=helping, import_s=importing)
    benchmark.pedantic(lambda: None, rounds=1)
    assert helping < importing / 10
