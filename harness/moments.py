"""The moments of a run, each with the memory that exists then, and the highest of them.

A training step has gradients, activations and what the optimizer takes for itself. Between two steps none
of these exist: what stands are weights, adapter and the optimizer's moments. A held-out evaluation, the
sampling of completions and a weight sync find that and add their own. So a run's forecast is the highest of
its moments, lens by lens, and never the sum of what no moment has. A moment is a `Forecast` of its own.

What is reckoned and not replayed has an interval of its own, wider than a replay's: `ADDED`, and of vLLM's
pool `POOL_BELOW` and `POOL_BEYOND`. None of these was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.activations import ElementBytes, Term, evaluation, generation
from harness.catalog import ModelFacts
from harness.evaluation_replay import KIND, Evaluated
from harness.forecast import (
    LOADED_LATER,
    Band,
    Estimate,
    Forecast,
    growth,
    lenses,
    need,
    split,
)
from harness.sizes import count_groups, count_lora
from harness.spec import RunSpec
from harness.workload import Workload

GIB = 1 << 30
# Of what formulas add to a replay, buckets and caches: how far it may lie off.
ADDED = 0.1
# What torch reserves for caches that grow by a token at a time, as a share of them.
GROWING = 1.3
# vLLM takes its share when it starts, or somewhat less; CUDA graphs, and what it keeps asleep, lie beyond.
POOL_BELOW, POOL_BEYOND = 0.05, GIB


def highest_moment(
    spec: RunSpec,
    facts: ModelFacts,
    load: Workload,
    step: Forecast,
    gpu_bytes: int,
    *,
    has_evaluation: bool = True,
    evaluated: Forecast | None = None,
) -> Forecast:
    """The highest of a run's moments on a card of that size, of which the traced step is one."""
    size, beyond = ElementBytes.of(load), beyond_torch(step)
    pool = int(gpu_bytes * load.pool.share) if load.pool else 0
    sleeps = load.pool is not None and load.pool.sleeps
    awake, asleep = [], [step]  # moments in which a pool that sleeps is there, and is not
    if load.generates:
        sampled = [generation(facts, load, size), _copies(spec, facts, load, size)]
        asleep.append(moment_between_steps(step, sampled, beyond))
    if has_evaluation and spec.task == "grpo":
        held_out = evaluation(spec, facts, load, size)
        added = [held_out, _copies(spec, facts, load, size)] if held_out.bytes else []
        awake.append(moment_between_steps(step, added, beyond))
    elif has_evaluation and evaluated is not None:
        asleep.append(evaluated)
    if sleeps:
        awake.append(moment_between_steps(step, [_sync(spec, facts, load)], beyond))
    buckets = _buckets(spec, facts, load, size)
    moments = [(with_term(each, buckets), True) for each in awake]
    moments += [(with_term(each, buckets), not sleeps) for each in asleep]
    if load.pool is None:
        return highest([moment for moment, _ in moments])
    return highest([with_pool(moment, pool, is_awake=there) for moment, there in moments])


def _copies(spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes) -> Term:
    """What autocast keeps of trained weights until sampling is over; of frozen ones it keeps nothing."""
    casts = spec.lora is None and load.has_autocast and load.weight_bytes > size.compute
    count = count_groups(facts).matmul if casts else 0
    note = "bfloat16 copies of weights that autocast makes"
    return Term(name="copies", bytes=count * size.compute, note=note)


def _sync(spec: RunSpec, facts: ModelFacts, load: Workload) -> Term:
    """What handing weights to vLLM takes: an adapter is merged into a matrix at a time."""
    largest = 0 if spec.lora is None else 2 * facts.hidden * facts.ffn * load.weight_bytes
    note = "a matrix at a time, while an adapter is merged into it for vLLM"
    return Term(name="weight sync", bytes=largest, note=note)


def _buckets(spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes) -> Term:
    """What DDP copies gradients to before it sums them over processes: as many bytes again."""
    note = "gradients once more, where DDP sums them"
    count = 0
    if load.strategy == "ddp" and load.processes > 1:
        lora = spec.lora
        count = (
            count_lora(facts, lora.r, lora.target_modules) if lora else count_groups(facts).total
        )
    return Term(name="DDP's buckets", bytes=count * size.trained, note=note)


