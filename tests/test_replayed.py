"""Traces beside workers: ramps, time that waits for a phase, and real trainings whose GPUs are scripted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.containers.prepare import ROOT
from tests.nvml.replayed import main
from tests.scripted_nvml import GPU, OTHER_UUID, UUID, variables
from tests.waiting import wait_until

MIB = 2**20
SLICE = "MIG-5c217ed0-0000-4000-8000-00000000000a"
MATRICES = ROOT / "tests" / "data" / "replayed"
# Tells the memory in use whenever a line comes in.
TELL = f"""
import sys, pynvml as nvml
nvml.nvmlInit()
gpu = nvml.nvmlDeviceGetHandleByUUID({UUID!r})
for _ in sys.stdin:
    print(nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2).used // {MIB}, flush=True)
"""


def test_a_ramp_rises_evenly(nvml_library, tmp_path):
    (tmp_path / "script").write_text(GPU + "used_mib 500..7500 from 2.0 to 4.0\n")
    clock = tmp_path / "clock"
    environment = {
        **variables(nvml_library, tmp_path / "script"),
        "SCRIPTED_NVML_CLOCK": str(clock),
    }
    found = {}
    for now_s in (1.9, 2.0, 3.0, 3.5, 4.0):
        clock.write_text(str(now_s))
        done = subprocess.run(
            [sys.executable, "-c", TELL],
            env=environment,
            input="\n",
            capture_output=True,
            text=True,
            check=True,
        )
        found[now_s] = int(done.stdout)
    assert found == {1.9: 8, 2.0: 500, 3.0: 4000, 3.5: 5750, 4.0: 8}


def test_a_trace_waits_for_the_worker_s_phases(nvml_library, tmp_path):
    marks = "mark.begin 10\nmark.load 20\n"
    (tmp_path / "script").write_text(
        marks + GPU + "used_mib 100 from 9\nused_mib 200 from 10.05\nused_mib 300 from 20\n"
    )
    journal = tmp_path / "phases.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", TELL, "--out", str(tmp_path)],
        env=variables(nvml_library, tmp_path / "script"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as teller:
        assert teller.stdin is not None
        assert teller.stdout is not None

        def tell() -> int:
            assert teller.stdin is not None
            assert teller.stdout is not None
            teller.stdin.write("\n")
            teller.stdin.flush()
            return int(teller.stdout.readline())

        assert tell() == 8  # far from the first mark's time: it comes as the clock goes
        journal.touch()
        wait_until(lambda: tell() == 200, 5)  # loading began: ten seconds are over at once
        time.sleep(0.1)
        assert tell() == 200
        journal.write_text('{"phase":"load","begin_ns":1,"end_ns":2}\n')
        wait_until(lambda: tell() == 300, 5)
        teller.stdin.close()


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("--exclusive", "-5", 0), ("--jobs", "-2", 1), ("--jobs", "two", 1)],
)
def test_a_wait_or_a_number_of_jobs_that_makes_no_sense_is_refused(
    tmp_path, monkeypatch, capsys, option, value, least
):
    command = ["replayed", "--matrix", "cpu", option, value, "-o", str(tmp_path / "study")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    expected = f"found {value}, expected a whole number, {least} or more"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@dataclass(frozen=True)
class Played:
    """A trace, what of it the run may see, and what stands there in the trace, in MiB."""

    trace: str
    visible: str
    peak: int
    process_peak: int
    idle: int
    name: str = "NVIDIA Scripted 80GB"


PLAYED = (
    # The first GPU of this trace peaks at 20000, and the GPU of the other answers no question of memory.
    Played("two-gpus", OTHER_UUID, 21000, 20996, 4),
    Played("mig-slice", SLICE, 9800, 9780, 38, "NVIDIA Scripted 80GB MIG 3g.40gb"),
)


def replay(folder: Path, matrix: str, trace: str, visible: str, cells: str) -> dict[str, Any]:
    """Train a run of a small matrix for real beside a trace's GPUs; return the report's data on it."""
    runner = [sys.executable, "-m", "tests.nvml", "--replay", trace, "--each", "--"]
    command = ["python", "-m", "tests.nvml.replayed", "--matrix", str(MATRICES / matrix)]
    command += ["--filter", cells, "--no-forecast", "-o", str(folder / "study")]
    done = subprocess.run(
        [*runner, *command],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": visible},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads((folder / "study" / "report" / "data.json").read_text())
    [run] = [run for run in data["runs"] if run["status"] is not None]
    assert run["status"] == "ok"
    return {**run, "banners": data["banners"]}


@pytest.mark.slow
@pytest.mark.parametrize("played", PLAYED, ids=lambda played: played.trace)
def test_a_real_training_is_measured_by_the_device_that_it_was_given(tmp_path, played):
    """Every figure is the trace's of that device: another device's would be another number."""
    run = replay(tmp_path, "sft.yaml", played.trace, played.visible, "sft.lora-r16.*")
    summary = run["summary"]
    [device] = run["sampler"]["devices"]
    assert (device["uuid"], device["name"]) == (played.visible, played.name)
    assert (device["idle_bytes"], device["has_trusted_pids"]) == (played.idle * MIB, True)

    # Lenses, side by side, phase by phase.
    peaks = summary["peak_bytes"]
    assert peaks["nvml-device"]["training"] == played.peak * MIB
    assert peaks["nvml-process"]["training"] == played.process_peak * MIB
    # Memory rises once the model is loaded, however fast this machine is.
    assert played.idle * MIB <= peaks["nvml-device"]["load"] <= 524 * MIB
    assert peaks["nvml-device"]["load"] < peaks["nvml-device"]["build"] < played.peak * MIB
    statistics = summary["memory_statistics"]
    above = statistics["nvml-above-idle"]["training"]["peak_bytes"]
    assert above == (played.peak - played.idle) * MIB
    assert "torch-reserved" not in statistics, "torch trained on the CPU"
    assert peaks["rss"]["training"] > 100 * MIB

    # A grade for each, with reasons; what a slice can't tell is said and not taken as good.
    grades = summary["grades"]
    assert set(grades) == {"rss", "nvml-device", "nvml-above-idle", "nvml-process", "run"}
    assert all(grade["reasons"] for grade in grades.values() if grade["grade"] != "A")
    assert ("Throttling: not measured." in grades["run"]["reasons"]) == (played.visible == SLICE)

    parts = {part["name"]: part["bytes"] for part in run["peak_parts"]["parts"]}
    counts = run["result"]["parameters"]
    assert run["peak_parts"]["lens"] == "nvml-device"
    assert parts["held before the run"] == played.idle * MIB
    assert parts["weights"] == 4 * counts["total"]
    assert parts["optimizer state"] == 2 * parts["gradients"] == 8 * counts["trainable"]
    assert sum(parts.values()) == played.peak * MIB

    assert any("NVIDIA Scripted 80GB" in banner["text"] for banner in run["banners"])


@pytest.mark.slow
def test_two_processes_have_a_gpu_each_and_their_sum_at_each_instant(tmp_path):
    """The second GPU peaks after the first; for 0.6 s of each second they do so together."""
    both = f"{UUID},{OTHER_UUID}"
    run = replay(tmp_path, "two-gpus.yaml", "two-gpus", both, "sft.lora-r16.*")
    summary = run["summary"]
    assert run["result"]["distributed"]["processes"] == 2
    assert summary["peak_bytes_by_device"] == {UUID: 20000 * MIB, OTHER_UUID: 21000 * MIB}
    assert summary["peak_bytes"]["nvml-device"]["training"] == 41000 * MIB
    each = summary["device_statistics"]
    assert list(each) == [UUID, OTHER_UUID]
    held = {uuid: of["nvml-process"]["training"]["peak_bytes"] for uuid, of in each.items()}
    assert held == {UUID: 19996 * MIB, OTHER_UUID: 20996 * MIB}
    assert run["peak_parts"]["total_bytes"] == 20000 * MIB, "of the first process's GPU"
    assert summary["power_w_mean"] == pytest.approx(630)
