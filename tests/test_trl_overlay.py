"""One matrix under several releases of TRL, for real: installed first on the path, run by the CLI.

Needs a package index; a release that can't be downloaded is a skip with its reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.record import Record, Status
from harness.store import Store

pytestmark = pytest.mark.slow

# Each release meets arguments that are older or newer than it.
MATRIX = """\
format: 1
name: overlay
title: Arguments of several releases
scale: embedded
device: cpu
seeds: [0]
warmup_steps_excluded: 0
trainer:
  sft:
    max_steps: 2
    per_device_train_batch_size: 4
    bf16: false
    gradient_checkpointing: true
    warmup_ratio: 0.5
    max_seq_length: 64
    loss_type: chunked_nll
    shuffle_dataset: false
    train_sampling_strategy: random
  grpo:
    max_steps: 2
    per_device_train_batch_size: 8
    num_generations: 4
    generation_batch_size: 16
    max_completion_length: 12
    max_prompt_length: 64
    bf16: false
    warmup_steps: 0
    loss_type: dr_grpo
    scale_rewards: none
    top_k: 0
    beta: 0.0
    use_bias_correction_kl: true
    vllm_importance_sampling_clip_max: 2.0
pairs:
  sft-micro:
    task: sft
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 16, test_rows: 8}
    margin: 0.02
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}
  grpo-micro:
    task: grpo
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-arithmetic, train_rows: 16, test_rows: 8}
    reward: accuracy
    margin: 0.05
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora: {method: lora, lora: {r: 1}, trainer: {learning_rate: 1e-3}}
"""

OLD_LINE = (
    "transformers==4.57.6",
    "huggingface_hub==0.36.2",
    "tokenizers==0.22.2",
    "datasets==4.8.5",
)
# GRPOTrainer imports trackio where it is installed, and one of today needs a later huggingface_hub: an
# environment of the old line has none. A None here is what Python itself takes for 'not installed'.
HIDE_TRACKIO = 'import sys\nsys.modules["trackio"] = None\n'
MAX_LENGTH = {"max_seq_length": "max_length=64"}
WARMUP = {"warmup_ratio": "warmup_steps=0.5"}
CAP = {"vllm_importance_sampling_clip_max": "vllm_importance_sampling_cap=2.0"}
LIMIT = {"max_prompt_length": "dataset.max_prompt_tokens=64"}
CHUNKED = {"loss_type": 'loss_type="nll"'}
# Requirements, and what becomes of the arguments of either task: None is left out.
RELEASES: dict[tuple[str, ...], tuple[dict[str, str | None], dict[str, str | None]]] = {
    ("trl==0.24.0", *OLD_LINE): (
        MAX_LENGTH | CHUNKED
        | {"shuffle_dataset": None, "train_sampling_strategy": "group_by_length=false"},
        CAP | {"top_k": "top_k=null", "use_bias_correction_kl": None},
    ),
    ("trl==0.28.0", *OLD_LINE): (
        MAX_LENGTH | CHUNKED | {"train_sampling_strategy": "group_by_length=false"},
        CAP | LIMIT,
    ),
    ("trl==0.29.1",): (MAX_LENGTH | CHUNKED | WARMUP, CAP | LIMIT),
    ("trl==1.0.0",): (MAX_LENGTH | CHUNKED | WARMUP, CAP | LIMIT),
    (): (MAX_LENGTH | CHUNKED | WARMUP, LIMIT),
}  # fmt: skip


@dataclass(frozen=True)
class Overlay:
    """A folder with other releases than the installed ones, and a matrix to run under them."""

    folder: Path
    matrix: Path

    def bench(self, study: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the matrix under the overlay."""
        command = [sys.executable, "-m", "harness.cli", "bench", "--matrix", str(self.matrix)]
        paths = (str(self.folder), os.environ["PYTHONPATH"])
        return subprocess.run(
            [*command, "--output-dir", str(study), "--jobs", "1", *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False, capture_output=True, text=True,
        )  # fmt: skip


def overlay(folder: Path, *requirements: str) -> Overlay:
    """Install requirements into a folder; skip the test where there is no index to take them from."""
    matrix = folder / "overlay.yaml"
    matrix.write_text(MATRIX)
    packages = folder / "packages"
    packages.mkdir()
    if set(OLD_LINE) <= set(requirements):
        (packages / "sitecustomize.py").write_text(HIDE_TRACKIO)
    if requirements:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*pip, "--target", str(packages), *requirements],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            pytest.skip(f"can't install {' '.join(requirements)}: {last}")
    return Overlay(packages, matrix)


