"""Rules for what LoRA takes: peak memory by lens and phase, FLOPs counted, step time measured."""

from __future__ import annotations

import math

from harness.claim_spec import ComputeClaim, MemoryClaim
from harness.compute import ComputeRatio
from harness.equivalence import p_above, p_below
from harness.ratios import PHASE_NAMES, TRAINING, Interval, MemoryComparison, compare_field
from harness.ratios import compare_memory as compare
from harness.rule import MINIMUM_SEEDS, Word
from harness.stats import Estimate
from harness.summary import WHOLE_RUN
from harness.verdicts.evidence import Evidence, seeds_against, undecided
from harness.verdicts.model import Effect, Part

# A phase's ratio stands beside the one in training, which decides.
OTHER_PHASES = (*(phase for phase in PHASE_NAMES if phase != TRAINING), WHOLE_RUN)


def judge_memory(evidence: Evidence, claim: MemoryClaim) -> list[Part]:
    """One deciding part a comparison: the first lens that every run has, in training."""
    return [part for each in claim.comparisons for part in _memory_parts(evidence, claim, each)]


def _memory_parts(evidence: Evidence, claim: MemoryClaim, comparison: str) -> list[Part]:
    pair, arm = comparison.split(".", 1)
    baseline = evidence.baseline(pair, None)
    seeds = evidence.seeds(pair, arm, baseline)
    ours, theirs = (evidence.side(pair, each, seeds) for each in (arm, baseline))
    shared = [s for s in seeds if s not in ours.lost and s not in theirs.lost]
    name = f"{comparison} over {baseline}"
    stop = undecided(evidence, pair, (arm, baseline))
    parts: list[Part] = []
    for phase in (TRAINING, *OTHER_PHASES):
        for found in compare(ours.runs, theirs.runs, shared, phase, evidence.confidence):
            decides = not parts
            word, reason = stop or _below(found.ratio, claim.at_most, claim.minimum_seeds)
            parts.append(_memory_part(found, name, claim.at_most, word, reason, decides=decides))
    if not parts:
        effect = Effect(name=f"memory, {name}", unit="ratio", value=None, ceiling=claim.at_most)
        word, reason = stop or ("not tested", "No lens has a reading in every compared run.")
        return [Part(effect=effect, word=word, reason=reason)]
    return parts


def _memory_part(
    found: MemoryComparison, name: str, at_most: float, word: Word, reason: str, *, decides: bool
) -> Part:
    ratio = found.ratio
    logs = None
    if ratio is not None and found.log_sd is not None:
        logs = Estimate(math.log(ratio.value), None, None, ratio.n, found.log_sd)
    bound = math.log(at_most)
    over = [seed for seed, value in found.by_seed if value >= at_most]
    under = [seed for seed, value in found.by_seed if value < at_most]
    return Part(
        effect=Effect(
            name=f"{found.statistic}, {name}",
            unit="ratio",
            value=ratio.value if ratio else None,
            low=ratio.low if ratio else None,
            high=ratio.high if ratio else None,
            n=ratio.n if ratio else 0,
            ceiling=at_most,
            by_seed=found.by_seed,
        ),
        word=word,
        reason=reason,
        decides=decides,
        p_supported=p_below(logs, bound),
        p_refuted=p_above(logs, bound),
        against=seeds_against(word, over, under, "not below", "below") if decides else (),
    )


def _below(ratio: Interval | None, at_most: float, minimum: int) -> tuple[Word, str]:
    """Choose the word for 'this ratio stays below a bound'."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.n < MINIMUM_SEEDS:
        n = ratio.n if ratio else 0
        return "inconclusive", f"{n} seeds; at least {max(minimum, MINIMUM_SEEDS)} are needed."
    if ratio.n < minimum:
        return "inconclusive", f"{ratio.n} seeds; the claim asks for {minimum}."
    if ratio.high < at_most:
        return "supported", f"The whole interval stays below {at_most:.0%}."
    if ratio.low > at_most:
        return "refuted", f"The whole interval lies above {at_most:.0%}."
    return "inconclusive", f"The interval holds {at_most:.0%}."


def judge_compute(evidence: Evidence, claim: ComputeClaim) -> list[Part]:
    """One deciding part a model and rank, counted; measured step times stand beside them."""
    counted = {(ratio.model, ratio.rank): ratio for ratio in evidence.flops}
    parts = [
        _compute_part(claim, model, rank, counted.get((model, rank)))
        for model in claim.models
        for rank in claim.ranks
    ]
    return parts + [_step_time(evidence, each) for each in claim.comparisons]


def _compute_part(claim: ComputeClaim, model: str, rank: int, found: ComputeRatio | None) -> Part:
    name = f"FLOPs of the linear layers, {model} rank {rank} over full"
    if found is None:
        effect = Effect(name=name, unit="ratio", value=None)
        return Part(effect=effect, word="not tested", reason="The FLOPs were not counted.")
    claimed = found.closed_form if claim.ratio is None else claim.ratio
    margin = claim.margin * claimed if claim.ratio is None else claim.margin
    holds = abs(found.linear - claimed) <= margin
    what = "2/3 + rank term" if claim.ratio is None else "the claimed"
    return Part(
        effect=Effect(
            name=name,
            unit="ratio",
            value=found.linear,
            floor=claimed - margin,
            ceiling=claimed + margin,
        ),
        word="supported" if holds else "refuted",
        reason=f"Counted {found.linear:.3f}; {what} {claimed:.3f}, give or take {margin:.3f}.",
    )


def _step_time(evidence: Evidence, comparison: str) -> Part:
    """Measured, and deciding nothing: a step's time depends on kernels and memory too."""
    pair, arm = comparison.split(".", 1)
    baseline = evidence.baseline(pair, None)
    seeds = evidence.seeds(pair, arm, baseline)
    ours, theirs = (evidence.side(pair, each, seeds) for each in (arm, baseline))
    shared = [s for s in seeds if s not in ours.lost and s not in theirs.lost]
    ratio = compare_field(ours.runs, theirs.runs, shared, "step_s_median")
    return Part(
        effect=Effect(
            name=f"median step time, {comparison} over {baseline}",
            unit="ratio",
            value=ratio.value if ratio else None,
            low=ratio.low if ratio else None,
            high=ratio.high if ratio else None,
            n=ratio.n if ratio else 0,
        ),
        word="not tested",
        reason="Measured on this machine; it stands beside the count.",
        decides=False,
    )
