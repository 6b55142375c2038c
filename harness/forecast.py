"""The forecast of a run's memory: its tensors traced, the allocator replayed, each figure with its lens.

What a forecast says, and how it comes about:

* torch allocated: the highest bytes of tensors over a few steps of the real code on fake tensors;
* torch reserved: those steps replayed through the caching allocator, with rows of varying length where a
  batch is padded to its longest, over several draws of lengths;
* NVML device: reserved, CUDA's context and what libraries load (rate card).

The interval of reserved memory spans the draws of lengths and a replay in which every row is the
longest, widened by `RESIDUAL`: about how far measured runs lay from their forecast (docs/memory.md says
which, and what the interval then covered). No constant is fitted to a public run that it is checked by.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from pydantic import Field

from harness.activations import Term
from harness.catalog import ModelFacts
from harness.frozen import Count, Frozen, PositiveInt
from harness.heap import MOST_THRESHOLD, Heap
from harness.memory_replay import Peak, replay
from harness.memory_trace import Trace, forward_temporaries
from harness.spec import RunSpec
from harness.subject import Adapter, Subject
from harness.text import memory as in_gib
from harness.workload import Workload, argument, has_padding, is_flattened

MIB = 1 << 20
# cuBLAS's workspace, for the thread of the forward and that of the backward pass. Source: torch's
# documentation of CUBLAS_WORKSPACE_CONFIG (`CUDA semantics`): :4096:2:16:8, on Hopper 32 MiB.
WORKSPACE, WORKSPACE_ON_HOPPER = 8_519_680, 32 * MIB
WORKSPACES = 2
STEADY_STEPS = 3  # enough where every row has one length: the third is like all after it
DRAWS, DRAWN_STEPS = 3, 8
SPREAD = 0.5  # of the logarithm of a row's length, where only its mean is known
RESIDUAL = 0.05
# On the CPU, two constants that no published rule gives. Fitted on runs of other shapes than those that the
# forecast is checked by (docs/memory.md): what a worker of the micro model grows before its first step; the
# share of a forward pass's temporaries whose holes glibc does not use again, of a model of 16 layers.
# The first is known of one model only, so the interval is wider by all of it.
LOADED_LATER = 44 * MIB
HOLES = 0.34  # `python -m benchmarks.heap_holes`
CPU_RESIDUAL = 0.10  # the runs that HOLES is fitted on lie within 7 %

TERM_NOTES = {
    "weights": "all weights of the model",
    "adapter": "weights of the adapter",
    "gradients": "of the weights that are trained",
    "optimizer": "moments that the optimizer keeps",
    "copies": "bfloat16 copies of weights that autocast makes",
    "logits": "the head's output, and its float32 copies and gradients",
    "activations": "kept by the forward pass for the backward pass",
    "temporaries": "alive at that moment only: recomputed layers, gradients on the way",
    "optimizer temporaries": "what a step of the optimizer takes for itself",
    "workspaces": "of cuBLAS",
}


class Rows(Frozen):
    """How long the rows of a batch are."""

    longest: PositiveInt = Field(description="tokens that no row is beyond")
    mean: PositiveInt | None = Field(
        None, description="mean tokens of a row; null: every row is the longest"
    )
    sorted_batches: PositiveInt | None = Field(
        None,
        description="batches in a bucket of rows sorted by length, longest first; null: shuffled",
    )


class Estimate(Frozen):
    """A figure of one lens with its interval."""

    lens: str
    bytes: Count
    low_bytes: Count
    high_bytes: Count


class Forecast(Frozen):
    """What a run would hold at its highest moment."""

    source: str = Field(description="traced, or formulas")
    terms: tuple[Term, ...] = Field(description="parts of torch's reserved memory; they add up")
    lenses: tuple[Estimate, ...]
    notes: tuple[str, ...] = ()

    def lens(self, name: str) -> Estimate | None:
        """Return a lens's figure."""
        return next((e for e in self.lenses if e.lens == name), None)


def subject_of(spec: RunSpec, facts: ModelFacts, load: Workload) -> Subject | None:
    """Say what a run's training step is made of; None if nothing bounds its rows."""
    if load.length is None or load.scored is None:
        return None
    adapter = None
    if spec.lora is not None:
        adapter = Adapter(
            r=spec.lora.r,
            target_modules=spec.lora.target_modules,
            lora_alpha=spec.lora.lora_alpha,
            lora_dropout=spec.lora.lora_dropout,
            use_rslora=spec.lora.use_rslora,
            dtype=spec.model.dtype,  # worker.methods.match_precision
        )
    return Subject(
        facts=facts,
        dtype=spec.model.dtype,
        adapter=adapter,
        loop=spec.task,
        batch=load.batch,
        accumulation=min(2, load.accumulation),
        has_autocast=load.has_autocast,
        has_checkpointing=load.has_checkpointing,
        optim=load.optim,
        scored_share=load.scored / load.length,
        has_padding=has_padding(spec, load),
        is_flattened=is_flattened(spec),
        has_reference=spec.task == "grpo" and spec.lora is None and bool(argument(spec, "beta")),
    )


