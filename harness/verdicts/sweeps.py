"""Rules over learning rates and batch sizes: the ratio of best rates, and what a large batch costs."""

from __future__ import annotations

import math
from itertools import combinations

from harness.claim_spec import BatchClaim, RateClaim
from harness.claims import UNDECLARED
from harness.equivalence import p_above, p_below
from harness.optimum import Losses, RateRatio, optimum, rate_ratio
from harness.rule import MINIMUM_SEEDS, Verdict, Word
from harness.selection import grid_of
from harness.spec import rate_text
from harness.stats import Estimate, mean_interval
from harness.verdicts.evidence import (
    Evidence,
    compare,
    difference_name,
    effect_of,
    enough_seeds,
    match_part,
    needed,
    seeds_against,
    undecided,
)
from harness.verdicts.matching import decide_larger
from harness.verdicts.model import Part


def judge_rates(evidence: Evidence, claim: RateClaim) -> list[Part]:
    """The ratio of best rates lies within a range, and ranks share theirs within a factor."""
    baseline = evidence.baseline(claim.pair, claim.baseline)
    parts = [
        _ratio_part(
            evidence, claim, claim.arm, baseline, claim.low, claim.high, "best learning rate"
        )
    ]
    return parts + [
        _ratio_part(
            evidence, claim, higher, lower, 1 / claim.drift, claim.drift, "drift of the best rate"
        )
        for lower, higher in combinations(claim.ranks, 2)
    ]


def _ratio_part(
    evidence: Evidence,
    claim: RateClaim,
    arm: str,
    baseline: str,
    low: float,
    high: float,
    what: str,
) -> Part:
    ours, theirs = (losses_of(evidence, claim.pair, each) for each in (arm, baseline))
    found = rate_ratio(ours, theirs, evidence.confidence)
    estimate = found.estimate
    best = [
        {s: optimum(losses).log10_rate for s, losses in each.items()} for each in (ours, theirs)
    ]
    by_seed = tuple(
        (seed, 10 ** (a - b))
        for seed in sorted(ours.keys() & theirs.keys())
        if (a := best[0][seed]) is not None and (b := best[1][seed]) is not None
    )
    waits = [why for each in (arm, baseline) if (why := evidence.waiting.get((claim.pair, each)))]
    stop: Verdict | None = ("not tested", f"{waits[0]}.") if waits else None
    if stop is None and claim.pair in evidence.undeclared_pairs:
        stop = UNDECLARED
    word, reason = stop or _decide_ratio(found, low, high, claim.minimum_seeds)
    logs = None
    if estimate is not None and estimate.sd is not None:
        logs = Estimate(math.log(estimate.mean), None, None, estimate.n, estimate.sd)
    above, below = p_above(logs, math.log(high)), p_below(logs, math.log(low))
    outside = [seed for seed, ratio in by_seed if not low <= ratio <= high]
    inside = [seed for seed, ratio in by_seed if low <= ratio <= high]
    return Part(
        effect=effect_of(
            f"{what}, {arm} over {baseline}", "ratio", estimate, by_seed, floor=low, ceiling=high
        ),
        word=word,
        reason=reason,
        p_supported=None if stop else found.p_within(low, high),
        p_refuted=None if above is None or below is None else min(1.0, 2 * min(above, below)),
        against=seeds_against(word, outside, inside, "outside the range", "inside the range"),
    )


