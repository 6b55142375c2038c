"""The sampler process: its rate, its ends, what it leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.measure.sampler import Sampler
from harness.measure.sealing import read_samples
from harness.measure.sources import Sample
from harness.measure.spool import Spool
from harness.samples import SamplerSummary
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
MIB = 2**20


def python(program: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program], **options)


def summary_of(attempt: Path) -> SamplerSummary:
    return SamplerSummary.model_validate_json((attempt / "sampler.json").read_text())


def test_the_spool_writes_missing_values_as_nothing(tmp_path):
    spool = Spool(tmp_path / "memory.csv")
    spool.add([Sample(1, "host", rss_bytes=2, processes=3)])
    assert (tmp_path / "memory.csv").stat().st_size == 0
    spool.close()
    assert (tmp_path / "memory.csv").read_text().splitlines()[1] == "1,host,2,3,,,,,,,,,,"


@pytest.mark.slow
def test_a_peak_of_200_mb_is_seen_and_the_sampler_ends_with_its_target(tmp_path):
    program = (
        "import sys, time\n"
        "sys.stdin.readline()\n"
        f"ballast = bytearray({200 * MIB})\n"
        "for i in range(0, len(ballast), 4096): ballast[i] = 1\n"
        "time.sleep(0.6); del ballast; time.sleep(0.7)\n"
    )
    with python(program, stdin=subprocess.PIPE) as child:
        sampler = Sampler.start(child.pid, tmp_path, hz=20)
        wait_until((tmp_path / "sampler.ready").exists)
        child.stdin.write(b"\n")
        child.stdin.close()
        child.wait()
        wait_until(lambda: not sampler.is_running, 5)
        sampler.stop()
    samples = read_samples(tmp_path)
    growth = samples.rss_bytes.max() - samples.rss_bytes.iloc[0]
    assert growth == pytest.approx(200 * MIB, rel=0.05)
    summary = summary_of(tmp_path)
    assert summary.samples == len(samples)
    assert 10 < summary.achieved_hz < 25
    assert 0.04 < summary.longest_gap_s < 1
    assert summary.lenses == ("rss",)
    assert 0 < summary.sampling_cpu_s < summary.cpu_s
    assert not (tmp_path / "sampler.log").exists()


def test_a_stop_seals_the_summary(tmp_path):
    with python("import time; time.sleep(60)") as child:
        with Sampler.start(child.pid, tmp_path, hz=0.5) as sampler:
            wait_until((tmp_path / "sampler.ready").exists)
        assert not sampler.is_running
        sampler.stop()
        child.kill()
    assert summary_of(tmp_path).samples == 1


@pytest.mark.slow
def test_a_sampler_killed_at_any_moment_leaves_all_but_the_last_second(tmp_path):
    with python("import time; time.sleep(60)") as child:
        sampler = Sampler.start(child.pid, tmp_path, hz=50)
        wait_until((tmp_path / "sampler.ready").exists)
        time.sleep(1.5)
        killed_ns = time.monotonic_ns()
        sampler._process.kill()
        sampler.stop()
        child.kill()
    last_ns = read_samples(tmp_path).t_ns.iloc[-1]
    assert killed_ns - last_ns < 1e9
    assert not (tmp_path / "sampler.json").exists()


def test_the_sampler_ends_when_its_supervisor_is_killed(tmp_path):
    program = (
        "import sys, time; from pathlib import Path\n"
        "from harness.measure.sampler import Sampler\n"
        "sampler = Sampler.start(int(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(sampler._process.pid, flush=True); time.sleep(60)\n"
    )
    with python("import time; time.sleep(60)") as child:
        command = [sys.executable, "-c", program, str(child.pid), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
            supervisor.stdout.readline()
            wait_until((tmp_path / "sampler.ready").exists)
            supervisor.kill()
        wait_until((tmp_path / "sampler.json").exists, 10)
        child.kill()


def test_ctrl_c_is_left_to_the_supervisor(tmp_path):
    with python("import time; time.sleep(60)") as child:
        with Sampler.start(child.pid, tmp_path, hz=50) as sampler:
            wait_until((tmp_path / "sampler.ready").exists)
            os.kill(sampler._process.pid, signal.SIGINT)
            time.sleep(0.2)
            assert sampler.is_running
        child.kill()


def test_a_target_that_is_gone_before_the_start_leaves_a_summary_that_says_so(tmp_path):
    with python("") as child:
        child.wait()
    with Sampler.start(child.pid, tmp_path) as sampler:
        wait_until(lambda: not sampler.is_running)
    assert summary_of(tmp_path).achieved_hz is None
    assert "had ended before" in summary_of(tmp_path).notes[0]


def test_a_gpu_that_can_not_be_read_leaves_a_note_and_rss_goes_on(tmp_path):
    with python("import time; time.sleep(60)") as child:
        with Sampler.start(child.pid, tmp_path, gpus=("GPU-not-here", "GPU-nor-here")):
            wait_until((tmp_path / "sampler.ready").exists)
        child.kill()
    summary = summary_of(tmp_path)
    assert summary.notes
    assert summary.gpus == ()
    assert summary.lenses == ("rss",)


def test_the_sampler_loads_neither_pydantic_nor_pandas():
    program = (
        "import sys, json, harness.measure.sampler\n"
        "print(json.dumps([m for m in ('pydantic', 'pandas', 'numpy') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(done.stdout) == []
