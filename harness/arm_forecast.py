"""What each arm of a matrix would hold on one GPU, traced where it can be, and which GPU that takes.

The training step is traced (`forecast`). What stands beside it is added: vLLM's pool, a share of the
card; the buckets that DDP copies gradients to; and, where another moment of the run takes more than a
step's activations and logits, what it takes beyond them, by the formulas of `activations`: sampling with
transformers (keys and values of all completions), and the held-out evaluation. A run that is sharded over
several GPUs, and any run where torch is not installed, is reckoned by the formulas of `estimate`, and
says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from harness.activations import ElementBytes, Term, evaluation, generation
from harness.catalog import ModelFacts
from harness.estimate import Memory, estimate_memory
from harness.forecast import (
    Estimate,
    Forecast,
    Rows,
    forecast_on_cpu,
    forecast_training,
    smallest,
    subject_of,
)
from harness.frozen import Frozen
from harness.memory_trace import Trace
from harness.rates import RateCard
from harness.sizes import count_groups, count_lora, facts_of
from harness.spec import RunSpec
from harness.subject import Device
from harness.trace_cache import Progress, can_trace, traces
from harness.tracers import Question
from harness.workload import Workload, workload

# How far the formulas' step lay from what runs on an H100 held: 3 % below to 21 % above (docs/gpu.md).
FORMULA_BELOW, FORMULA_ABOVE = 0.97, 1.21
TRACED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor")
OF_A_STEP = ("activations", "logits", "temporaries", "copies")


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


def is_traced(optim: str) -> bool:
    """Whether an optimizer's step is traced; of bitsandbytes' the sizes of its states are."""
    return optim in TRACED_OPTIMIZERS or "8bit" in optim or optim.startswith(("paged_", "lion"))


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
    step = _step(spec, load, answer, card, is_hopper) if isinstance(answer, Trace) else None

    def formulas(size: int) -> Memory | None:
        if facts is None:
            return None
        return estimate_memory(spec, facts, load, size, card, has_tiles=has_tiles)

    def made(size: int) -> Forecast | None:
        if step is not None and facts is not None:
            return _with_others(spec, facts, load, step, size)
        known = formulas(size)
        return None if known is None else _reckoned(known)

    forecast, checked = made(gpu_bytes), formulas(gpu_bytes)
    fits = {name: _fits(made(size), size) for name, size in classes.items()} if forecast else {}
    return ArmForecast(
        pair=spec.pair,
        arm=spec.arm,
        forecast=forecast,
        why=None if is_traced else str(answer),
        cross_check_bytes=checked.total_bytes if checked and is_traced else None,
        fits=fits,
        smallest=smallest(fits),
    )


def _step(spec: RunSpec, load: Workload, trace: Trace, card: RateCard, is_hopper: bool) -> Forecast:
    """The training step alone."""
    assert load.length is not None  # noqa: S101 - what is traced has one
    mean = load.mean_length if spec.task == "sft" and not spec.trainer.get("packing") else None
    return forecast_training(
        trace,
        Rows(longest=load.length, mean=mean),
        batch=load.batch,
        is_hopper=is_hopper,
        beyond_torch=card.bare_context_bytes.value,
    )


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
        return _with_others(spec, facts, load, step, gpu_bytes, has_evaluation=False)
    known = estimate_memory(spec, facts, load, gpu_bytes, card)
    if known is None:
        return None
    training = tuple(term for term in known.terms if term.name != "evaluation")
    return _reckoned(Memory(terms=training))


def training_on_cpu(spec: RunSpec, answer: Trace | str, card: RateCard) -> Forecast | None:
    """Forecast by how much a worker's RSS grows while it trains; None where it is not traced."""
    facts, load = facts_of(spec.model.source), workload(spec, card)
    if facts is None or load.length is None or isinstance(answer, str):
        return None
    step = forecast_on_cpu(answer, load.length)
    beside = _beyond_a_step(step, generation(facts, load, ElementBytes.of(load)))
    return _with_terms(step, beside, 0)


def beside_training(
    spec: RunSpec, facts: ModelFacts, load: Workload, step: Forecast, gpu_bytes: int
) -> Forecast:
    """Add to a forecast of a training step what stands beside it while the run trains."""
    return _with_others(spec, facts, load, step, gpu_bytes, has_evaluation=False)


def _with_others(
    spec: RunSpec,
    facts: ModelFacts,
    load: Workload,
    step: Forecast,
    gpu_bytes: int,
    *,
    has_evaluation: bool = True,
) -> Forecast:
    """The traced step, and what stands beside it on a card of that size."""
    size = ElementBytes.of(load)
    own = sum(t.bytes for t in step.terms if t.name in OF_A_STEP)
    others = [generation(facts, load, size)]
    others += [evaluation(spec, facts, load, size)] if has_evaluation else []
    beside = [
        *_buckets(spec, facts, load, size),
        *_beyond_a_step(step, max(others, key=lambda t: t.bytes)),
    ]
    pool = int(gpu_bytes * load.pool.share) if load.pool else 0
    if load.pool and load.pool.sleeps:
        pool = max(0, pool - own)
    return _with_terms(step, beside, pool)


def _buckets(spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes) -> list[Term]:
    """What DDP copies gradients to before it sums them over processes: as many bytes again."""
    if load.strategy != "ddp" or load.processes < 2:
        return []
    lora = spec.lora
    count = count_lora(facts, lora.r, lora.target_modules) if lora else count_groups(facts).total
    note = "gradients once more, where DDP sums them"
    return [Term(name="DDP's buckets", bytes=count * size.trained, note=note)]


def _beyond_a_step(step: Forecast, other: Term) -> list[Term]:
    """What another moment takes beyond a step's activations and logits, if it does."""
    own = sum(t.bytes for t in step.terms if t.name in OF_A_STEP)
    return [other.model_copy(update={"bytes": other.bytes - own})] if other.bytes > own else []


def _with_terms(step: Forecast, beside: Sequence[Term], pool: int) -> Forecast:
    in_torch = sum(term.bytes for term in beside)
    terms = (*step.terms, *beside)
    if pool:
        note = "a share of the card (vllm_gpu_memory_utilization)"
        terms = (*terms, Term(name="vLLM pool", bytes=pool, note=note))
    return step.model_copy(
        update={
            "terms": terms,
            "lenses": tuple(
                _raised(e, in_torch + (pool if e.lens == "nvml-device" else 0)) for e in step.lenses
            ),
        }
    )


def _raised(estimate: Estimate, by: int) -> Estimate:
    return Estimate(
        lens=estimate.lens,
        bytes=estimate.bytes + by,
        low_bytes=estimate.low_bytes + by,
        high_bytes=estimate.high_bytes + by,
    )


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


def _fits(forecast: Forecast | None, size: int) -> str:
    device = forecast.lens("nvml-device") if forecast else None
    if device is None or device.low_bytes > size:
        return "no"
    return "yes" if device.high_bytes <= size else "perhaps"