def forecast_training(
    trace: Trace,
    rows: Rows,
    *,
    batch: int,
    is_hopper: bool,
    empties_every: int = 0,
    beyond_torch: int,
) -> Forecast:
    """Forecast a training step from its trace. `beyond_torch` is CUDA's context and libraries."""
    standing = (WORKSPACE_ON_HOPPER if is_hopper else WORKSPACE,) * WORKSPACES
    steady = replay(trace, [rows.longest] * STEADY_STEPS, standing=standing)
    peaks = [
        replay(trace, lengths, standing=standing, empties_every=empties_every)
        for lengths in draw_lengths(rows, batch)
    ]
    reserved = sorted(p.reserved for p in peaks) or [steady.reserved]
    middle = reserved[len(reserved) // 2]
    low = min(steady.reserved, *reserved)
    high = max(steady.reserved, *reserved)
    return Forecast(
        source="traced",
        terms=split(steady, middle),
        lenses=lenses(steady.allocated, middle, low, high, beyond_torch),
        notes=trace.notes,
    )


def forecast_on_cpu(trace: Trace, length: int) -> Forecast:
    """Forecast the growth of a process's RSS above the worker with its libraries imported."""
    peak = replay(trace, [length] * STEADY_STEPS, memory=Heap())
    holes = round(HOLES * forward_temporaries(trace.repeated, MOST_THRESHOLD))
    grown = peak.reserved + holes + LOADED_LATER
    return Forecast(
        source="traced",
        terms=split(peak, grown),
        lenses=(
            Estimate(
                lens="rss",
                bytes=grown,
                low_bytes=max(0, round(grown * (1 - CPU_RESIDUAL)) - LOADED_LATER),
                high_bytes=round(grown * (1 + CPU_RESIDUAL)) + LOADED_LATER,
            ),
        ),
    )


def lenses(allocated: int, reserved: int, low: int, high: int, beyond: int) -> tuple[Estimate, ...]:
    """Give each lens its figure and interval."""
    bottom, top = round(low * (1 - RESIDUAL)), round(high * (1 + RESIDUAL))
    return (
        Estimate(
            lens="torch-allocated",
            bytes=allocated,
            low_bytes=round(allocated * (1 - RESIDUAL)),
            high_bytes=round(allocated * (1 + RESIDUAL)),
        ),
        Estimate(lens="torch-reserved", bytes=reserved, low_bytes=bottom, high_bytes=top),
        Estimate(
            lens="nvml-device",
            bytes=reserved + beyond,
            low_bytes=bottom + beyond,
            high_bytes=top + beyond,
        ),
    )


def split(peak: Peak, reserved: int) -> tuple[Term, ...]:
    """Split reserved memory by term; what the allocator holds beyond tensors is a term of its own."""
    terms = [
        Term(name=kind, bytes=size, note=TERM_NOTES.get(kind, ""))
        for kind, size in peak.kinds.items()
        if size
    ]
    terms.sort(key=lambda term: list(TERM_NOTES).index(term.name))
    rest = reserved - peak.allocated
    note = "reserved by the allocator and in no tensor: rounding, cached and cut blocks"
    return (*terms, Term(name="allocator", bytes=max(0, rest), note=note))


def draw_lengths(rows: Rows, batch: int) -> list[list[int]]:
    """Draw the length of each step's batch, its longest row's, several times; the longest comes once.

    Lengths of rows are taken to be lognormal about their mean, cut at the longest.
    """
    if rows.mean is None or rows.mean >= rows.longest:
        return []
    centre = math.log(rows.mean) - SPREAD**2 / 2
    return [_draw(random.Random(seed), rows, batch, centre) for seed in range(DRAWS)]


def _draw(chance: random.Random, rows: Rows, batch: int, centre: float) -> list[int]:
    def row() -> int:
        return min(rows.longest, max(8, round(chance.lognormvariate(centre, SPREAD))))

    if rows.sorted_batches is None:
        lengths = [max(row() for _ in range(batch)) for _ in range(DRAWN_STEPS)]
        lengths[DRAWN_STEPS // 2] = rows.longest
        return lengths
    buckets = []
    for _ in range(2):
        ordered = sorted((row() for _ in range(rows.sorted_batches * batch)), reverse=True)
        buckets.append(ordered[::batch])
    return [*buckets[0], rows.longest, *buckets[1][1:]]


def fit(forecast: Forecast, gpu_bytes: Mapping[str, int]) -> dict[str, str]:
    """Say of each class of GPU whether a run fits: yes, no, or perhaps."""
    device = forecast.lens("nvml-device")
    assert device is not None  # noqa: S101 - every forecast of a GPU has it
    return {
        name: "yes"
        if device.high_bytes <= size
        else "perhaps"
        if device.low_bytes <= size
        else "no"
        for name, size in gpu_bytes.items()
    }


def told(estimate: Estimate) -> str:
    """Write a figure with its interval."""
    return (
        f"{in_gib(estimate.bytes)} ({in_gib(estimate.low_bytes)} to {in_gib(estimate.high_bytes)})"
    )


def smallest(fits: Mapping[str, str], words: Sequence[str] = ("yes",)) -> str | None:
    """Name the first class, in the order given, that a run fits."""
    return next((name for name, answer in fits.items() if answer in words), None)
