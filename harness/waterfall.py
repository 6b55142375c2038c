"""What a run's highest memory in training is made of, part by part; the parts add up to it exactly.

Weights, gradients and optimizer state are counted: parameters times bytes of their dtype. A pool,
what torch keeps beyond what is in use, and what stands beside torch are read off the lenses.
Everything else is one part: activations, logits, buffers and temporaries follow one another within a
step, and no lens tells them apart. Where the arm's step was traced (`forecasts`), that part is split in the
proportions of the trace's highest moment, and its names say so. A part is never larger than what is left
of the peak, so counting too much can't make a sum that was not measured; a note says where that happened.

On a GPU the peak is NVML's, of the first process's GPU where there are several; on a CPU it is the
growth of RSS. What this leaves out: the forecast itself (`forecast`), and how far it was off (`scorecard`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import Field

from harness import text
from harness.forecasts import CPU, Forecasts, device_of
from harness.frozen import Count, Frozen
from harness.lenses import (
    ALLOCATED,
    DEVICE,
    RESERVED,
    RSS,
    SAMPLED,
    TRAINING,
    TRAINING_PHASES,
    Lens,
    assign_phases,
    device_series,
    idle_by_device,
    lens_series,
)
from harness.record import Generation, ParameterCounts, Result
from harness.samples import PhaseRow
from harness.view import RunView

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
# Values that an optimizer keeps per trained parameter, in the parameter's dtype; others are not counted.
STATES = {"adamw_torch": 2, "adamw_torch_fused": 2, "adamw_hf": 2, "adagrad": 1, "sgd": 0}
SHARDED = ("fsdp2", "zero3")
REST = "activations and everything else in use"
# The same, split as the arm's trace has it.
ACTIVATIONS, LOGITS, OTHERS = (
    "activations, as forecast", "logits, as forecast", "temporaries and others, as forecast",
)  # fmt: skip
SPLIT = {"activations": ACTIVATIONS, "logits": LOGITS}
# Terms of a forecast that are parts of their own here.
ELSEWHERE = ("weights", "adapter", "gradients", "optimizer")
# Of training, what lies between two steps: gradients are freed by then, and made anew after it.
BETWEEN_STEPS = ("generate", "weight_sync")
PARTS = (
    "held before the run", "other processes", "context and libraries", "weights", "reference model",
    "optimizer state", "gradients", "vLLM pool", "fragmentation", ACTIVATIONS, LOGITS, OTHERS, REST,
)  # fmt: skip


class Part(Frozen):
    """One part of a peak."""

    name: str
    bytes: Count


class Waterfall(Frozen):
    """The highest memory of a run in training, taken apart."""

    lens: str
    device: str | None = Field(None, description="UUID of the one of several GPUs that this is of")
    total_bytes: Count = Field(description="the peak, or on a CPU its growth")
    parts: tuple[Part, ...] = Field(description="they add up to the total; none is empty")
    notes: tuple[str, ...] = ()


def waterfall_of(run: RunView, forecasts: Forecasts | None = None) -> Waterfall | None:
    """Take a run's peak in training apart; None if no lens that has one was read.

    forecasts: the study's, to split what no lens tells apart.
    """
    result = run.record.result if run.record else None
    if run.summary is None or result is None:
        return None
    device, seen = _gpu_peak(run)
    lens: Lens = DEVICE if seen is not None else RSS
    total = seen if seen is not None else run.summary.growth(RSS)
    if total is None or total <= 0:
        return None
    counted = _counted(result, run.resolved_config, is_gpu=lens == DEVICE)
    if _peak_phase(run, lens) in BETWEEN_STEPS:
        counted.pop("gradients", None)
    read = _read_off(run, result, total) if lens == DEVICE else {}
    order = {name: {**counted, **read}.get(name) for name in PARTS}
    parts, notes, left = [], [], total
    for name, amount in order.items():
        if not amount:
            continue
        if amount > left:
            notes.append(
                f"{name}: {text.memory(amount)} by count, {text.memory(left)} left of the peak."
            )
        parts.append(Part(name=name, bytes=min(amount, left)))
        left -= min(amount, left)
    parts += _split(left, _shares(run, forecasts, is_gpu=lens == DEVICE))
    return Waterfall(
        lens=lens,
        device=device if run.summary.device_statistics else None,
        total_bytes=total,
        parts=tuple(part for part in parts if part.bytes),
        notes=tuple(notes),
    )


def _shares(run: RunView, forecasts: Forecasts | None, *, is_gpu: bool) -> dict[str, int]:
    """Return the trace's bytes of each part that no lens tells apart; empty without a trace."""
    device = device_of(run.record, run.environment) if run.record else None
    if forecasts is None or device is None:
        return {}
    arm = forecasts.of(run.planned.pair, run.planned.arm, device.name)
    made = arm.forecast if arm else None
    if arm is None or made is None or made.source != "traced" or is_gpu == (arm.device == CPU):
        return {}
    # On a GPU what the allocator holds beyond tensors is read off the lenses.
    apart = (*ELSEWHERE, "allocator") if is_gpu else ELSEWHERE
    shares: dict[str, int] = {}
    for term in made.terms:
        if term.name not in apart:
            name = SPLIT.get(term.name, OTHERS)
            shares[name] = shares.get(name, 0) + term.bytes
    return shares


