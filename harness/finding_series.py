"""The numbers under the findings' figures: a value per seed, and their mean with its ends.

Ends are the lowest and highest seed, or a 95 % interval where a function says so. What this leaves out:
how any of it looks (`finding_charts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.claim_spec import BatchClaim, CapacityClaim, RateClaim
from harness.optimum import optimum
from harness.selection import grid_of
from harness.series import CurvePoint, over_seeds
from harness.stats import mean_interval, median
from harness.verdicts.capacity import departure
from harness.verdicts.evidence import Evidence, compare
from harness.verdicts.model import Part
from harness.verdicts.sweeps import losses_of

Place = float | str  # where on the x axis
LORA = "LoRA"
HEADROOM = 3.0  # losses this many times as far from the best as the median are drawn at the edge


@dataclass(frozen=True)
class MeanPoint:
    """One place of one line: the mean over seeds and its ends."""

    x: Place
    arm: str
    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class SeedPoint:
    """One seed's own value."""

    x: Place
    arm: str
    seed: int
    value: float


@dataclass(frozen=True)
class Dots:
    """What a figure of means and seeds shows."""

    means: tuple[MeanPoint, ...] = ()
    seeds: tuple[SeedPoint, ...] = ()

    def __add__(self, other: Dots) -> Dots:
        """Put two beside each other."""
        return Dots(self.means + other.means, self.seeds + other.seeds)


@dataclass(frozen=True)
class Optimum:
    """An arm's best rate over its selection seeds, with the 95 % interval of its mean logarithm."""

    arm: str
    rate: float
    low: float | None
    high: float | None
    seeds: int


def dots_of(x: Place, arm: str, by_seed: dict[int, float]) -> Dots:
    """Collect one place's seeds, their mean, the lowest and the highest."""
    values = list(by_seed.values())
    if not values:
        return Dots()
    mean = MeanPoint(x, arm, sum(values) / len(values), min(values), max(values), len(values))
    return Dots((mean,), tuple(SeedPoint(x, arm, s, v) for s, v in sorted(by_seed.items())))


def finals(evidence: Evidence, pair: str, arm: str) -> dict[int, float]:
    """Return an arm's held-out metric after training, by seed."""
    return evidence.side(pair, arm, evidence.seeds(pair, arm)).finals(evidence.seeds(pair, arm))


def rank_of(evidence: Evidence, pair: str, arm: str) -> int:
    """Return a LoRA arm's rank; 0 for an arm without an adapter."""
    lora = evidence.pair(pair).arms[arm].lora
    return lora.r if lora else 0


def rank_dots(evidence: Evidence, pair: str, arms: Sequence[str]) -> Dots:
    """Collect the final metric of arms that differ in rank."""
    return joined(
        dots_of(float(rank_of(evidence, pair, arm)), LORA, finals(evidence, pair, arm))
        for arm in arms
    )


def capacity_curves(
    evidence: Evidence, claim: CapacityClaim
) -> tuple[tuple[CurvePoint, ...], tuple[MeanPoint, ...]]:
    """Collect held-out curves by arm from step 1 on, and where each leaves the baseline's for good.

    A departure is the median over the seeds in which the arm departs, on the arm's mean curve.
    """
    baseline = evidence.baseline(claim.pair, claim.baseline)
    line: list[CurvePoint] = []
    departures: list[MeanPoint] = []
    for arm in (baseline, *claim.arms):
        seeds = evidence.seeds(claim.pair, arm)
        curves = {s: evidence.curves.get((claim.pair, arm, s), ()) for s in seeds}
        rows = over_seeds([dict(curve) for curve in curves.values()])
        ours = [CurvePoint(arm, *row) for row in rows if row[0] > 0]
        line += ours
        if arm != baseline:
            departures += _departure(evidence, claim, arm, baseline, ours)
    return tuple(line), tuple(departures)


def _departure(
    evidence: Evidence, claim: CapacityClaim, arm: str, baseline: str, line: Sequence[CurvePoint]
) -> list[MeanPoint]:
    sign = evidence.sign(claim.pair)
    steps = []
    for seed in evidence.seeds(claim.pair, arm):
        ours = evidence.curves.get((claim.pair, arm, seed))
        theirs = evidence.curves.get((claim.pair, baseline, seed))
        if ours and theirs:
            steps.append(departure(theirs, ours, claim.margin, sign))
    known = [step for step in steps if math.isfinite(step)]
    middle = median(known)
    at = next((p for p in line if middle is not None and p.step >= middle), None)
    if at is None:
        return []
    return [MeanPoint(float(at.step), arm, at.mean, min(known), max(known), len(known))]


