"""A synthetic study, realistic and seeded: what the tests of the report read.

Two pairs (sft and grpo) by two or three arms by three seeds, with steps, phases, memory samples and
evaluations as a real worker and sampler would leave them, through the same models. `build_study`
takes what should have gone wrong: failed runs, runs that never started, hostile text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.matrix import Choices, expand
from harness.record import Attempt, Exit, PlannedRun, Record, Result, Status, Study
from harness.samples import MEMORY_COLUMNS, PhaseRow, SamplerSummary
from harness.selection import choose, grid_points
from harness.settings import DatasetSpec, Evaluation, Lora, Model
from harness.spec import Arm, Matrix, Pair, RunSpec
from harness.summary import summarise
from harness.view import RunView, StudyView
from tests.study_parts import (
    SECOND,
    START_NS,
    STEPS,
    evaluations,
    parameters,
    resolved,
    timeline,
)

HOSTILE = "<script>alert(1)</script> {{7*7}} | `x` [a](javascript:1) \x1b[31mred\x1b[0m \u2028\"'&"
MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """What the synthetic study looks like."""

    arms: int = 2
    seeds: tuple[int, ...] = (0, 1, 2)
    # cell ('pair.arm.sSEED') → status; 'missing' is a planned run without a record
    failures: Mapping[str, str] = field(default_factory=dict)
    hostile: bool = False
    problems: tuple[str, ...] = ()
    hz: float = 20.0
    has_gpu: bool = False
    scale: str = "embedded"
    source: str = "embedded:micro-llama"
    # what a run's held-out metric has more than the plain curve at a step
    offset: Callable[[RunSpec, int], float] = lambda _spec, _step: 0.0


def build_study(plan: Plan | None = None, matrix: Matrix | None = None) -> StudyView:
    """Build a study as `store` would read it back; of any matrix, its grids' runs included."""
    plan = plan or Plan()
    matrix = matrix or build_matrix(plan)
    grid = tuple(_run(plan, matrix, spec) for spec in expand(matrix) if spec.stage == "select")
    chosen = choose(matrix, grid_points((run.planned, run.record) for run in grid))
    runs = tuple(
        _run(plan, matrix, _spec(matrix, pair, arm, seed, chosen))
        for pair in matrix.pairs
        for seed in matrix.seeds
        for arm, each in matrix.pairs[pair].arms.items()
        if not each.is_swept or (pair, each.rate_of or arm) in chosen
    )
    return StudyView(
        name="cpu",
        study=Study(
            matrix_name=matrix.name,
            matrix_text="format: 1\nname: cpu\n",
            matrix_hash="0" * 64,
            margins_hash="1" * 64,
            planned=tuple(r.planned for r in (*grid, *runs)),
            created_utc="2026-01-02T03:04:05Z",
            harness_version="0.1.0",
            command="harness bench --matrix cpu",
        ),
        matrix=matrix,
        runs=runs,
        grid=grid,
        problems=plan.problems + ((HOSTILE,) if plan.hostile else ()),
    )


def build_matrix(plan: Plan) -> Matrix:
    """Build the matrix: one sft and one grpo pair."""
    text = HOSTILE if plan.hostile else ""
    model = Model(source=plan.source, label="micro Llama, 1 M" + text)
    ranks = {"sft": (32, 4), "grpo": (1, 8)}
    pairs = {}
    for task, dataset, margin in (("sft", "micro-sum", 0.02), ("grpo", "micro-reverse", 0.05)):
        arms = {"full": Arm(method="full", trainer={"learning_rate": 1e-4})}
        for rank in ranks[task][: plan.arms - 1]:
            arms[f"lora-r{rank}"] = Arm(
                method="lora", lora=Lora(r=rank), trainer={"learning_rate": 1e-3}
            )
        pairs[f"{task}-micro"] = Pair(
            task=task,  # type: ignore[arg-type]
            model=model,
            dataset=DatasetSpec(name=dataset, train_rows=512, validation_rows=64, test_rows=128),
            reward="reasoning_accuracy" if task == "grpo" else None,
            evaluation=Evaluation(every_steps=10 if task == "sft" else 50),
            arms=arms,
            margin=margin,
            margin_reason="a tenth of what training gains" + text,
        )
    return Matrix(
        format=1,
        name="cpu",
        title="Micro model on the CPU" + text,
        description="Shows that the harness works." + text,
        scale=plan.scale,  # type: ignore[arg-type]
        seeds=plan.seeds,
        pairs=pairs,
    )


def _spec(matrix: Matrix, pair: str, arm: str, seed: int, chosen: Choices) -> RunSpec:
    p = matrix.pairs[pair]
    rate = chosen.get((pair, p.arms[arm].rate_of or arm))
    swept = {} if rate is None else {"learning_rate": rate}
    return RunSpec(
        pair=pair,
        arm=arm,
        seed=seed,
        task=p.task,
        method=p.arms[arm].method,
        model=p.model,
        dataset=p.dataset,
        reward=p.reward,
        lora=p.arms[arm].lora,
        trainer={
            "max_steps": STEPS[p.task],
            **p.trainer,
            **p.arms[arm].trainer,
            **swept,
            "seed": seed,
        },
        evaluation=p.evaluation,
        seed_offset=p.arms[arm].seed_offset,
    )


