"""What one synthetic run leaves behind: resolved arguments, timeline, evaluations, parameters.

The pieces that `study_factory` puts together; memory and records are laid out there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from harness.record import EvaluationPoint, ParameterCounts, StepRow
from harness.samples import PhaseRow
from harness.spec import RunSpec

SECOND = 10**9
START_NS = 5_000 * SECOND
STEPS = {"sft": 60, "grpo": 150}


def resolved(spec: RunSpec) -> dict[str, Any]:
    """Nest it as the worker does: TRL's arguments in one block, what wraps the model beside it."""
    arguments = {**spec.trainer, "bf16": False, "hub_model_id": "/home/someone/study/out"}
    adapter = spec.lora and {"default": {"peft_type": "LORA", **spec.lora.model_dump()}}
    return {
        "format": 1,
        "trainer": "SFTTrainer" if spec.task == "sft" else "GRPOTrainer",
        "arguments": arguments,
        "lora": adapter,
        "dtypes": ["torch.float32"],
        "trainable_dtypes": ["torch.float32"],
        "device": "cpu",
    }


def quality(spec: RunSpec, step: int) -> float:
    """The metric's true value at a step: an exponential approach, LoRA's a little slower."""
    pace = 3.0 if spec.method == "full" else 2.7
    done = (1 - 2.718281828 ** (-pace * step / STEPS[spec.task])) / (1 - 2.718281828**-pace)
    return 1.6 - 1.1 * done if spec.task == "sft" else 0.37 + 0.25 * done


def timeline(
    spec: RunSpec, n: int, rng: random.Random
) -> tuple[list[StepRow], list[PhaseRow], int]:
    """Lay out load, build, evaluate, steps (grpo: generate inside), evaluate, save."""
    step_ns = int((0.10 if spec.method == "lora" else 0.13) * SECOND)
    phases: list[PhaseRow] = []
    clock = START_NS + SECOND
    for phase, seconds in (("load", 0.5), ("build", 0.8), ("evaluate", 1.5)):
        end = clock + int(seconds * SECOND)
        phases.append(PhaseRow(phase=phase, begin_ns=clock, end_ns=end))  # type: ignore[arg-type]
        clock = end
    steps: list[StepRow] = []
    train_begin = clock
    for i in range(1, n + 1):
        end = clock + int(step_ns * rng.uniform(0.9, 1.2))
        if spec.task == "grpo":
            inner = clock + int((end - clock) * 0.6)
            phases.append(PhaseRow(phase="generate", begin_ns=clock, end_ns=inner, step=i))
        noise = rng.gauss(0, 0.06)
        logs = {"loss": quality(spec, i) + noise, "learning_rate": 1e-4}
        if spec.task == "grpo":
            logs["reward"] = quality(spec, i) + noise
        steps.append(
            StepRow(
                step=i,
                begin_ns=clock,
                end_ns=end,
                tokens=rng.randrange(900, 1100),
                samples=32,
                generated_tokens=400 if spec.task == "grpo" else None,
                logs=logs,  # type: ignore[arg-type]
            )
        )
        clock = end
    phases.append(PhaseRow(phase="train", begin_ns=train_begin, end_ns=clock))
    for phase, seconds in (("evaluate", 1.5), ("save", 0.2)):
        end = clock + int(seconds * SECOND)
        phases.append(PhaseRow(phase=phase, begin_ns=clock, end_ns=end))  # type: ignore[arg-type]
        clock = end
    return steps, phases, clock


def evaluations(
    spec: RunSpec, n: int, rng: random.Random, offset: Callable[[RunSpec, int], float]
) -> tuple[EvaluationPoint, ...]:
    metric: Any = "nll" if spec.task == "sft" else "reward"
    shift = rng.gauss(0, 0.006)  # the seed's own luck

    def point(step: int, split: Any) -> EvaluationPoint:
        value = quality(spec, step) + ((shift + offset(spec, step)) if step else 0.0)
        tokens = 2048 if metric == "nll" else None
        return EvaluationPoint(
            step=step, split=split, metric=metric, value=value, rows=128, tokens=tokens, wall_s=0.7
        )

    every = range(0, n + 1, spec.evaluation.every_steps)
    return (point(0, "test"), *(point(s, "validation") for s in every), point(n, "test"))


def parameters(spec: RunSpec) -> ParameterCounts:
    adapter = 0 if spec.lora is None else 9_000 * spec.lora.r
    full = spec.method == "full"
    return ParameterCounts(
        total=1_000_000 + adapter,
        trainable=1_000_000 if full else adapter,
        matmul=980_000,
        matmul_trainable=980_000 if full else 0,
        adapter=adapter,
    )
