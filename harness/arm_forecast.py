"""What each arm of a matrix would hold on one GPU, traced where it can be, and which GPU that takes.

The training step is traced (`forecast`), and an SFT arm's held-out evaluation replayed. The other moments
of a run are reckoned by the formulas of `activations`: sampling with transformers (keys and values of all
completions) and syncing weights to a vLLM that sleeps meanwhile. vLLM's pool, a share of the card, and the
buckets that DDP copies gradients to stand in them. The highest moment is the arm's (`moments`). A run that
is sharded over several GPUs, and any run where torch is not installed, is reckoned by the formulas of
`estimate`, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from harness.activations import ElementBytes, evaluation
from harness.catalog import ModelFacts
from harness.estimate import Memory, estimate_memory, pool_problem
from harness.evaluation_replay import replay_evaluation
from harness.forecast import (
    Estimate,
    Forecast,
    fit,
    forecast_on_cpu,
    forecast_training,
    smallest,
    subject_of,
)
from harness.frozen import Frozen
from harness.memory_trace import Trace
from harness.moments import beyond_torch, evaluation_moment, highest_moment
from harness.rates import RateCard
from harness.row_lengths import Rows
from harness.sizes import facts_of
from harness.spec import RunSpec
from harness.step_replay import workspaces
from harness.subject import Device, is_traced
from harness.trace_cache import Progress, can_trace, traces
from harness.tracers import Question
from harness.workload import Workload, workload

# How far the formulas' step lay from what runs on an H100 held: 3 % below to 21 % above (docs/gpu.md).
FORMULA_BELOW, FORMULA_ABOVE = 0.97, 1.21


class ArmForecast(Frozen):
    """One arm's forecast."""

    pair: str
    arm: str
    forecast: Forecast | None = Field(
        description="null: nothing bounds the length of a row, or no shape"
    )
    why: str | None = Field(description="why it is not traced; null where it is")
    cross_check_bytes: int | None = Field(
        description="the formulas' total, where the trace is shown"
    )
    fits: dict[str, str] = Field(description="class of GPU → yes, perhaps or no")
    smallest: str | None = Field(description="the first class that holds the interval's upper end")


def forecast_arms(
    specs: Sequence[RunSpec],
    card: RateCard,
    gpu_bytes: int,
    classes: Mapping[str, int],
    *,
    is_hopper: bool,
    has_tiles: bool,
    progress: Progress | None = None,
) -> list[ArmForecast]:
    """Forecast every arm once."""
    arms = {(s.pair, s.arm): s for s in reversed(specs)}
    arms = {key: arms[key] for key in dict.fromkeys((s.pair, s.arm) for s in specs)}
    asked: dict[tuple[str, str], Question] = {}
    why: dict[tuple[str, str], str] = {}
    for key, spec in arms.items():
        found = question(spec, card)
        if isinstance(found, str):
            why[key] = found
        else:
            asked[key] = found
    answers = dict(zip(asked, traces(list(asked.values()), progress), strict=True))
    return [
        _arm(
            spec, answers.get(key, why.get(key, "")), card, gpu_bytes, classes, is_hopper, has_tiles
        )
        for key, spec in arms.items()
    ]


def question(spec: RunSpec, card: RateCard, device: Device = "cuda") -> Question | str:
    """Return what to trace for an arm, or why it is not traced."""
    facts = facts_of(spec.model.source)
    if facts is None:
        return "its shape is not in the catalog"
    if not can_trace():
        return "torch, transformers, trl and peft are not all installed"
    load = workload(spec, card)
    if load.is_sharded:
        return f"sharded over {load.processes} GPUs"
    if device == "cpu" and load.processes > 1:
        return f"{load.processes} processes on a CPU"
    if device == "cpu" and load.pool is not None:
        return "a vLLM beside it on a CPU"
    if not is_traced(load.optim):
        return f"its optimizer ({load.optim}) is not traced"
    subject = subject_of(spec, facts, load)
    if subject is None or load.length is None:
        return "no bound on the length of a row"
    return subject.model_copy(update={"device": device}), load.length