def beyond_torch(step: Forecast) -> Band:
    """What a step's device figure has beyond torch's."""
    device, reserved = step.lens("nvml-device"), step.lens("torch-reserved")
    if device is None or reserved is None:  # on a CPU
        return Band(low=0, middle=0, high=0)
    return Band(
        low=device.low_bytes - reserved.low_bytes,
        middle=device.bytes - reserved.bytes,
        high=device.high_bytes - reserved.high_bytes,
    )


def highest(moments: Sequence[Forecast]) -> Forecast:
    """Return the highest of a run's moments: terms of the one that holds most, each lens's own highest."""
    top = max(moments, key=lambda moment: moment.lenses[-1].bytes)
    needs = [moment.needs for moment in moments if moment.needs is not None]
    figures = tuple(
        _highest([figure for moment in moments if (figure := moment.lens(each.lens))])
        for each in top.lenses
    )
    return top.model_copy(update={"lenses": figures, "needs": _highest(needs) if needs else None})


def _highest(figures: Sequence[Estimate]) -> Estimate:
    return Estimate(
        lens=figures[0].lens,
        bytes=max(each.bytes for each in figures),
        low_bytes=max(each.low_bytes for each in figures),
        high_bytes=max(each.high_bytes for each in figures),
    )


def evaluation_moment(step: Forecast, found: Evaluated, beyond: Band, note: str) -> Forecast:
    """Return a replayed held-out evaluation; in the middle between batches that grow and that shrink."""
    peak = max(found.peaks, key=lambda each: each.allocated)
    low = min(each.reserved for each in found.peaks)
    high = max(each.reserved for each in found.peaks)
    middle = (low + high) // 2
    terms = tuple(
        term.model_copy(update={"note": note}) if term.name == KIND else term
        for term in split(peak, middle)
    )
    return step.model_copy(
        update={
            "terms": terms,
            "lenses": lenses(peak.allocated, middle, low, high, beyond),
            "needs": need(peak.allocated, found.needed, beyond),
        }
    )


def moment_between_steps(step: Forecast, added: Sequence[Term], beyond: Band) -> Forecast:
    """Return a moment between two steps, of which nothing is replayed: what stands, and what it adds."""
    own = sum(term.bytes for term in added)
    held = sum(term.bytes for term in step.standing) + own
    terms = (*step.standing, *(term for term in added if term.bytes))
    if step.lens("rss") is not None:
        grown = held + LOADED_LATER
        note = "the process's growth beyond its tensors"
        terms = (*terms, Term(name="allocator", bytes=LOADED_LATER, note=note))
        return step.model_copy(update={"terms": terms, "lenses": (growth(grown),)})
    high = held + round((GROWING - 1) * own)
    return step.model_copy(
        update={
            "terms": terms,
            "lenses": lenses(held, held, held, high, beyond),
            "needs": need(held, high, beyond),
        }
    )


def with_term(moment: Forecast, term: Term) -> Forecast:
    """Add to a moment's torch memory what stands in it all the time, by a formula."""
    if not term.bytes:
        return moment
    low, high = round(term.bytes * (1 - ADDED)), round(term.bytes * (1 + ADDED))
    needs = moment.needs
    return moment.model_copy(
        update={
            "terms": (*moment.terms, term),
            "lenses": tuple(_raised(each, low, term.bytes, high) for each in moment.lenses),
            "needs": _raised(needs, low, term.bytes, high) if needs else None,
        }
    )


def with_pool(moment: Forecast, pool: int, *, is_awake: bool) -> Forecast:
    """Add vLLM's pool to what a moment holds on the device; asleep, only what may be left of it."""
    low, high = (
        (round(pool * (1 - POOL_BELOW)), pool + POOL_BEYOND) if is_awake else (0, POOL_BEYOND)
    )
    middle = pool if is_awake else 0
    note = "a share of the card (vllm_gpu_memory_utilization)"
    term = (Term(name="vLLM pool", bytes=pool, note=note),) if is_awake else ()
    needs = moment.needs
    return moment.model_copy(
        update={
            "terms": (*moment.terms, *term),
            "lenses": tuple(
                _raised(each, low, middle, high) if each.lens == "nvml-device" else each
                for each in moment.lenses
            ),
            "needs": _raised(needs, low, middle, high) if needs else None,
        }
    )


def _raised(estimate: Estimate, low: int, by: int, high: int) -> Estimate:
    return Estimate(
        lens=estimate.lens,
        bytes=estimate.bytes + by,
        low_bytes=estimate.low_bytes + low,
        high_bytes=estimate.high_bytes + high,
    )
