"""The GPU path inside a container: the scripted NVML mounted where the driver's would be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from harness.measure.sealing import read_samples
from tests.containers.boxes import Compose, give, me
from tests.containers.prepare import ROOT, Ready
from tests.scripted_nvml import GPU, UUID, find_trace, without_pace

pytestmark = pytest.mark.docker

MIB = 2**20
USER = "4242:4242"
# A worker and the sampler beside it, in one container, as `bench` starts them there.
SAMPLE = """
import subprocess, sys, time
from pathlib import Path
from harness.measure.sampler import Sampler
folder = Path("/work/results")
with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
    with Sampler.start(worker.pid, folder, hz=20, gpus=(sys.argv[1],)):
        time.sleep(6)  # the sampler starts, and a second later memory rises
    worker.kill()
"""


@pytest.fixture
def gpu(nvml_library: Path, tmp_path: Path) -> Sequence[str]:
    """Options that put a scripted GPU into a container; process 1 of the host runs on it."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    for each in (folder, nvml_library):
        each.chmod(0o755)  # pytest's folders are their user's alone
    (folder / "script").write_text(f"{GPU}used_mib 700 from 1\nprocess.1 600\nprocess.7 600\n")
    mounts = (f"{nvml_library}:/opt/nvml:ro", f"{folder}:/opt/nvml-script:ro")
    variables = ("LD_LIBRARY_PATH=/opt/nvml", "SCRIPTED_NVML=/opt/nvml-script/script")
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    return [*volumes, *(word for variable in variables for word in ("-e", variable))]


def test_env_lists_the_gpu(compose: Compose, gpu: Sequence[str]):
    told = compose.run("env", options=gpu)
    assert told.returncode == 0, told.stderr
    [found] = json.loads(told.stdout)["gpus"]
    assert (found["uuid"], found["driver_version"]) == (UUID, "580.65.06")


def test_doctor_lists_the_gpu_and_says_what_a_container_can_not_see(
    compose: Compose, gpu: Sequence[str]
):
    told = compose.run("doctor", "--matrix", "blog", "--json", options=gpu)
    assert told.returncode == 7  # a matrix of many GPUs, on a CPU image
    checks = {c["name"]: c for c in map(json.loads, told.stdout.splitlines())}
    found = checks["gpu"]["value"]
    assert (found["uuid"], found["driver_version"]) == (UUID, "580.65.06")
    assert (found["compute_capability"], found["is_ecc_enabled"]) == ([9, 0], True)
    assert "process ids here are not the host's" in checks["process lens"]["text"]
    assert checks["busy"]["value"]["processes"][0] == {"pid": 1, "used_bytes": 600 * MIB}
    assert checks["place"]["value"]["variant"] == "cpu"


def test_two_studies_at_once_on_one_gpu_know_of_each_other(compose: Compose, gpu: Sequence[str]):
    slots = 'find_slots(load_matrix("cpu").matrix, "gpu")'
    with compose.hold(slots, gpu) as first, compose.hold(slots, gpu) as second:
        assert first == "held ()"
        assert second == f"held ('GPU {UUID}',)"
    with compose.hold(slots, gpu) as after:
        assert after == "held ()"


def test_the_sampler_reads_the_device_and_says_that_process_ids_are_foreign(
    compose: Compose, ready: Ready, gpu: Sequence[str], tmp_path: Path
):
    results = tmp_path / "results"
    results.mkdir()
    give(ready, results, USER)
    options = (*gpu, "--entrypoint", "python")
    done = compose.run("-c", SAMPLE, UUID, results=results, user=USER, options=options)
    give(ready, results, me())
    assert done.returncode == 0, done.stderr
    samples = read_samples(results)
    readings = samples[samples.device == UUID]
    assert readings.nvml_device_bytes.drop_duplicates().tolist() == [8 * MIB, 700 * MIB]
    assert readings.power_w.dropna().unique().tolist() == [250.5]
    # Processes 1 and 7 exist in the container too: to add them up would be to measure strangers.
    assert readings.nvml_process_bytes.isna().all()
    assert pd.Series(samples[samples.device == "host"].rss_bytes).min() > MIB
    summary = json.loads((results / "sampler.json").read_text())
    assert summary["lenses"] == ["rss", "nvml-device"]
    [device] = summary["devices"]
    assert (device["uuid"], device["idle_bytes"]) == (UUID, 8 * MIB)
    assert (device["has_trusted_pids"], device["foreign_pids"]) == (False, [])
    assert without_pace(summary["notes"]) == [
        "NVML process memory not measured: process ids here are not the host's, which NVML counts; the "
        "GPU's memory above its idle memory stands for the run"
    ]


@pytest.fixture
def foreign(nvml_library: Path) -> Sequence[str]:
    """Options that put the GPU of a trace into a container, and beside the harness what replays it."""
    nvml_library.chmod(0o755)
    mounts = (f"{nvml_library}:/opt/nvml:ro", f"{ROOT / 'tests'}:/opt/replay/tests:ro")
    variables = (
        "LD_LIBRARY_PATH=/opt/nvml",
        f"SCRIPTED_NVML=/opt/replay/tests/nvml/traces/{find_trace('foreign-pids').name}",
        "PYTHONPATH=/opt/replay",
    )
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    return [*volumes, *(word for variable in variables for word in ("-e", variable))]


def test_a_study_where_process_ids_are_foreign_stands_on_the_device_above_idle(
    compose: Compose, ready: Ready, foreign: Sequence[str], tmp_path: Path
):
    """A real training in the container, and its report: whose memory it was is not made up."""
    results = tmp_path / "results"
    results.mkdir()
    give(ready, results, USER)
    words = ("-m", "tests.nvml.replayed", "--matrix", "/opt/replay/tests/data/replayed/sft.yaml")
    words += ("--filter", "sft.full.*", "-o", "/work/results/study")
    options = (*foreign, "--entrypoint", "python")
    done = compose.run(*words, results=results, user=USER, options=options)
    give(ready, results, me())
    assert done.returncode == 0, done.stderr
    report = results / "study" / "report"
    [run] = json.loads((report / "data.json").read_text())["runs"]
    summary = run["summary"]
    assert "nvml-process" not in summary["peak_bytes"]
    assert summary["peak_bytes"]["nvml-device"]["training"] == 9000 * MIB
    above = summary["memory_statistics"]["nvml-above-idle"]["training"]
    assert above["peak_bytes"] == (9000 - 4) * MIB
    [device] = run["sampler"]["devices"]
    assert (device["has_trusted_pids"], device["foreign_pids"]) == (False, [])
    assert summary["grades"]["nvml-device"]["grade"] != "A"
    assert any("another namespace" in r for r in summary["grades"]["nvml-device"]["reasons"])
    parts = {part["name"]: part["bytes"] for part in run["peak_parts"]["parts"]}
    assert parts["held before the run"] == 4 * MIB
    assert sum(parts.values()) == 9000 * MIB
    shown = (report / "report.md").read_text()
    assert "NVML device memory above idle (stands for the run: process ids are foreign)" in shown
    assert "of another namespace: the device above idle stands for a run" in shown
    assert "NVML process memory |" not in shown
    assert "NVIDIA Scripted 80GB is not of these trainings" in shown
