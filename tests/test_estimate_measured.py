"""The estimate of memory against what runs on a GPU really took (`data/gpu`, told in docs/gpu.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.catalog import MODELS
from harness.estimate import Memory, estimate_memory
from harness.rates import load_rates
from harness.spec import RunSpec
from harness.workload import workload

MEASURED = json.loads((Path(__file__).parent / "data/gpu/h100-80gb.json").read_text())
GPU_BYTES = MEASURED["gpu"]["total_bytes"]
CARD = load_rates(None)
# Runs of catalogued shapes, whose every row filled the length that the estimate reckons with.
RUNS = [
    pytest.param(run, id=f"{run['cell']}")
    for run in MEASURED["runs"]
    if run["spec"]["model"]["source"] in MODELS
]
SFT = [p for p in RUNS if p.values[0]["spec"]["task"] == "sft"]


def estimated(run: dict) -> Memory:
    spec = RunSpec.model_validate_json(json.dumps(run["spec"]))
    facts = MODELS[spec.model.source]
    return estimate_memory(spec, facts, workload(spec, CARD), GPU_BYTES, CARD)


def in_step(memory: Memory) -> int:
    """What the estimate says of a training step alone, in tensors."""
    return memory.total_bytes - memory.bytes_of("overhead") - memory.bytes_of("evaluation")


@pytest.mark.parametrize("run", RUNS)
def test_a_steps_tensors_are_estimated_within_a_quarter_and_hardly_ever_too_low(run):
    measured = run["peak_bytes"]["torch-allocated"]["train"]
    if run["status"] == "oom-gpu":
        assert in_step(estimated(run)) > GPU_BYTES
    else:
        assert 0.96 < in_step(estimated(run)) / measured < 1.25


@pytest.mark.parametrize("run", [p for p in RUNS if p.values[0]["status"] == "ok"])
def test_the_whole_estimate_is_no_less_than_what_the_gpu_held_while_steps_ran(run):
    assert estimated(run).total_bytes > run["peak_bytes_in_steps"]["nvml-device"]


@pytest.mark.parametrize("run", [p for p in SFT if p.values[0]["spec"]["lora"]])
def test_a_held_out_evaluation_is_estimated_within_a_tenth(run):
    """Where it takes more than a step; by then an adapter has no gradients, which the estimate counts."""
    memory = estimated(run)
    if memory.bytes_of("evaluation"):
        held = memory.total_bytes - memory.bytes_of("overhead")
        measured = run["peak_bytes"]["torch-allocated"]["evaluate"]
        assert held == pytest.approx(measured, rel=0.1)