def rate_arms(evidence: Evidence, claim: RateClaim) -> list[str]:
    """List the arms whose rates a claim compares, the baseline first."""
    baseline = evidence.baseline(claim.pair, claim.baseline)
    return list(dict.fromkeys((baseline, claim.arm, *claim.ranks)))


def rate_dots(evidence: Evidence, pair: str, arms: Sequence[str]) -> Dots:
    """Collect the validation metric by learning rate; the mean only where every seed has one."""
    found = Dots()
    for arm in arms:
        grid = grid_of(evidence.points, pair, arm)
        seeds = {seed for _, seed in grid}
        for rate in sorted({rate for rate, _ in grid}):
            known = {s: p.value for (r, s), p in grid.items() if r == rate and p.value is not None}
            dots = dots_of(rate, arm, {s: v for s, v in known.items() if grid[rate, s].is_ok})
            found += dots if len(dots.seeds) == len(seeds) else Dots((), dots.seeds)
    return found


def failed_rates(evidence: Evidence, pair: str, arms: Sequence[str]) -> list[str]:
    """Name the runs of a grid that gave no number."""
    return [
        f"{arm} at {rate:g}, seed {seed}: {point.status.value if point.status else 'not run'}"
        for arm in arms
        for (rate, seed), point in grid_of(evidence.points, pair, arm).items()
        if not point.is_ok
    ]


def optima(evidence: Evidence, pair: str, arms: Sequence[str]) -> list[Optimum]:
    """Estimate each arm's best rate; an arm with no seed inside its grid has none."""
    found = []
    for arm in arms:
        best = [optimum(losses).log10_rate for losses in losses_of(evidence, pair, arm).values()]
        estimate = mean_interval([rate for rate in best if rate is not None], evidence.confidence)
        if estimate is not None:
            ends = [None if e is None else 10**e for e in (estimate.low, estimate.high)]
            found.append(Optimum(arm, 10**estimate.mean, ends[0], ends[1], estimate.n))
    return found


def frame(values: Sequence[float], sign: float) -> tuple[float, float] | None:
    """Choose a frame in which a valley is seen although some rates are far off; None if empty."""
    turned = sorted(sign * value for value in values)
    middle = median(turned)
    if middle is None:
        return None
    best = turned[0]
    worst = min(turned[-1], best + HEADROOM * (middle - best))
    pad = 0.06 * (worst - best) or 0.01
    low, high = sorted((sign * (best - pad), sign * (worst + pad)))
    return low, high


def arms_in(evidence: Evidence, claim: BatchClaim, pair: str) -> list[str]:
    """List the arms whose gap is shown at a batch size: the raised rank may stand at the largest alone."""
    return [arm for arm in (claim.arm, claim.raised) if arm in evidence.pair(pair).arms]


def gap_dots(evidence: Evidence, claim: BatchClaim, batches: Mapping[str, Place]) -> Dots:
    """Collect how much worse LoRA is than the baseline by batch size, with 95 % intervals."""
    found = Dots()
    for pair in claim.pairs:
        baseline = evidence.baseline(pair, claim.baseline)
        for arm in arms_in(evidence, claim, pair):
            compared = compare(evidence, pair, arm, baseline)
            worse = compared.worse
            if worse is not None:
                mean = MeanPoint(batches[pair], arm, worse.mean, worse.low, worse.high, worse.n)
                seeds = (SeedPoint(batches[pair], arm, s, v) for s, v in compared.by_seed)
                found += Dots((mean,), tuple(seeds))
    return found


def ratio_dots(parts: Sequence[Part]) -> Dots:
    """Collect the ratios that decide, a place a comparison, with their 95 % intervals.

    A comparison in which a run was measured with grade D decides nothing, so it has no place.
    """
    found = Dots()
    for part in parts:
        effect = part.effect
        if part.decides and effect.value is not None and not part.is_refused:
            place = effect.name.rsplit(", ", 1)[-1].split(" over ")[0]
            mean = MeanPoint(place, LORA, effect.value, effect.low, effect.high, effect.n)
            found += Dots((mean,), tuple(SeedPoint(place, LORA, *each) for each in effect.by_seed))
    return found


def joined(each: Iterable[Dots]) -> Dots:
    """Put several beside one another."""
    found = Dots()
    for dots in each:
        found += dots
    return found