def _run(plan: Plan, matrix: Matrix, spec: RunSpec) -> RunView:
    planned = PlannedRun(
        run_id=spec.run_id,
        pair=spec.pair,
        arm=spec.arm,
        seed=spec.seed,
        grid_rate=spec.grid_rate,
    )
    word = plan.failures.get(spec.cell, "ok")
    if word == "missing":
        return RunView(planned=planned, spec=spec, record=None, summary=None)
    status = Status(word)
    rng = random.Random(spec.run_id)
    n = STEPS[spec.task] if status is Status.OK else 9
    steps, phases, end_ns = timeline(spec, n, rng)
    record = _record(plan, spec, status, n, (end_ns - START_NS) / SECOND, rng)
    memory = _memory(plan, spec, phases, end_ns, rng)
    return RunView(
        planned=planned,
        spec=spec,
        record=record,
        summary=summarise(spec, record, steps, phases, memory, matrix.warmup_steps_excluded),
        steps=tuple(steps),
        phases=tuple(phases),
        memory=memory,
        environment=_environment(plan),
        resolved_config=resolved(spec),
    )


def _memory(
    plan: Plan, spec: RunSpec, phases: list[PhaseRow], end_ns: int, rng: random.Random
) -> pd.DataFrame:
    """Sample a plausible curve: libraries, then the model, then optimizer state from step 1."""
    peak = 96 if spec.method == "full" else 61
    levels = {
        "load": 12,
        "build": 22,
        "evaluate": 40,
        "train": peak,
        "generate": peak - 25,
        "save": 50,
    }
    rows: list[dict[str, Any]] = []
    t = START_NS
    while t < end_ns:
        inside = [p for p in phases if p.begin_ns <= t <= p.end_ns]
        phase = max(inside, key=lambda p: p.begin_ns).phase if inside else None
        extra = levels[phase] + rng.uniform(0, 3) if phase else 0.0
        used = int((820 + extra) * MIB)
        rows.append({"t_ns": t, "device": "host", "rss_bytes": used, "processes": 1})
        if plan.has_gpu:
            gpu = {"t_ns": t, "device": "GPU-0", "nvml_device_bytes": int((400 + 90 * extra) * MIB)}
            load = {"power_w": 250.0, "utilization_percent": 80.0, "temperature_c": 61.0}
            rows.append({**gpu, **load, "energy_j": 250.0 * (t - START_NS) / SECOND})
        t += int(SECOND / plan.hz)
    return pd.DataFrame(rows, columns=list(MEMORY_COLUMNS))


def _record(
    plan: Plan, spec: RunSpec, status: Status, n: int, wall_s: float, rng: random.Random
) -> Record:
    text = HOSTILE if plan.hostile else ""
    reason = None if status is Status.OK else "ended at /home/someone/study/run.py" + text
    attempt = Attempt(
        number=1,
        status=status,
        reason=reason,
        launcher="local",
        started_utc="2026-01-02T03:04:05Z",
        ended_utc="2026-01-02T03:04:35Z",
        wall_s=wall_s,
        exit=Exit(code=0 if status is Status.OK else 1),
    )
    result = Result(
        status=status,
        reason=reason,
        steps_done=n,
        train_wall_s=wall_s - 4,
        parameters=parameters(spec),
        evaluations=evaluations(spec, n, rng, plan.offset),
        device="cpu",
        unusable_rows=("row 7: no answer" + text,) if plan.hostile else (),
        notes=("argument `warmup_ratio` was not passed" + text,) if plan.hostile else (),
    )
    sampler = SamplerSummary(
        requested_hz=plan.hz,
        achieved_hz=plan.hz - 0.2,
        longest_gap_s=0.09,
        samples=int(wall_s * plan.hz),
        cpu_s=0.5,
        sampling_cpu_s=0.012 * wall_s,
        wall_s=wall_s,
        lenses=("rss", "nvml-device") if plan.has_gpu else ("rss",),
    )
    return Record(
        run_id=spec.run_id,
        harness_version="0.1.0",
        status=status,
        reason=reason,
        attempt=1,
        attempts=(attempt,),
        result=result,
        sampler=sampler,
    )


def _environment(plan: Plan) -> dict[str, Any]:
    return {
        "format": 1,
        "versions": {"trl": "1.16.0", "torch": "2.13.0", "transformers": "5.17.0"},
        "cpu": {"model": "Some CPU" + (HOSTILE if plan.hostile else ""), "cores": 2},
        "hostname": "a-host-name-to-hide",
        "python": {"version": "3.11.7", "executable": "/usr/local/venv/bin/python"},
    }