def _split(left: int, shares: Mapping[str, int]) -> list[Part]:
    """Split what is left of a peak in the proportions given; the last part takes the rounding."""
    whole = sum(shares.values())
    if not whole:
        return [Part(name=REST, bytes=left)]
    sizes = {name: left * shares.get(name, 0) // whole for name in (ACTIVATIONS, LOGITS)}
    sizes[OTHERS] = left - sum(sizes.values())
    return [Part(name=name, bytes=size) for name, size in sizes.items()]


def _gpu_peak(run: RunView) -> tuple[str | None, int | None]:
    """Return the GPU that a run's first process used, and its peak in training."""
    summary = run.summary
    if summary is None:
        return None, None
    for device, lenses in summary.device_statistics.items():  # the first process's GPU first
        found = lenses.get(DEVICE, {}).get(TRAINING)
        return device, found.peak_bytes if found else None
    return None, summary.peak_bytes.get(DEVICE, {}).get(TRAINING)


def _counted(result: Result, resolved: Mapping[str, Any], *, is_gpu: bool) -> dict[str, int]:
    """Count weights, gradients and optimizer state in one GPU, or in all processes on a CPU."""
    counts, distributed = result.parameters, result.distributed
    if counts is None:
        return {}
    weights = _weight_bytes(counts, resolved)
    trained = _width(resolved.get("trainable_dtypes"))
    parts = {}
    if weights is not None:
        parts["weights"] = weights
        if _has_reference(resolved, is_full=counts.adapter == 0):
            parts["reference model"] = weights
    if trained is not None:
        parts["gradients"] = counts.trainable * trained
        states = STATES.get(str(resolved.get("arguments", {}).get("optim")))
        if states:
            parts["optimizer state"] = counts.trainable * trained * states
    if distributed is None:
        return parts
    is_sharded = distributed.asked in SHARDED
    if is_gpu and is_sharded:
        return {name: -(-size // distributed.processes) for name, size in parts.items()}
    if not is_gpu and not is_sharded:  # RSS is that of all processes, each with a copy
        return {name: size * distributed.processes for name, size in parts.items()}
    return parts


def _weight_bytes(counts: ParameterCounts, resolved: Mapping[str, Any]) -> int | None:
    """Return the bytes of all weights; None where a dtype can't be told, as with quantised ones."""
    trained = _width(resolved.get("trainable_dtypes"))
    every = {str(name) for name in resolved.get("dtypes") or ()}
    if trained is None or not every:
        return None
    frozen = every - {str(name) for name in resolved.get("trainable_dtypes") or ()}
    base = _width(frozen) if frozen else trained
    if base is None:
        return None
    return (counts.total - counts.trainable) * base + counts.trainable * trained


def _width(dtypes: Any) -> int | None:
    """Return the bytes of an element; None unless it is one known dtype."""
    names = {str(name).removeprefix("torch.") for name in dtypes or ()}
    return BYTES.get(names.pop()) if len(names) == 1 else None


def _has_reference(resolved: Mapping[str, Any], *, is_full: bool) -> bool:
    """Whether GRPO keeps a second model; with an adapter it is the model without it."""
    is_grpo = resolved.get("trainer") == "GRPOTrainer"
    return is_grpo and is_full and bool(resolved.get("arguments", {}).get("beta"))


def _read_off(run: RunView, result: Result, total: int) -> dict[str, int]:
    """Read off the lenses what stands beside torch, what it keeps unused, and the pool."""
    summary = run.summary
    if summary is None:
        return {}
    idle, others, phase = _at_peak(run)
    pool = _pool_bytes(result.generation, phase)
    reserved = summary.peak_bytes.get(RESERVED, {}).get(TRAINING)
    allocated = summary.peak_bytes.get(ALLOCATED, {}).get(TRAINING)
    is_counted = not (result.generation and result.generation.sleeps)
    if reserved and is_counted:
        # What torch reserved is in the peak, so what idle leaves no room for was given back.
        idle = min(idle, max(0, total - others - reserved))
    read = {"held before the run": idle, "other processes": others}
    if reserved and is_counted:
        beside = max(0, total - idle - others - reserved)
        # An engine in a process of its own is no part of what torch counts here.
        read["context and libraries"] = beside - pool if beside >= pool else beside
        if allocated is not None:
            read["fragmentation"] = reserved - allocated
    read["vLLM pool"] = pool
    return {name: max(0, size) for name, size in read.items()}


def _at_peak(run: RunView) -> tuple[int, int, str | None]:
    """Return what of before the run the GPU held at its peak, what others added, and in which phase."""
    held = device_series(run.memory, SAMPLED[DEVICE])
    device, _ = _gpu_peak(run)
    name = device or next(iter(held), None)
    series = held.get(str(name))
    sampler = run.record.sampler if run.record else None
    devices = sampler.devices if sampler else ()
    idle = idle_by_device(run.memory, run.phases, devices).get(str(name), 0)
    at = _peak_ns(series, run.phases)
    if at is None:
        return idle, 0, None
    foreign = device_series(run.memory, "foreign_bytes").get(str(name))
    known = foreign[foreign.index <= at] if foreign is not None else None
    # What others held before the run, and still do, is in the idle baseline already.
    before = idle_by_device(run.memory, run.phases, column="foreign_bytes").get(str(name), 0)
    added = int(known.iloc[-1]) - before if known is not None and len(known) else 0
    held_still = max(0, idle + min(0, added))
    return held_still, max(0, added), assign_phases([at], run.phases)[0]


def _peak_ns(series: pd.Series[float] | None, phases: Sequence[PhaseRow]) -> int | None:
    """Return when a lens was at its highest in training; None if it was not read then."""
    if series is None:
        return None
    labels = assign_phases(series.index, phases)
    training = series[[label in TRAINING_PHASES for label in labels]]
    return None if training.empty else int(training.index[int(training.to_numpy().argmax())])


def _peak_phase(run: RunView, lens: Lens) -> str | None:
    """Return the phase in which a run's lens was at its highest in training."""
    if lens == DEVICE:
        return _at_peak(run)[2]
    at = _peak_ns(lens_series(run.memory, SAMPLED[lens]), run.phases)
    return None if at is None else assign_phases([at], run.phases)[0]


def _pool_bytes(generation: Generation | None, phase: str | None) -> int:
    """Return what a vLLM in the worker held at the peak: one that sleeps holds it while generating."""
    if generation is None or generation.mode == "server" or not generation.pool_bytes:
        return 0
    return generation.pool_bytes if not generation.sleeps or phase == "generate" else 0
