"""Rules for what LoRA takes: peak memory by lens and phase, FLOPs counted, step time measured."""

from __future__ import annotations

import math

from harness.claim_spec import ComputeClaim, MemoryClaim
from harness.compute import ComputeRatio
from harness.equivalence import p_above, p_below
from harness.lenses import TRAINING, WHOLE_RUN
from harness.ratios import PHASE_NAMES, MemoryComparison, compare_field
from harness.ratios import compare_memory as compare
from harness.record import Status
from harness.rule import MINIMUM_SEEDS, Side, Verdict
from harness.stats import NO_SPREAD, Estimate
from harness.verdicts.evidence import Evidence, seeds_against, undecided
from harness.verdicts.model import Effect, Part

# A phase's ratio stands beside the one in training, which decides.
OTHER_PHASES = (*(phase for phase in PHASE_NAMES if phase != TRAINING), WHOLE_RUN)
OUT_OF_MEMORY = frozenset({Status.OOM_GPU.value, Status.OOM_HOST.value})


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
            decides = phase == TRAINING and not parts
            refused: Verdict | None = ("inconclusive", found.refused) if found.refused else None
            verdict = stop or refused or _below(found, claim, ours, theirs)
            parts.append(_memory_part(found, name, claim.at_most, verdict, decides=decides))
    if not any(part.decides for part in parts):
        effect = Effect(
            name=f"memory in training, {name}", unit="ratio", value=None, ceiling=claim.at_most
        )
        word, reason = stop or _without_memory(claim, ours, theirs)
        p_refuted = 0.0 if word == "refuted" else None  # nothing is estimated
        parts.insert(0, Part(effect=effect, word=word, reason=reason, p_refuted=p_refuted))
    return parts


def _memory_part(
    found: MemoryComparison, name: str, at_most: float, verdict: Verdict, *, decides: bool
) -> Part:
    ratio, (word, reason) = found.ratio, verdict
    over = [seed for seed, value in found.by_seed if value >= at_most]
    under = [seed for seed, value in found.by_seed if value < at_most]
    p_supported, p_refuted = (None, None) if found.refused else _p_memory(found, at_most)
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
        is_refused=found.refused is not None,
        p_supported=p_supported,
        p_refuted=p_refuted,
        against=seeds_against(word, over, under, "not below", "below") if decides else (),
    )


def _p_memory(found: MemoryComparison, at_most: float) -> tuple[float | None, float | None]:
    """Return the p values of a ratio: below its bound, and above it."""
    if found.ratio is None or found.log_sd is None:
        return None, None
    if _is_fixed(found):  # nothing in it is left to chance
        return float(found.ratio.value >= at_most), float(found.ratio.value <= at_most)
    logs = Estimate(math.log(found.ratio.value), None, None, found.ratio.n, found.log_sd)
    bound = math.log(at_most)
    return p_below(logs, bound), p_above(logs, bound)


def _is_fixed(found: MemoryComparison) -> bool:
    """Whether the ratio is the same in every seed: shapes decide what an allocator takes, not luck."""
    return found.log_sd is not None and found.log_sd <= NO_SPREAD


def _below(found: MemoryComparison, claim: MemoryClaim, ours: Side, theirs: Side) -> Verdict:
    """Choose the word for 'this ratio stays below a bound'."""
    ratio, at_most = found.ratio, claim.at_most
    minimum = max(claim.minimum_seeds, MINIMUM_SEEDS)
    if ratio is None or ratio.low is None or ratio.high is None or ratio.n < minimum:
        n = ratio.n if ratio else 0
        return "inconclusive", f"{n} seed{'' if n == 1 else 's'}; at least {minimum} are needed."
    if _is_fixed(found) and _are_copies(ours, theirs):
        return "inconclusive", "Not even the runs' times differ between seeds: they may be copies."
    how = "It is the same in every seed, and" if _is_fixed(found) else "The whole interval"
    if ratio.high < at_most:
        if ours.lost or theirs.lost:
            lost = ", ".join(
                f"{side.name}.s{seed} ({why})"
                for side in (ours, theirs)
                for seed, why in side.lost.items()
            )
            return "inconclusive", f"Without a result: {lost}, so the others can't support it."
        return "supported", f"{how} stays below {at_most:.0%}."
    if ratio.low > at_most:
        if theirs.lost:
            return (
                "inconclusive",
                f"Runs of {theirs.name} have no result, so the others can't refute it.",
            )
        return "refuted", f"{how} lies above {at_most:.0%}."
    return "inconclusive", f"The interval holds {at_most:.0%}."


def _are_copies(*sides: Side) -> bool:
    return any(
        len({run.wall_s for run in side.runs.values() if run is not None}) == 1 for side in sides
    )


def _without_memory(claim: MemoryClaim, ours: Side, theirs: Side) -> Verdict:
    """Choose the word where no lens has a reading in every compared run."""
    is_out = bool(ours.lost) and not ours.finished and OUT_OF_MEMORY.issuperset(ours.lost.values())
    if is_out and not theirs.lost and theirs.finished >= max(claim.minimum_seeds, MINIMUM_SEEDS):
        return "refuted", (
            f"Every run of {ours.name} ran out of memory, while {theirs.name} finished in all "
            f"{theirs.finished} seeds."
        )
    return "not tested", "No lens has a reading in every compared run."


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