def _arm(
    spec: RunSpec,
    answer: Trace | str,
    card: RateCard,
    gpu_bytes: int,
    classes: Mapping[str, int],
    is_hopper: bool,
    has_tiles: bool,
) -> ArmForecast:
    facts, load = facts_of(spec.model.source), workload(spec, card)
    is_traced = isinstance(answer, Trace)
    step = evaluated = None
    if isinstance(answer, Trace) and facts is not None:
        step = _step(spec, load, answer, card, is_hopper)
        evaluated = _evaluated(spec, facts, load, answer, step, is_hopper)

    def formulas(size: int) -> Memory | None:
        if facts is None:
            return None
        return estimate_memory(spec, facts, load, size, card, has_tiles=has_tiles)

    def made(size: int) -> Forecast | None:
        if step is not None and facts is not None:
            return highest_moment(spec, facts, load, step, size, evaluated=evaluated)
        known = formulas(size)
        return None if known is None else _reckoned(known)

    forecast, checked = made(gpu_bytes), formulas(gpu_bytes)
    fits = {} if facts is None else fit_with_pool(facts, load, made, classes)
    return ArmForecast(
        pair=spec.pair,
        arm=spec.arm,
        forecast=forecast,
        why=None if is_traced else str(answer),
        cross_check_bytes=checked.total_bytes if checked and is_traced else None,
        fits=fits,
        smallest=smallest(fits),
    )


def fit_with_pool(
    facts: ModelFacts,
    load: Workload,
    made: Callable[[int], Forecast | None],
    classes: Mapping[str, int],
) -> dict[str, str]:
    """Say of each class of GPU whether a run goes through on it, of which vLLM's pool is a share.

    `made` forecasts the run on a card of so many bytes. A share that does not hold what vLLM needs is a no.
    """
    fits: dict[str, str] = {}
    for name, size in classes.items():
        forecast = made(size)
        if forecast is not None:
            has_problem = pool_problem(facts, load, size) is not None
            fits |= {name: "no"} if has_problem else fit(forecast, {name: size})
    return fits


def _rows(spec: RunSpec, load: Workload) -> Rows:
    """How long an arm's rows are; all the longest where they are packed, or sampled to a limit."""
    assert load.length is not None  # noqa: S101 - what is traced has one
    mean = load.mean_length if spec.task == "sft" and not spec.trainer.get("packing") else None
    return Rows(longest=load.length, mean=mean)


def _step(spec: RunSpec, load: Workload, trace: Trace, card: RateCard, is_hopper: bool) -> Forecast:
    """The training step alone."""
    return forecast_training(
        trace,
        _rows(spec, load),
        batch=load.batch,
        is_hopper=is_hopper,
        beyond_torch=card.bare_context_bytes.value,
        batches=load.batches,
    )


def _evaluated(
    spec: RunSpec, facts: ModelFacts, load: Workload, trace: Trace, step: Forecast, is_hopper: bool
) -> Forecast | None:
    """The held-out evaluation of an SFT arm; None for GRPO's, which are sampled."""
    if spec.task == "grpo":
        return None
    rows = _rows(spec, load)
    found = replay_evaluation(trace, spec, facts, load, rows, workspaces(is_hopper))
    note = evaluation(spec, facts, load, ElementBytes.of(load)).note
    return evaluation_moment(step, found, beyond_torch(step), note)


def training_on_gpu(
    spec: RunSpec, answer: Trace | str, card: RateCard, gpu_bytes: int, is_hopper: bool
) -> Forecast | None:
    """Forecast what an arm holds while it trains, its held-out evaluations left out.

    None where it is not traced and no formula knows it.
    """
    facts, load = facts_of(spec.model.source), workload(spec, card)
    if facts is None:
        return None
    if isinstance(answer, Trace):
        step = _step(spec, load, answer, card, is_hopper)
        return highest_moment(spec, facts, load, step, gpu_bytes, has_evaluation=False)
    known = estimate_memory(spec, facts, load, gpu_bytes, card, has_evaluation=False)
    return None if known is None else _reckoned(known)


def training_on_cpu(spec: RunSpec, answer: Trace | str, card: RateCard) -> Forecast | None:
    """Forecast by how much a worker's RSS grows while it trains; None where it is not traced."""
    facts, load = facts_of(spec.model.source), workload(spec, card)
    if facts is None or load.length is None or isinstance(answer, str):
        return None
    step = forecast_on_cpu(answer, load.length)
    return highest_moment(spec, facts, load, step, 0, has_evaluation=False)


def beside_training(
    spec: RunSpec, facts: ModelFacts, load: Workload, step: Forecast, gpu_bytes: int
) -> Forecast:
    """Add to a forecast of a training step what stands beside it while the run trains."""
    return highest_moment(spec, facts, load, step, gpu_bytes, has_evaluation=False)


def _reckoned(memory: Memory) -> Forecast:
    """The formulas as a forecast, with the interval that measured runs gave them."""
    total = memory.total_bytes
    estimate = Estimate(
        lens="nvml-device",
        bytes=total,
        low_bytes=round(total / FORMULA_ABOVE),
        high_bytes=round(total / FORMULA_BELOW),
    )
    return Forecast(source="formulas", terms=memory.terms, lenses=(estimate,))
