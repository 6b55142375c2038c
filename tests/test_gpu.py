"""On a real GPU: it is found and read, torch's peaks lie within NVML's, and what ends badly leaves nothing.

Run with `pytest -m gpu tests/test_gpu.py` on a machine with a free CUDA GPU; takes about two minutes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness.bench import Outcome, bench
from harness.launch.local import LocalLauncher
from harness.measure.gpus import Gpu, list_gpus
from harness.measure.nvml import has_host_pids
from harness.plan import Request
from harness.progress import Quiet
from harness.view import RunView, load_view
from tests.conftest import MATRIX
from tests.waiting import wait_until

pytestmark = pytest.mark.gpu

MIB = 2**20
GPU_MATRIX = MATRIX.replace("device: cpu", "device: gpu").replace("max_steps: 3", "max_steps: 8")
LENSES = {"rss", "nvml-device"} | ({"nvml-process"} if has_host_pids() else set())
# Holds the GPU but for so many MiB until its stdin closes.
HOLD = """
import sys, torch
torch.cuda.init()
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""
# Half a GiB in an evaluation, then next to nothing in training.
APART = """
import sys
from pathlib import Path
import torch
from harness.worker.journal import Journal
journal = Journal(Path(sys.argv[1]), is_cuda=True)
for name, mib in (("evaluate", 512), ("train", 1)):
    with journal.phase(name):
        torch.empty(mib * 2**20, dtype=torch.uint8, device="cuda")
"""
SUPERVISOR = """
import sys
from harness.cli import main
sys.argv[1:] = ["bench", "--matrix", sys.argv[1], "-o", sys.argv[2], "--no-report", "--quiet"]
main()
"""


def run(folder: Path, text: str = GPU_MATRIX, *, is_cold: bool = False, **changes) -> Outcome:
    (folder / "tiny.yaml").write_text(text)
    request = Request(
        matrix=str(folder / "tiny.yaml"),
        output_dir=folder / "study",
        renders_report=False,
        **changes,
    )
    return bench(request, LocalLauncher(is_cold=is_cold), Quiet())


def views(outcome: Outcome) -> list[RunView]:
    return list(load_view(outcome.store).runs)


def gpu() -> Gpu:
    found = list_gpus()
    assert found.gpus, found.note
    return found.gpus[0]


@contextmanager
def held_but_for(left_mib: int) -> Iterator[None]:
    """Another program's memory on the GPU, all but so many MiB."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(left_mib)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> list[RunView]:
    return views(run(tmp_path_factory.mktemp("warm"), seeds=(0,)))


def test_nvml_describes_the_gpu_and_its_memory_adds_up():
    found = gpu()
    assert found.uuid.startswith("GPU-")
    assert found.driver_version
    assert found.cuda_driver_version
    assert found.compute_capability >= (7, 5)
    reserved = found.total_bytes - found.used_bytes - found.free_bytes
    assert 0 <= reserved < 0.05 * found.total_bytes


def test_warm_runs_of_both_tasks_train_on_the_gpu(warm):
    assert {v.record.status.value for v in warm} == {"ok"}
    assert {v.spec.task for v in warm} == {"sft", "grpo"}
    assert {v.record.result.device for v in warm} == {gpu().uuid}
    assert all(v.record.result.started_warm for v in warm)
    assert {v.resolved_config["device"] for v in warm} == {"cuda"}


def test_every_lens_answers_at_the_rate_that_was_asked_for_or_kept_to(warm):
    for view in warm:
        sampler = view.record.sampler
        assert set(sampler.lenses) == LENSES
        assert sampler.gpus == (gpu().uuid,)
        assert sampler.achieved_hz > 0.9 * (sampler.paced_down_hz or sampler.requested_hz)
        assert sampler.sampling_cpu_s < 0.1 * sampler.wall_s
        peaks = view.summary.peak_bytes
        assert set(peaks) == LENSES | {"torch-reserved", "torch-allocated"}
        assert all(peaks[lens]["training"] for lens in ("nvml-device", "torch-allocated"))


def test_what_torch_holds_lies_within_what_nvml_sees(warm):
    for view in warm:
        peaks = {lens: phases["run"] for lens, phases in view.summary.peak_bytes.items()}
        assert 0 < peaks["torch-allocated"] <= peaks["torch-reserved"] < peaks["nvml-device"]
        if "nvml-process" in peaks:
            assert peaks["torch-reserved"] < peaks["nvml-process"] <= 1.01 * peaks["nvml-device"]


def test_what_an_evaluation_held_is_no_part_of_training(tmp_path):
    subprocess.run([sys.executable, "-c", APART, str(tmp_path)], check=True)
    lines = (tmp_path / "phases.jsonl").read_text().splitlines()
    peaks = {row["phase"]: row["torch_reserved_peak_bytes"] for row in map(json.loads, lines)}
    assert peaks["evaluate"] >= 512 * MIB
    assert peaks["train"] < 256 * MIB


def test_a_step_ends_after_it_began_and_before_the_next_one(warm):
    for view in warm:
        edges = [t for step in view.steps for t in (step.begin_ns, step.end_ns)]
        assert len(view.steps) == 8
        assert edges == sorted(set(edges))


def test_a_fresh_interpreter_trains_the_same_run(tmp_path, warm):
    (cold,) = views(run(tmp_path, is_cold=True, filters=("sft-micro.lora.s0",)))
    (same,) = [v for v in warm if v.planned.cell == "sft-micro.lora.s0"]
    assert not cold.record.result.started_warm
    assert cold.record.result.adapter_sha256 == same.record.result.adapter_sha256
    losses = [[step.logs["loss"] for step in view.steps] for view in (cold, same)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("left_mib", [150, 1100])
def test_a_run_without_room_ends_oom_gpu(tmp_path, left_mib):
    """150 MiB do not hold CUDA's context; 1,100 hold it and not what training takes."""
    text = GPU_MATRIX.replace(
        "per_device_train_batch_size: 4, bf16: false}",
        "per_device_train_batch_size: 512, bf16: false, gradient_checkpointing: false}",
    ).replace("train_rows: 16", "train_rows: 600")
    assert text.count("512") == 1
    with held_but_for(left_mib):
        found = views(run(tmp_path, text, filters=("sft-micro.full.s0",)))
    (record,) = [view.record for view in found if view.record]
    assert record.status.value == "oom-gpu"
    assert "out of memory" in record.reason


def test_a_killed_supervisor_leaves_no_process_and_no_memory(tmp_path):
    (tmp_path / "tiny.yaml").write_text(GPU_MATRIX.replace("max_steps: 8", "max_steps: 4000"))
    before = gpu().used_bytes
    command = [
        sys.executable,
        "-c",
        SUPERVISOR,
        str(tmp_path / "tiny.yaml"),
        str(tmp_path / "study"),
    ]
    supervisor = subprocess.Popen(command, start_new_session=True)
    steps = tmp_path / "study/runs"
    wait_until(lambda: list(steps.glob("*/attempt-1/steps.jsonl")), patience_s=120)
    wait_until(lambda: gpu().used_bytes > before + 100 * MIB, patience_s=60)
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert family
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    end = time.monotonic() + 20
    while gpu().used_bytes > before + 16 * MIB and time.monotonic() < end:
        time.sleep(0.1)
    assert gpu().used_bytes <= before + 16 * MIB