def _decide_ratio(found: RateRatio, low: float, high: float, minimum: int) -> tuple[Word, str]:
    estimate = found.estimate
    if found.lost:
        seeds = ", ".join(map(str, found.lost))
        return "inconclusive", (
            f"The best rate lies at an end of the grid, or beyond, with selection seed {seeds}: a wider "
            "grid would tell."
        )
    if estimate is None:
        return "not tested", "No rate of the grid was tried."
    if estimate.n < max(minimum, MINIMUM_SEEDS) or estimate.low is None or estimate.high is None:
        return "inconclusive", (
            f"{estimate.n} selection seed{'s' if estimate.n > 1 else ''}; at least "
            f"{max(minimum, MINIMUM_SEEDS)} are needed."
        )
    if found.p_within(low, high) is None:
        return "inconclusive", "No spread between seeds: the runs may be copies."
    span = f"{estimate.low:.3g} to {estimate.high:.3g}"
    if low < estimate.low and estimate.high < high:
        return "supported", f"The whole interval, {span}, lies within {low:g} to {high:g}."
    if estimate.high < low or estimate.low > high:
        return "refuted", f"The whole interval, {span}, lies outside {low:g} to {high:g}."
    return "inconclusive", f"The interval, {span}, reaches over an end of {low:g} to {high:g}."


def losses_of(evidence: Evidence, pair: str, arm: str) -> dict[int, Losses]:
    """Return an arm's grid as selection seed → rate → loss; infinite where it did not end ok."""
    sign = evidence.sign(pair)
    by_seed: dict[int, dict[float, float]] = {}
    for (rate, seed), point in grid_of(evidence.points, pair, arm).items():
        if point.status is not None:
            value = point.value if point.is_ok else None
            by_seed.setdefault(seed, {})[rate] = math.inf if value is None else sign * value
    return dict(by_seed)


def judge_batch(evidence: Evidence, claim: BatchClaim) -> list[Part]:
    """The gap grows from the smallest batch to the largest, and a higher rank does not close it there."""
    largest = claim.pairs[-1]
    raised = match_part(
        evidence,
        largest,
        claim.arm,
        claim.raised,
        claim.margin,
        minimum_seeds=claim.minimum_seeds,
        name=f"at the largest batch: {difference_name(evidence, largest, claim.arm, claim.raised)}",
    )
    return [_growth(evidence, claim), raised]


def _growth(evidence: Evidence, claim: BatchClaim) -> Part:
    gaps: list[dict[int, float]] = []
    lost: list[str] = []
    stop = None
    for pair in (claim.pairs[0], claim.pairs[-1]):
        baseline = evidence.baseline(pair, claim.baseline)
        found = compare(evidence, pair, claim.arm, baseline)
        stop = stop or undecided(evidence, pair, (claim.arm, baseline))
        gaps.append(dict(found.by_seed))
        lost += found.lost
    shared = sorted(gaps[0].keys() & gaps[1].keys())
    by_seed = tuple((seed, gaps[1][seed] - gaps[0][seed]) for seed in shared)
    growth = mean_interval([value for _, value in by_seed], evidence.confidence)
    word, reason = stop or decide_larger(growth, claim.margin, None, "the gap grows")
    if lost and word in ("supported", "refuted"):
        word, reason = "inconclusive", f"Without a result: {'; '.join(lost)}."
    word, reason = enough_seeds(word, reason, len(by_seed), claim.minimum_seeds)
    grows = [seed for seed, value in by_seed if value > 0]
    shrinks = [seed for seed, value in by_seed if value <= 0]
    return Part(
        effect=effect_of(
            f"gap {claim.arm} to the baseline, {claim.pairs[-1]} minus {claim.pairs[0]}",
            evidence.unit(claim.pairs[0]),
            growth,
            by_seed,
            floor=0.0,
        ),
        word=word,
        reason=reason,
        p_supported=p_above(growth, 0.0) if not lost else None,
        p_refuted=p_below(growth, claim.margin),
        seeds_needed=needed(evidence, growth, claim.margin) if word == "inconclusive" else None,
        against=seeds_against(word, shrinks, grows, "the gap shrinks", "the gap grows"),
    )


def optima_text(evidence: Evidence, pair: str, arm: str) -> str:
    """List an arm's best rate by selection seed."""
    found = {seed: optimum(losses) for seed, losses in losses_of(evidence, pair, arm).items()}
    return ", ".join(
        rate_text(10**best.log10_rate) if best.log10_rate is not None else f"at the {best.place}"
        for _, best in sorted(found.items())
    )
