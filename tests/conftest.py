"""What several tests need: a small valid matrix, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.containers.fixtures import (  # noqa: F401 - fixtures and hooks of the tests marked docker
    compose,
    nvml_library,
    older_image,
    pytest_runtest_logreport,
    pytest_terminal_summary,
    ready,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that tests start import the tests' stand-ins from whatever folder they run in.
os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)

MATRIX = """\
format: 1
name: tiny
title: Two pairs for tests
scale: embedded
device: cpu
seeds: [0, 1]
warmup_steps_excluded: 1
trainer:
  sft: {max_steps: 3, per_device_train_batch_size: 4, bf16: false}
  grpo: {max_steps: 3, per_device_train_batch_size: 8, num_generations: 4, bf16: false}
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
    reward: reasoning_accuracy
    margin: 0.05
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora-r1: {method: lora, lora: {r: 1}, trainer: {learning_rate: 1e-3}}
"""


@pytest.fixture(autouse=True)
def places_of_their_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores are free, whatever tests beside this one or benchmarks of the machine hold."""
    monkeypatch.setenv("HARNESS_LOCKS", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def matrix_text() -> str:
    """The text of a valid matrix: 2 pairs × 2 arms × 2 seeds."""
    return MATRIX
