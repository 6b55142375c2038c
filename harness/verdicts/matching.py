"""Rules that ask whether arms are as good as others: match, ranks that are equivalent, layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from harness.claim_spec import LayersClaim, MatchClaim, RankFreeClaim
from harness.claims import cell_losses
from harness.equivalence import p_above, p_below, p_within
from harness.rule import MINIMUM_SEEDS, Word, decide
from harness.stats import NO_SPREAD, Estimate
from harness.verdicts.evidence import (
    Comparison,
    Evidence,
    compare,
    difference_name,
    effect_of,
    enough_seeds,
    has_learned,
    match_part,
    needed,
    seeds_against,
    undecided,
)
from harness.verdicts.model import Part


def judge_match(evidence: Evidence, claim: MatchClaim) -> list[Part]:
    """One part a measure: each has to match."""
    baseline = evidence.baseline(claim.pair, claim.baseline)
    return [
        match_part(
            evidence,
            claim.pair,
            claim.arm,
            baseline,
            claim.margin,
            measure=measure,
            gain_margins=claim.gain_margins,
            minimum_seeds=claim.minimum_seeds,
        )
        for measure in claim.measures
    ]


def judge_rank_free(evidence: Evidence, claim: RankFreeClaim) -> list[Part]:
    """One part for every two arms: they differ by less than the margin, either way."""
    return [
        _equivalent(evidence, claim, higher, lower) for lower, higher in combinations(claim.arms, 2)
    ]


def _equivalent(evidence: Evidence, claim: RankFreeClaim, arm: str, baseline: str) -> Part:
    found = compare(evidence, claim.pair, arm, baseline)
    word, reason = undecided(evidence, claim.pair, (arm, baseline)) or decide_equal(
        found, claim.margin, claim.gain_margins
    )
    word, reason = enough_seeds(word, reason, found.seeds, claim.minimum_seeds)
    p_equal = p_within(found.worse, -claim.margin, claim.margin)
    above, below = p_above(found.worse, claim.margin), p_below(found.worse, -claim.margin)
    p_refuted = None if above is None or below is None else min(1.0, 2 * min(above, below))
    if word == "refuted" and found.worse is None:  # nothing is estimated
        p_refuted = 0.0
    apart = [seed for seed, value in found.by_seed if abs(value) >= claim.margin]
    close = [seed for seed, value in found.by_seed if abs(value) < claim.margin]
    return Part(
        effect=effect_of(
            difference_name(evidence, claim.pair, arm, baseline),
            evidence.unit(claim.pair),
            found.worse,
            found.by_seed,
            floor=-claim.margin,
            ceiling=claim.margin,
        ),
        word=word,
        reason=reason,
        p_supported=p_equal if not found.lost else None,
        p_refuted=p_refuted,
        p_equal=p_equal,
        seeds_needed=needed(evidence, found.worse, claim.margin)
        if word == "inconclusive"
        else None,
        against=seeds_against(word, apart, close, "apart by the margin", "within the margin"),
    )


def decide_equal(found: Comparison, margin: float, gain_margins: float) -> tuple[Word, str]:
    """Choose the word for 'these two are equivalent': the interval against both ends of the margin."""
    worse = found.worse
    if worse is None:  # a rank that can't be trained where another can makes a difference
        either = [
            decide(None, margin, None, *pair) for pair in permutations((found.arm, found.baseline))
        ]
        return next((verdict for verdict in either if verdict[0] == "refuted"), either[0])
    problem = without_interval(worse, margin, found)
    if problem is not None or worse.low is None or worse.high is None:
        return problem or ("inconclusive", "There is no interval.")
    if worse.low > margin or worse.high < -margin:
        better = found.baseline if worse.low > margin else found.arm
        if better.lost:
            losses = "; ".join(cell_losses(found.pair, better))
            return (
                "inconclusive",
                f"Without a result: {losses}, so the others can't tell them apart.",
            )
        return "refuted", f"The whole interval lies beyond a difference of {margin:g}."
    if not has_learned(found, gain_margins * margin):
        return "inconclusive", (
            f"Not both arms beat the untrained model by {gain_margins:g} margins, so there was little to "
            "be equal in."
        )
    if found.lost:
        return "inconclusive", f"Without a result: {'; '.join(found.lost)}."
    if -margin < worse.low and worse.high < margin:
        return "supported", f"The whole interval stays within {margin:g} either way."
    return "inconclusive", f"The interval reaches beyond {margin:g}."


def judge_layers(evidence: Evidence, claim: LayersClaim) -> list[Part]:
    """Attention alone is worse than the MLP and than every layer; the MLP is no worse than every layer."""
    pair = claim.pair
    return [
        worse_part(evidence, claim, claim.attention, claim.mlp),
        worse_part(evidence, claim, claim.attention, claim.every),
        match_part(
            evidence, pair, claim.mlp, claim.every, claim.margin, minimum_seeds=claim.minimum_seeds
        ),
    ]


def worse_part(evidence: Evidence, claim: LayersClaim, arm: str, baseline: str) -> Part:
    """Test whether an arm is worse than another by more than nothing, and by no less than counts."""
    found = compare(evidence, claim.pair, arm, baseline)
    word, reason = undecided(evidence, claim.pair, (arm, baseline)) or decide_larger(
        found.worse, claim.margin, found, "worse"
    )
    word, reason = enough_seeds(word, reason, found.seeds, claim.minimum_seeds)
    positive = [seed for seed, value in found.by_seed if value > 0]
    negative = [seed for seed, value in found.by_seed if value <= 0]
    return Part(
        effect=effect_of(
            difference_name(evidence, claim.pair, arm, baseline),
            evidence.unit(claim.pair),
            found.worse,
            found.by_seed,
            floor=0.0,
        ),
        word=word,
        reason=reason,
        p_supported=p_above(found.worse, 0.0) if not found.lost else None,
        p_refuted=p_below(found.worse, claim.margin),
        against=seeds_against(word, negative, positive, "no worse", "worse"),
    )


def decide_larger(
    estimate: Estimate | None, margin: float, found: Comparison | None, what: str
) -> tuple[Word, str]:
    """Choose the word for 'this is larger than nothing', where less than a margin counts as nothing."""
    problem = without_interval(estimate, margin, found)
    if problem is not None or estimate is None or estimate.low is None or estimate.high is None:
        return problem or ("inconclusive", "There is no interval.")
    if found is not None and found.lost:
        return "inconclusive", f"Without a result: {'; '.join(found.lost)}."
    if estimate.high < margin:
        return (
            "refuted",
            f"The whole interval stays below {margin:g}, which counts as no difference.",
        )
    if estimate.low > 0:
        return "supported", f"The whole interval lies above 0: {what}."
    return "inconclusive", "The interval holds 0."


def without_interval(
    estimate: Estimate | None, margin: float, found: Comparison | None = None
) -> tuple[Word, str] | None:
    """Say why an estimate has no interval to judge by; None if it has one."""
    lost: Sequence[str] = found.lost if found else ()
    if estimate is None:
        why = f": {'; '.join(lost)}" if lost else ""
        return "not tested", f"No seed has a result in each arm{why}."
    if estimate.n < MINIMUM_SEEDS or estimate.low is None or estimate.high is None:
        return "inconclusive", (
            f"{estimate.n} seed{'s' if estimate.n > 1 else ''}; at least {MINIMUM_SEEDS} are needed for an "
            "interval that means something."
        )
    if estimate.sd is None or estimate.sd <= NO_SPREAD * (abs(estimate.mean) + margin):
        return "inconclusive", "No spread between seeds: the runs may be copies."
    return None
