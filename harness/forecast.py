"""The forecast of a run's memory: its tensors traced, the allocator replayed, each figure with its lens.

What a forecast says, and how it comes about:

* torch allocated: the highest bytes of tensors over a few steps of the real code on fake tensors;
* torch reserved: those steps replayed through the caching allocator, with rows of varying length where a
  batch is padded to its longest, over several draws of lengths (`row_lengths`);
* NVML device: reserved, CUDA's context and what libraries load (rate card);
* what the run needs: the smallest card on which torch would go through the same batches, giving its
  cache back whenever the card is full. It takes time, and no error.

The interval of reserved memory spans the draws of lengths and a replay in which every row is the
longest, widened by `RESIDUAL`, a choice: docs/memory.md says which measured runs then lie inside, and
which one would not with less. No constant is fitted to a public run that it is checked by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from harness.activations import Term
from harness.catalog import ModelFacts
from harness.frozen import Count, Frozen
from harness.heap import MOST_THRESHOLD, Heap
from harness.memory_replay import Peak, replay
from harness.memory_trace import Trace, forward_temporaries
from harness.row_lengths import Rows
from harness.spec import RunSpec
from harness.step_replay import STEADY_STEPS, replay_steps
from harness.subject import Adapter, Subject
from harness.text import memory as in_gib
from harness.workload import Workload, argument, has_padding, is_flattened

MIB = 1 << 20
RESIDUAL = 0.05
# How far context and libraries may lie from the rate card's figure on a GPU that it was not measured on:
# it was on a Hopper only. A guess.
BEYOND_ERROR = 300 * MIB
# On the CPU, two constants that no published rule gives. Fitted on runs of other shapes than those that the
# forecast is checked by (docs/memory.md): what a worker of the micro model grows before its first step; the
# share of a forward pass's temporaries whose holes glibc does not use again, of a model of 16 layers.
# The first is known of one model only, so the interval is wider by all of it.
LOADED_LATER = 44 * MIB  # `python -m benchmarks.worker_growth`
HOLES = 0.40  # `python -m benchmarks.heap_holes`
CPU_RESIDUAL = 0.10  # seven of eight readings of the runs that HOLES is fitted on lie within

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
    "evaluation": "of a held-out evaluation",
}


class Estimate(Frozen):
    """A figure of one lens with its interval."""

    lens: str
    bytes: Count
    low_bytes: Count
    high_bytes: Count


class Forecast(Frozen):
    """What a run would hold at its highest moment."""

    source: str = Field(description="traced, or formulas")
    terms: tuple[Term, ...] = Field(
        description="parts of torch's reserved memory and of what stands beside it; they add up"
    )
    lenses: tuple[Estimate, ...]
    needs: Estimate | None = Field(
        None, description="what a card must have, torch's cache given back when it is full"
    )
    standing: tuple[Term, ...] = Field((), description="tensors that live between two steps")
    notes: tuple[str, ...] = ()

    def lens(self, name: str) -> Estimate | None:
        """Return a lens's figure."""
        return next((e for e in self.lenses if e.lens == name), None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know: the notes, and whether a card may be full of torch's cache."""
        device, needs = self.lens("nvml-device"), self.needs
        if device is None or needs is None:
            return self.notes
        if needs.high_bytes > device.high_bytes * (1 - RESIDUAL):
            return self.notes
        return (
            *self.notes,
            "reserved memory grows from step to step and from batch to batch; on a card of less than "
            f"{in_gib(device.high_bytes)} torch may have to give its cache back and ask anew, which takes "
            f"time; it can't do without {in_gib(needs.bytes)} (up to {in_gib(needs.high_bytes)})",
        )


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
    batches: int | None = None,
) -> Forecast:
    """Forecast a training step from its trace.

    `beyond_torch` is CUDA's context and libraries; `batches` how many the run has, None where that is
    unknown (`row_lengths`).
    """
    found = replay_steps(
        trace,
        rows,
        batch=batch,
        is_hopper=is_hopper,
        empties_every=empties_every,
        batches=batches,
    )
    beyond = Band.beyond(beyond_torch, is_hopper)
    steady = found.steady
    return Forecast(
        source="traced",
        terms=split(steady, found.middle),
        lenses=lenses(steady.allocated, found.middle, found.low, found.high, beyond),
        needs=need(steady.allocated, found.needed, beyond),
        standing=terms_of(steady.standing),
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
        lenses=(growth(grown),),
        standing=terms_of(peak.standing),
    )


def growth(grown: int) -> Estimate:
    """Give a process's growth on the CPU its interval."""
    return Estimate(
        lens="rss",
        bytes=grown,
        low_bytes=max(0, round(grown * (1 - CPU_RESIDUAL)) - LOADED_LATER),
        high_bytes=round(grown * (1 + CPU_RESIDUAL)) + LOADED_LATER,
    )


class Band(Frozen):
    """Bytes with an interval, of no lens."""

    low: int
    middle: int
    high: int

    @classmethod
    def beyond(cls, middle: int, is_hopper: bool) -> Band:
        """What a process holds beyond torch: as measured on a Hopper, taken over on any other GPU."""
        error = 0 if is_hopper else min(middle, BEYOND_ERROR)
        return cls(low=middle - error, middle=middle, high=middle + error)


def lenses(
    allocated: int, reserved: int, low: int, high: int, beyond: Band
) -> tuple[Estimate, ...]:
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
            bytes=reserved + beyond.middle,
            low_bytes=bottom + beyond.low,
            high_bytes=top + beyond.high,
        ),
    )


def need(allocated: int, needed: int, beyond: Band) -> Estimate:
    """Say what a card must have: at least a run's tensors."""
    return Estimate(
        lens="card",
        bytes=needed + beyond.middle,
        low_bytes=round(allocated * (1 - RESIDUAL)) + beyond.low,
        high_bytes=round(needed * (1 + RESIDUAL)) + beyond.high,
    )


def split(peak: Peak, reserved: int) -> tuple[Term, ...]:
    """Split reserved memory by term; what the allocator holds beyond tensors is a term of its own."""
    rest = reserved - peak.allocated
    note = "reserved by the allocator and in no tensor: rounding, cached and cut blocks"
    return (*terms_of(peak.kinds), Term(name="allocator", bytes=max(0, rest), note=note))


def terms_of(kinds: Mapping[str, int]) -> tuple[Term, ...]:
    """Name the bytes of each kind of tensor."""
    order = list(TERM_NOTES)
    terms = [
        Term(name=kind, bytes=size, note=TERM_NOTES.get(kind, ""))
        for kind, size in kinds.items()
        if size
    ]
    return tuple(sorted(terms, key=lambda term: order.index(term.name)))


def fit(forecast: Forecast, gpu_bytes: Mapping[str, int]) -> dict[str, str]:
    """Say of each class of GPU whether a run goes through on it: yes, no, or perhaps.

    A run whose reserved memory would creep beyond a card still goes through where what it needs fits:
    torch gives its cache back first.
    """
    device = forecast.lens("nvml-device")
    assert device is not None  # noqa: S101 - every forecast of a GPU has it
    needs = forecast.needs or device
    low = min(device.low_bytes, needs.low_bytes)
    high = min(device.high_bytes, needs.high_bytes)
    return {
        name: "yes" if high <= size else "perhaps" if low <= size else "no"
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
