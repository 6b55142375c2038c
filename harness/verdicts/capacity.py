"""Rule over ranks: low ones leave full fine-tuning's curve, the lower the earlier; the highest not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.claim_spec import CapacityClaim
from harness.equivalence import p_above, p_below
from harness.rule import Word
from harness.trend import Direction, trend_p
from harness.verdicts.evidence import (
    Curve,
    Evidence,
    compare,
    difference_name,
    effect_of,
    enough_seeds,
    match_part,
    seeds_against,
    undecided,
    what_is,
)
from harness.verdicts.matching import without_interval
from harness.verdicts.model import Effect, Part

OPPOSITE: dict[Direction, Direction] = {"increasing": "decreasing", "decreasing": "increasing"}


def judge_capacity(evidence: Evidence, claim: CapacityClaim) -> list[Part]:
    """The lowest rank falls behind, the highest does not, and in between rank helps."""
    baseline = evidence.baseline(claim.pair, claim.baseline)
    return [
        _falls_behind(evidence, claim, claim.arms[0], baseline),
        match_part(
            evidence,
            claim.pair,
            claim.arms[-1],
            baseline,
            claim.margin,
            minimum_seeds=claim.minimum_seeds,
        ),
        _final_trend(evidence, claim),
        _departure_trend(evidence, claim, baseline),
    ]


def _falls_behind(evidence: Evidence, claim: CapacityClaim, arm: str, baseline: str) -> Part:
    """Test whether an arm is worse by more than the margin: the reverse of a match."""
    found = compare(evidence, claim.pair, arm, baseline)
    stop = undecided(evidence, claim.pair, (arm, baseline)) or without_interval(
        found.worse, claim.margin, found
    )
    worse, margin = found.worse, claim.margin
    word: Word = "inconclusive"
    reason = f"The interval holds the margin of {margin:g}."
    if stop:
        word, reason = stop
    elif found.lost:
        reason = f"Without a result: {'; '.join(found.lost)}."
    elif worse and worse.low is not None and worse.low > margin:
        word, reason = (
            "supported",
            f"Even the interval's favourable end is worse by more than {margin:g}.",
        )
    elif worse and worse.high is not None and worse.high < margin:
        word, reason = "refuted", f"The whole interval stays below {margin:g}: it keeps up."
    word, reason = enough_seeds(word, reason, found.seeds, claim.minimum_seeds)
    behind = [seed for seed, value in found.by_seed if value > margin]
    beside = [seed for seed, value in found.by_seed if value <= margin]
    return Part(
        effect=effect_of(
            difference_name(evidence, claim.pair, arm, baseline),
            evidence.unit(claim.pair),
            worse,
            found.by_seed,
            floor=margin,
        ),
        word=word,
        reason=reason,
        p_supported=p_above(worse, margin) if not found.lost else None,
        p_refuted=p_below(worse, margin),
        against=seeds_against(word, beside, behind, "keeps up", "falls behind"),
    )


def _final_trend(evidence: Evidence, claim: CapacityClaim) -> Part:
    """Test whether the metric falls with the rank, over seeds."""
    seeds = evidence.seeds(claim.pair, *claim.arms)
    values = {
        arm: evidence.values(claim.pair, evidence.side(claim.pair, arm, seeds))
        for arm in claim.arms
    }
    rows = {
        s: [values[a][s] for a in claim.arms]
        for s in seeds
        if all(s in values[a] for a in claim.arms)
    }
    sign = evidence.sign(claim.pair)
    shown = {
        arm: _mean([sign * row[i] for row in rows.values()]) for i, arm in enumerate(claim.arms)
    }
    what = f"{what_is(evidence, claim.pair)} by rank"
    return _trend_part(evidence, claim, rows, "decreasing", what, _listed(shown), len(seeds))


def _departure_trend(evidence: Evidence, claim: CapacityClaim, baseline: str) -> Part:
    """Test whether higher ranks leave the baseline's curve later, over seeds."""
    seeds = evidence.seeds(claim.pair, *claim.arms)
    rows: dict[int, list[float]] = {}
    for seed in seeds:
        curves = [evidence.curves.get((claim.pair, arm, seed)) for arm in (baseline, *claim.arms)]
        known = [curve for curve in curves if curve]
        if len(known) == len(curves):
            sign = evidence.sign(claim.pair)
            steps = [departure(known[0], curve, claim.margin, sign) for curve in known[1:]]
            if not any(math.isnan(step) for step in steps):
                rows[seed] = steps
    shown = {
        arm: ", ".join("never" if math.isinf(row[i]) else f"{row[i]:g}" for row in rows.values())
        for i, arm in enumerate(claim.arms)
    }
    listed = "; ".join(f"{arm}: {steps}" for arm, steps in shown.items())
    what = "step of departure by rank"
    # Curves are read at few steps: all seeds may agree. Copied runs show in the metric's own trend.
    return _trend_part(
        evidence, claim, rows, "increasing", what, listed, len(seeds), is_discrete=True
    )


def departure(reference: Curve, curve: Curve, margin: float, sign: float = 1.0) -> float:
    """Return the first step from which a curve stays worse than a reference by more than a margin.

    Only steps that both were evaluated at count; step 0 is the untrained model. Infinity if it is within
    the margin at the end, NaN without such a step.
    """
    at = dict(reference)
    steps = [(step, sign * (value - at[step])) for step, value in curve if step > 0 and step in at]
    found = math.inf if steps else math.nan
    for step, gap in reversed(steps):
        if gap <= margin:
            break
        found = float(step)
    return found


def _trend_part(
    evidence: Evidence,
    claim: CapacityClaim,
    rows: Mapping[int, Sequence[float]],
    direction: Direction,
    what: str,
    listed: str,
    planned: int,
    *,
    is_discrete: bool = False,
) -> Part:
    values, other = list(rows.values()), OPPOSITE[direction]
    along, back = (trend_p(values, d, is_discrete=is_discrete) for d in (direction, other))
    effect = Effect(name=what, unit="Page's trend test", value=None, n=len(rows))
    word: Word = "inconclusive"
    if len(claim.arms) < 3:
        return Part(
            effect=effect, word="not tested", reason="A trend takes three ranks.", decides=False
        )
    stop = undecided(evidence, claim.pair, claim.arms)
    if stop:
        return Part(effect=effect, word=stop[0], reason=stop[1])
    if len(rows) < max(claim.minimum_seeds, 2):
        reason = f"{len(rows)} seeds have a value at every rank."
        return Part(effect=effect, word="inconclusive" if rows else "not tested", reason=reason)
    said = f"Claimed to be {direction}; found {listed}."
    if along is not None and along <= evidence.alpha and len(rows) == planned:
        word, said = "supported", f"{said} Page's p = {along:.2g}."
    elif back is not None and back <= evidence.alpha and len(rows) == planned:
        word, said = "refuted", f"{said} The trend runs the other way, p = {back:.2g}."
    else:
        said = f"{said} " + ("No test." if along is None else f"Page's p = {along:.2g}.")
    if len(rows) < planned:
        said += (
            f" {planned - len(rows)} of {planned} seeds lack a value, so the others can't decide."
        )
    return Part(
        effect=effect,
        word=word,
        reason=said,
        p_supported=along if len(rows) == planned else None,
        p_refuted=back,
    )


def _listed(shown: Mapping[str, float | None]) -> str:
    return "; ".join(
        f"{arm}: {'not measured' if value is None else f'{value:.3g}'}"
        for arm, value in shown.items()
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
