"""What the sampler costs the run that it watches: its share of a core, and the rate it keeps.

    python -m pytest -m '' -s benchmarks/speed/test_sampler_cost.py

A process tree of three, whose root never sleeps, is sampled at several rates: RSS alone, and with one and
two GPUs of the scripted NVML through the unmodified pynvml. The share is the sampler's own CPU time over
wall time, start-up apart. Most of it is waking up and what a sleep has pushed out of the caches, so it
grows beside other load, and the sampler lowers its rate rather than go over its share. What this leaves
out: a real driver, whose calls cost about 10 us for memory and 3 ms for the energy counter.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.speed.recorded import CLOCK, record
from harness.measure.sampler import Sampler
from harness.samples import SamplerSummary
from tests.scripted_nvml import OTHER_UUID, UUID, NoCompiler, compile_library, find_trace, variables

RATES_HZ = (20.0, 50.0, 100.0, 200.0)
GPUS = ((), (UUID,), (UUID, OTHER_UUID))
WATCHED_S = 10.0
# Most of a core that may go: 1 % at 50 Hz, 5 % at 200; a tenth more for what ten seconds did not yet repay.
MAX_SHARES = {50.0: 0.011, 200.0: 0.055}
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


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted NVML; without a compiler there is nothing to measure."""
    try:
        return compile_library(tmp_path_factory.mktemp("nvml"))
    except NoCompiler as error:
        pytest.skip(str(error))


def sample_for(
    seconds: float, pid: int, attempt: Path, hz: float, gpus: tuple[str, ...]
) -> tuple[SamplerSummary, float]:
    """Sample a process tree; return the sampler's summary and its start-up in seconds."""
    attempt.mkdir()
    begin = time.monotonic()
    with Sampler.start(pid, attempt, hz, gpus):
        while not (attempt / "sampler.ready").exists():
            time.sleep(0.001)
        startup_s = time.monotonic() - begin
        time.sleep(seconds)
    text = (attempt / "sampler.json").read_text(encoding="utf-8")
    return SamplerSummary.model_validate_json(text), startup_s


@pytest.mark.benchmark(timer=CLOCK, group="sampler, CPU seconds of ten seconds")
def test_the_sampler_keeps_within_its_share_of_a_core(
    benchmark, busy_pid, library, tmp_path, monkeypatch
):
    for name, value in variables(library, find_trace("two-gpus")).items():
        monkeypatch.setenv(name, value)
    print(
        f"\n{'Hz':>5} {'GPUs':>5} {'reached':>8} {'lowered to':>11} {'longest gap':>12} "
        f"{'start-up':>9} {'share of a core':>16} {'a sample':>9}"
    )
    shares: dict[tuple[float, int], float] = {}
    spent: list[float] = []
    for hz in RATES_HZ:
        for gpus in GPUS:
            folder = tmp_path / f"{hz:.0f}-{len(gpus)}"
            found, startup_s = sample_for(WATCHED_S, busy_pid, folder, hz, gpus)
            share = found.sampling_cpu_s / found.wall_s
            lowered = f"{found.paced_down_hz:.0f}" if found.paced_down_hz else "-"
            print(
                f"{hz:>5.0f} {len(gpus):>5} {found.achieved_hz:>8.1f} {lowered:>11} "
                f"{1000 * (found.longest_gap_s or 0):>9.1f} ms {startup_s * 1000:>6.0f} ms {share:>15.2%} "
                f"{1e6 * found.sampling_cpu_s / found.samples:>6.0f} us"
            )
            shares[hz, len(gpus)] = share
            spent.append(found.sampling_cpu_s)
    record(
        benchmark,
        spent,
        **{f"cpu_share_{hz:.0f}_hz_{gpus}_gpus": share for (hz, gpus), share in shares.items()},
    )
    for (hz, _), share in shares.items():
        assert share < MAX_SHARES.get(hz, 1.0)