def records(study: Path) -> dict[str, Record]:
    """The records of a study by pair and arm."""
    store = Store(study)
    found = {}
    for planned in store.read_study().planned:
        record = store.read_record(planned.run_id)
        assert record is not None
        assert record.result is not None
        found[f"{planned.pair}.{planned.arm}"] = record
    return found


@pytest.mark.parametrize("requirements", RELEASES, ids=lambda r: r[0] if r else "installed")
def test_a_matrix_runs_under_a_release_and_says_what_was_translated(requirements, tmp_path):
    done = overlay(tmp_path, *requirements).bench(study := tmp_path / "study", "--cold")
    assert done.returncode == 0, done.stderr[-2000:]
    found = records(study)
    assert {name: record.status for name, record in found.items()} == dict.fromkeys(
        ("sft-micro.full", "sft-micro.lora", "grpo-micro.full", "grpo-micro.lora"), Status.OK
    )
    for expected, task in zip(RELEASES[requirements], ("sft", "grpo"), strict=True):
        for arm in ("full", "lora"):
            said = found[f"{task}-micro.{arm}"].result.translations
            assert {t.argument: t.became for t in said} == expected
    check_environments(study, dict(requirement.split("==") for requirement in requirements))


def check_environments(study: Path, expected: dict[str, str]) -> None:
    """Every attempt names the overlay's releases, and not those that the overlay hides."""
    files = list(study.glob("runs/*/attempt-1/environment.json"))
    assert files
    for file in files:
        environment = json.loads(file.read_text())
        listed = [line.replace("-", "_") for line in environment["installed"]["list"]]
        for name, version in expected.items():
            assert environment["packages"][name.replace("_", "-")] == version
            assert [line for line in listed if line.startswith(f"{name}==")] == [
                f"{name}=={version}"
            ]


def test_workers_are_forked_under_the_old_line_too(tmp_path):
    requirements = next(iter(RELEASES))
    done = overlay(tmp_path, *requirements).bench(study := tmp_path / "study")
    assert done.returncode == 0, done.stderr[-2000:]
    results = [record.result for record in records(study).values()]
    assert len(results) == 4
    assert all(r.started_warm and r.translations for r in results)


@pytest.mark.parametrize("mode", [(), ("--cold",)], ids=["warm", "cold"])
@pytest.mark.parametrize(
    ("release", "reasons"),
    [
        (
            "trl==1.15.0",
            {"sft": "can't train without Triton", "grpo": "can't train without Triton"},
        ),
        ("trl==0.28.0", {"sft": None, "grpo": "can't be imported under transformers 5"}),
        ("trl==0.26.2", {"sft": "trains on prompts too", "grpo": "can't be imported"}),
    ],
)
def test_releases_that_cannot_train_together_are_named_in_the_record(
    release, reasons, mode, tmp_path
):
    done = overlay(tmp_path, release).bench(study := tmp_path / "study", *mode)
    assert done.returncode == 3, done.stderr[-2000:]
    for name, record in records(study).items():
        reason = reasons[name.partition("-")[0]]
        assert record.status is (Status.UNAVAILABLE if reason else Status.OK)
        assert reason is None or reason in record.reason


def test_what_a_release_cannot_be_given_stops_before_a_worker_starts(tmp_path):
    old = overlay(tmp_path, *next(iter(RELEASES)))
    done = old.bench(study := tmp_path / "study", "--set", "beta=0.1", "--dry-run")
    assert done.returncode == 2
    assert "use_bias_correction_kl=true: GRPOConfig (trl 0.24.0, " in done.stderr
    assert not study.exists()
