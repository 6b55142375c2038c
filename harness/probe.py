"""`probe.json`: what a probed run leaves beside its steps, for holding two releases against each other.

A release that changed nothing gives the same numbers but for rounding, so a probe keeps what TRL does not
log: what each micro-batch held, the gradients as the optimizer sees them, how far the weights moved, the
time of the processor rather than of the clock. Groups of parameters are named as in
`attention.lora_A`. What this leaves out: measuring (`worker/probing`) and comparing (`compare/`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.frozen import Count, Frozen

FORMAT = 1
PROBE_FILE = "probe.json"

Value = str | int | float | bool | None


class ProbeStep(Frozen):
    """One optimizer step of a probed run."""

    step: Annotated[int, Field(ge=1)]
    cpu_s: float = Field(
        description="processor time of the worker's process for the step, all threads"
    )
    pace_s: float | None = Field(
        None,
        description="processor time of a fixed piece of work after the step: how busy the machine was",
    )
    rss_bytes: Count = Field(
        description="the worker's own RSS after the step, free memory given back first"
    )
    held: dict[str, Count] = Field(
        default_factory=dict,
        description="what is alive after the step: tensors, tensor_bytes (each storage once), objects that "
        "Python's collector tracks, blocks of Python's allocator",
    )
    losses: tuple[float | None, ...] = Field(
        description="what the trainer's loss came to, one a micro-batch, as it went into the backward pass"
    )
    batches: tuple[str, ...] = Field(
        description="of each micro-batch, a hash of what it held: token ids, masks and labels"
    )
    counts: dict[str, Count] = Field(
        default_factory=dict,
        description="sequences, input_tokens (not padding), trained_tokens (labels or completion mask), "
        "forwards (passes through the model, generation included), rewards/FUNCTION/none",
    )
    numbers: dict[str, float | None] = Field(
        default_factory=dict,
        description="what else a step works with, e.g. advantages/l2, policy/mean, reference/mean, lr/0",
    )
    hashes: dict[str, str] = Field(
        default_factory=dict,
        description="of what has to be the same: inputs, labels, documents (sft); prompts, completions, "
        "masks (grpo); rewards/FUNCTION where completions were scored in the step",
    )
    gradient: dict[str, float | None] = Field(
        description="group of parameters → L2 norm, accumulated and clipped, as the optimizer sees it"
    )
    update: dict[str, float | None] = Field(
        description="group of parameters → L2 norm of how far they are from where they began"
    )
    sha256: str = Field(description="of all trainable parameters after the step")


class Check(Frozen):
    """One thing looked at before or after training, e.g. the logits of the merged adapter."""

    value: Value | tuple[Value, ...]
    is_exact: bool = Field(
        True, description="whether another stack has to give the same; else up to rounding"
    )
    what: str = Field(description="one sentence for a reader")


class Probe(Frozen):
    """What a probed run measured."""

    format: int = FORMAT
    construct_cpu_s: float = Field(description="processor time of the trainer's constructor")
    dtypes: dict[str, Count] = Field(description="dtype → number of trainable parameters of it")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="the coarsest that it computes in: rounding is about 1e-7, 4e-3 or 5e-4 of a value",
    )
    initial_sha256: str = Field(description="of all trainable parameters before the first step")
    steps: tuple[ProbeStep, ...] = ()
    checks: dict[str, Check] = Field(default_factory=dict)
