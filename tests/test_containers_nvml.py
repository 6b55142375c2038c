"""The GPU path inside a container: the scripted NVML mounted where the driver's would be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from harness.measure.sealing import read_samples
from tests.containers.boxes import Compose, give, me
from tests.containers.prepare import Ready
from tests.scripted_nvml import GPU, UUID

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
        time.sleep(2.5)
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


def test_env_and_doctor_list_the_gpu(compose: Compose, gpu: Sequence[str]):
    told = compose.run("env", options=gpu)
    assert told.returncode == 0, told.stderr
    [found] = json.loads(told.stdout)["gpus"]
    assert (found["uuid"], found["driver_version"]) == (UUID, "580.65.06")
    examined = compose.run("doctor", "--matrix", "cpu", options=gpu)
    assert UUID in examined.stdout
    assert "580.65.06" in examined.stdout


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
    assert summary["notes"] == [
        "NVML process memory not measured: in a container NVML counts host pids"
    ]
