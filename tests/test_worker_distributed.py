"""Real runs of the micro model in two processes on the CPU, through `accelerate launch` and gloo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.launch import Launch
from harness.launch.ending import Ending
from harness.launch.local import LocalLauncher
from harness.launch.watch import Limits, Watched
from harness.matrix import expand, parse_matrix
from harness.parity import undeclared_differences
from harness.record import Distributed, Status
from harness.settings import Parallel, Strategy
from harness.spec import RunSpec
from tests.conftest import MATRIX
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
LIMITS = Limits(timeout_s=300, stall_s=300)


def spec_of(cell: str, per_device: int, strategy: Strategy | None, **trainer: Any) -> RunSpec:
    """A run of the small matrix in fp32, 16 rows a step, validated every other step."""
    spec = next(s for s in expand(parse_matrix(MATRIX, "m")) if s.cell == cell)
    sizes = {"per_device_train_batch_size": per_device, "max_steps": 4}
    dataset = spec.dataset.model_copy(update={"train_rows": 64, "validation_rows": 8})
    return spec.model_copy(
        update={
            "trainer": {**spec.trainer, "bf16": False, **sizes, **trainer},
            "dataset": dataset,
            "evaluation": spec.evaluation.model_copy(update={"every_steps": 2}),
            "parallel": Parallel(processes=2, strategy=strategy) if strategy else None,
        }
    )


def train(folder: Path, spec: RunSpec) -> tuple[Ending, Path]:
    """Train a run as the supervisor would, and return how it ended and its attempt's folder."""
    attempt = folder / "attempt-1"
    attempt.mkdir(parents=True)
    launch = Launch(parallel=spec.parallel, waits_for_sampler=False)
    (folder / "spec.json").write_text(spec.model_dump_json())
    (attempt / "launch.json").write_text(launch.model_dump_json())
    with LocalLauncher(is_cold=True) as launcher:
        watched = Watched(launcher.start(attempt, launch), attempt, LIMITS)
        wait_until(watched.poll, 300)
        ending = watched.poll()
    assert ending is not None
    return ending, attempt


def lines(attempt: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (attempt / name).read_text().splitlines()]


def column(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] if name in row else row["logs"][name] for row in rows]


@pytest.mark.parametrize("cell", ["sft-micro.full.s0", "sft-micro.lora.s0"])
def test_two_processes_train_the_numbers_of_one(tmp_path, cell):
    one, alone = train(tmp_path / "one", spec_of(cell, 16, None))
    two, together = train(tmp_path / "two", spec_of(cell, 8, "ddp"))
    assert (one.status, two.status) == (Status.OK, Status.OK)
    rows, expected = lines(together, "steps.jsonl"), lines(alone, "steps.jsonl")
    assert column(rows, "step") == [1, 2, 3, 4]
    assert column(rows, "loss") == pytest.approx(column(expected, "loss"), abs=1e-4)
    assert column(rows, "grad_norm") == pytest.approx(column(expected, "grad_norm"), rel=1e-4)
    assert column(rows, "tokens") == column(expected, "tokens")  # of all processes
    assert column(rows, "samples") == column(expected, "samples") == [16] * 4
    assert one.result is not None
    assert two.result is not None
    for mine, theirs in zip(two.result.evaluations, one.result.evaluations, strict=True):
        assert (mine.step, mine.split, mine.rows) == (theirs.step, theirs.split, theirs.rows)
        assert mine.value == pytest.approx(theirs.value, abs=1e-4)
    assert two.result.adapter_sha256 == one.result.adapter_sha256
    assert two.result.parameters == one.result.parameters
    assert one.result.distributed is None
    assert two.result.distributed == Distributed(
        processes=2, asked="ddp", type="MULTI_CPU", wrapper="DistributedDataParallel"
    )
    resolved = [json.loads((a / "resolved_config.json").read_text()) for a in (alone, together)]
    assert undeclared_differences(*resolved, ("per_device_train_batch_size",)) == []
    assert [p["phase"] for p in lines(together, "phases.jsonl")].count("train") == 1


def test_grpo_trains_in_two_processes(tmp_path):
    ending, attempt = train(tmp_path, spec_of("grpo-micro.full.s0", 4, "ddp", max_steps=2))
    assert ending.status is Status.OK, ending.reason
    assert ending.result is not None
    assert ending.result.distributed is not None
    assert ending.result.distributed.type == "MULTI_CPU"
    assert [(p.split, p.step) for p in ending.result.evaluations] == [
        ("validation", 0), ("test", 0), ("validation", 2), ("test", 2),
    ]  # fmt: skip
    rows = lines(attempt, "steps.jsonl")
    assert column(rows, "samples") == [8, 8]  # two prompts, four completions each
    assert all(0 <= reward <= 1 for reward in column(rows, "reward"))
    assert [p["phase"] for p in lines(attempt, "phases.jsonl")].count("generate") == 2


def test_sharding_that_accelerate_silently_leaves_out_stops_the_run(tmp_path):
    """The plan refuses this; here it gets through to accelerate, which runs plain DDP on a CPU."""
    ending, attempt = train(tmp_path, spec_of("sft-micro.full.s0", 8, "fsdp2"))
    assert ending.status is Status.CONFIG
    assert ending.reason == (
        "strategy fsdp2 over 2 processes was asked for, and accelerate ran MULTI_CPU over 2 with "
        "DistributedDataParallel; sharding needs a GPU for each process, so run it there or ask for ddp"
    )
    assert ending.result is not None
    assert ending.result.steps_done == 0
    assert ending.result.distributed == Distributed(
        processes=2, asked="fsdp2", type="MULTI_CPU", wrapper="DistributedDataParallel"
    )
    assert lines(attempt, "steps.jsonl") == []
