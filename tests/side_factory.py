"""Sides of comparisons, made by hand: what tests of baselines and of bisecting hold against each other."""

from __future__ import annotations

from typing import Any

from harness.compare.side import RunSide, Side
from harness.probe import Check, Probe, ProbeStep
from harness.record import EvaluationPoint, Status


def make_run(cell: str = "sft-plain.full.s0", shift: float = 0.0, **fields: Any) -> RunSide:
    """One run of three steps; `shift` moves its losses."""
    pair, arm, seed = cell.split(".")
    points = tuple(
        EvaluationPoint(step=s, split="test", metric="nll", value=2.5 - s / 10, rows=4, wall_s=0.1)
        for s in (0, 3)
    )
    made: dict[str, Any] = {
        "cell": cell,
        "pair": pair,
        "arm": arm,
        "seed": int(seed[1:]),
        "task": "grpo" if pair.startswith("grpo") else "sft",
        "method": "full" if arm == "full" else "lora",
        "spec_sha256": "a" * 64,
        "status": Status.OK,
        "config": {"learning_rate": 1e-4, "bf16": False, "betas": [0.9, 0.999], "hub": None},
        "series": {
            "loss": (2.0 + shift, None, 1.5 + shift),
            "grad_norm": (0.1, 0.30000000000000004, 1e-22),
        },
        "tokens": (100.0, 90.0, None),
        "step_wall_s": (0.25, 0.2, 0.21),
        "probe": make_probe(),
        "evaluations": points,
        "peak_bytes": {"rss": {"train": 2**30, "generate": None}},
        "growth_bytes": {"rss": 2**20, "nvml-device": None},
        "adapter_sha256": None if arm == "full" else "b" * 64,
    }
    return RunSide(**(made | fields))


def make_probe() -> Probe:
    """What a probed run of three steps measured."""
    steps = tuple(
        ProbeStep(
            step=number,
            cpu_s=0.01 * number,
            rss_bytes=2**20,
            losses=(2.0, None),
            batches=("c" * 8, "d" * 8),
            counts={"sequences": 4},
            numbers={"advantages/mean": -0.1},
            gradient={"attention.lora_A": 1.25},
            update={"attention.lora_A": None},
            sha256=f"{number}" * 64,
        )
        for number in (1, 2, 3)
    )
    checks = {
        "merged": Check(value=(0.5, 1, "x", None, True), is_exact=False, what="logits"),
        "dtype": Check(value="float32", what="of the adapter"),
    }
    return Probe(
        construct_cpu_s=0.5,
        dtypes={"torch.float32": 1000},
        initial_sha256="0" * 64,
        steps=steps,
        checks=checks,
    )


def make_side(*cells: str, **fields: Any) -> Side:
    """A side of some cells, of TRL 1.16.0 unless told otherwise."""
    runs = tuple(make_run(cell) for cell in cells or ("sft-plain.full.s0", "grpo-plain.lora-r1.s0"))
    made: dict[str, Any] = {
        "label": "TRL 1.16.0",
        "matrix_name": "upgrade",
        "matrix_hash": "e" * 64,
        "harness_version": "0.1.0",
        "created_utc": "2026-01-02T03:04:05Z",
        "packages": {"trl": "1.16.0", "transformers": "5.23.0", "vllm": None},
        "platform": {"cpu_model": "Some CPU", "machine": "x86_64", "memory_bytes": 2**33},
        "runs": runs,
        "replay": {"template/qwen": "<|im_start|>", "reward/1": 0.5, "tokens/2": None},
        "margins": {"sft-plain": 0.02},
        "runs_count": len(runs),
    }
    return Side(**(made | fields))
