"""What the sampler costs the run that it watches: its share of a core, and the rate it keeps.

    python -m pytest benchmarks/speed/test_sampler_cost.py -s

A process tree of three, whose root never sleeps, is sampled at 20 Hz for some seconds, a few times
over. The share is the sampler's own CPU time over wall time, start-up apart, so it holds beside any
load. What this leaves out: NVML, whose calls cost about 12 us a sample and 5 ms a second.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from benchmarks.speed.recorded import CLOCK, record
from harness.measure.sampler import Sampler
from harness.samples import SamplerSummary

HZ = 20.0
WATCHED_S = 5.0
ROUNDS = 3
MAX_SHARE = 0.02
BUSY = """
import subprocess, sys
idle = [sys.executable, "-c", "import sys; sys.stdin.read()"]
children = [subprocess.Popen(idle, stdin=subprocess.PIPE) for _ in range(2)]
x = 0
while True:
    x += 1
"""


@pytest.fixture
def busy_pid() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        time.sleep(0.3)
        yield process.pid
        process.kill()  # its children read the end of their input and leave


def sample_for(seconds: float, pid: int, attempt: Path) -> tuple[SamplerSummary, float]:
    """Sample a process tree; return the sampler's summary and its start-up in seconds."""
    attempt.mkdir()
    begin = time.monotonic()
    with Sampler.start(pid, attempt, HZ):
        while not (attempt / "sampler.ready").exists():
            time.sleep(0.001)
        startup_s = time.monotonic() - begin
        time.sleep(seconds)
    text = (attempt / "sampler.json").read_text(encoding="utf-8")
    return SamplerSummary.model_validate_json(text), startup_s


@pytest.mark.benchmark(timer=CLOCK, group="sampler, CPU seconds of five seconds")
def test_the_sampler_uses_under_two_percent_of_a_core(benchmark, busy_pid, tmp_path):
    rows = [sample_for(WATCHED_S, busy_pid, tmp_path / str(n)) for n in range(ROUNDS)]
    shares = [s.sampling_cpu_s / s.wall_s for s, _ in rows]
    print(f"\n{'round':>5} {'Hz':>7} {'longest gap':>12} {'start-up':>9} {'share of a core':>16}")
    for number, ((summary, startup_s), share) in enumerate(zip(rows, shares, strict=True), 1):
        gap_ms = 1000 * (summary.longest_gap_s or 0)
        print(
            f"{number:>5} {summary.achieved_hz:>7.2f} {gap_ms:>9.1f} ms "
            f"{startup_s * 1000:>6.0f} ms {share:>15.2%}"
        )
    record(
        benchmark,
        [summary.sampling_cpu_s for summary, _ in rows],
        requested_hz=HZ,
        achieved_hz_median=median(s.achieved_hz or 0 for s, _ in rows),
        longest_gap_s=max(s.longest_gap_s or 0 for s, _ in rows),
        startup_s_median=median(startup_s for _, startup_s in rows),
        cpu_share_median=median(shares),
        cpu_share_max=max(shares),
    )
    assert max(shares) < MAX_SHARE
    assert all((s.achieved_hz or 0) > 0.9 * HZ for s, _ in rows)
