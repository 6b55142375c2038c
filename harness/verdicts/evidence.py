"""What verdicts are read from, and the comparison that most rules are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.claim_checks import UNITS
from harness.claim_spec import Measure
from harness.claims import UNDECLARED, cell_losses
from harness.compute import ComputeRatio
from harness.equivalence import p_above, p_below, p_within
from harness.multiplicity import plan_looks
from harness.power import ALPHA, seeds_needed
from harness.rule import Cells, Side, Word, decide, gather
from harness.selection import GridPoint, rate_key
from harness.spec import Matrix, Pair
from harness.stats import CONFIDENCE, Estimate, paired_difference
from harness.verdicts.model import Effect, Part

Curve = Sequence[tuple[int, float]]  # (step, held-out metric of the validation rows), ascending


@dataclass(frozen=True)
class Evidence:
    """A study as the rules see it."""

    matrix: Matrix
    cells: Cells  # (pair, arm, seed) → status and summary of every planned run that is judged
    points: Sequence[GridPoint] = ()  # what the rates of the grids came to
    curves: Mapping[tuple[str, str, int], Curve] = field(default_factory=dict)
    waiting: Mapping[tuple[str, str], str] = field(
        default_factory=dict
    )  # arms without a rate, and why
    edges: Mapping[tuple[str, str], str] = field(
        default_factory=dict
    )  # arms at an end of their grid
    flops: Sequence[ComputeRatio] = ()
    undeclared_pairs: frozenset[str] = frozenset()
    looks: tuple[
        int, ...
    ] = ()  # numbers of seeds after which claims may be decided; they share the error

    @property
    def confidence(self) -> float:
        """Of a two-sided interval: higher where a study is looked at repeatedly."""
        return plan_looks(self.looks, ALPHA)[0].confidence if self.looks else CONFIDENCE

    @property
    def alpha(self) -> float:
        """The one-sided error of a part."""
        return plan_looks(self.looks, ALPHA)[0].alpha if self.looks else ALPHA

    def pair(self, name: str) -> Pair:
        """Return a pair of the matrix."""
        return self.matrix.pairs[name]

    def baseline(self, pair: str, given: str | None) -> str:
        """Return the arm that others are compared with."""
        return given or self.matrix.pairs[pair].baseline

    def seeds(self, pair: str, *arms: str) -> list[int]:
        """List the seeds that are planned for these arms."""
        return sorted({s for p, a, s in self.cells if p == pair and a in arms})

    def side(self, pair: str, arm: str, seeds: Sequence[int]) -> Side:
        """Collect an arm's runs."""
        return gather(self.cells, pair, arm, seeds)

    def values(self, pair: str, side: Side, measure: Measure = "held-out") -> dict[int, float]:
        """Return an arm's metric by seed, turned so that less is better."""
        sign = self.sign(pair)
        if measure == "held-out":
            return {seed: sign * v for seed, v in side.finals(list(side.runs)).items()}
        found = {seed: run.train_reward_last for seed, run in side.runs.items() if run is not None}
        return {seed: sign * v for seed, v in found.items() if v is not None}

    def sign(self, pair: str) -> float:
        """A higher NLL is worse, a higher reward is better."""
        return 1.0 if self.pair(pair).task == "sft" else -1.0

    def unit(self, pair: str) -> str:
        """The unit of a pair's metric."""
        return UNITS["nll" if self.pair(pair).task == "sft" else "reward"]


@dataclass(frozen=True)
class Comparison:
    """Two arms of a pair, seed by seed: positive where the first is worse."""

    pair: str
    arm: Side
    baseline: Side
    ours: Mapping[int, float]
    theirs: Mapping[int, float]
    worse: Estimate | None
    gain: float | None  # of the arm that improved less on the untrained model
    baseline_gain: float | None
    unmeasured: tuple[str, ...] = ()  # cells that ended ok and yet lack the figure that is compared

    @property
    def by_seed(self) -> tuple[tuple[int, float], ...]:
        """Each seed's own difference."""
        shared = sorted(self.ours.keys() & self.theirs.keys())
        return tuple((seed, self.ours[seed] - self.theirs[seed]) for seed in shared)

    @property
    def seeds(self) -> int:
        """In how many seeds there is something to judge by: both results, or those of one arm alone.

        The latter where the other can't be trained at all.
        """
        return self.worse.n if self.worse else max(self.arm.finished, self.baseline.finished)

    @property
    def lost(self) -> tuple[str, ...]:
        """Cells without a result, and why."""
        known = (*cell_losses(self.pair, self.arm), *cell_losses(self.pair, self.baseline))
        return (*known, *self.unmeasured)


def compare(
    evidence: Evidence, pair: str, arm: str, baseline: str, measure: Measure = "held-out"
) -> Comparison:
    """Compare two arms of a pair over the seeds that both finished."""
    seeds = evidence.seeds(pair, arm, baseline)
    ours, theirs = (evidence.side(pair, each, seeds) for each in (arm, baseline))
    a, b = (evidence.values(pair, side, measure) for side in (ours, theirs))
    worse = paired_difference(a, b, evidence.confidence)
    gains = [_gain(evidence, pair, side) for side in (ours, theirs)]
    known = [gain for gain in gains if gain is not None]
    gain = min(known) if len(known) == len(gains) else None
    unmeasured = tuple(
        f"{pair}.{side.name}.s{seed}: no {measure}"
        for side, values in ((ours, a), (theirs, b))
        for seed in side.runs
        if seed not in side.lost and seed not in values
    )
    return Comparison(pair, ours, theirs, a, b, worse, gain, gains[1], unmeasured)


def effect_of(
    name: str,
    unit: str,
    estimate: Estimate | None,
    by_seed: tuple[tuple[int, float], ...] = (),
    *,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Effect:
    """Write an estimate down with what the claim allows."""
    return Effect(
        name=name,
        unit=unit,
        value=estimate.mean if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        n=estimate.n if estimate else 0,
        floor=floor,
        ceiling=ceiling,
        by_seed=by_seed,
    )


def match_part(
    evidence: Evidence,
    pair: str,
    arm: str,
    baseline: str,
    margin: float,
    *,
    measure: Measure = "held-out",
    gain_margins: float = 1.0,
    minimum_seeds: int = 3,
    name: str | None = None,
) -> Part:
    """Test whether an arm is not worse than another by a margin."""
    found = compare(evidence, pair, arm, baseline, measure)
    word, reason = undecided(evidence, pair, (arm, baseline)) or decide(
        found.worse, margin, found.baseline_gain, found.arm, found.baseline
    )
    if word == "supported" and not has_learned(found, gain_margins * margin):
        word, reason = (
            "inconclusive",
            (
                f"Not both arms beat the untrained model by {gain_margins:g} margins, so there was "
                "little to match in."
            ),
        )
    if word in ("supported", "refuted") and found.unmeasured:
        word, reason = "inconclusive", f"Without a result: {'; '.join(found.unmeasured)}."
    word, reason = enough_seeds(word, reason, found.seeds, minimum_seeds)
    p_supported, p_refuted = p_below(found.worse, margin), p_above(found.worse, margin)
    if word in ("supported", "refuted") and found.worse and p_refuted is None:
        word, reason = "inconclusive", "No spread between seeds: the runs may be copies."
    if word == "refuted" and found.worse is None:  # it can't be trained: nothing is estimated
        p_refuted = 0.0
    beyond = [seed for seed, value in found.by_seed if value >= margin]
    within = [seed for seed, value in found.by_seed if value < margin]
    return Part(
        effect=effect_of(
            name or difference_name(evidence, pair, arm, baseline, measure),
            evidence.unit(pair),
            found.worse,
            found.by_seed,
            ceiling=margin,
        ),
        word=word,
        reason=reason,
        p_supported=p_supported if not found.lost else None,
        p_refuted=p_refuted,
        p_equal=p_within(found.worse, -margin, margin) if not found.lost else None,
        seeds_needed=needed(evidence, found.worse, margin) if word == "inconclusive" else None,
        against=seeds_against(word, beyond, within, "worse by the margin", "within the margin"),
    )


def difference_name(
    evidence: Evidence, pair: str, arm: str, baseline: str, measure: Measure = "held-out"
) -> str:
    """Name a difference that is positive where the arm is worse."""
    first, second = (arm, baseline) if evidence.sign(pair) > 0 else (baseline, arm)
    return f"{what_is(evidence, pair, measure)}, {first} minus {second}"


def has_learned(found: Comparison, least: float) -> bool:
    """Whether both arms improved on the untrained model by so much."""
    return found.gain is not None and found.gain >= least


def what_is(evidence: Evidence, pair: str, measure: Measure = "held-out") -> str:
    """Name a pair's metric."""
    if measure == "train-reward":
        return "train reward over the last fifth of the steps"
    return "held-out NLL" if evidence.pair(pair).task == "sft" else "held-out reward"


def needed(evidence: Evidence, worse: Estimate | None, margin: float) -> int | None:
    """Say how many seeds would show a match, if there is one; None if that can't be said."""
    if worse is None or not worse.sd or worse.n < 2:
        return None
    return seeds_needed(margin, worse.sd, alpha=evidence.alpha)


def enough_seeds(word: Word, reason: str, seeds: int, minimum: int) -> tuple[Word, str]:
    """Withhold a word that rests on fewer seeds than the claim asks for."""
    if word in ("supported", "refuted") and seeds < minimum:
        return "inconclusive", f"{seeds} seeds; the claim asks for {minimum}. They say: {reason}"
    return word, reason


def seeds_against(
    word: Word,
    beyond: Sequence[int],
    within: Sequence[int],
    beyond_text: str,
    within_text: str,
) -> tuple[str, ...]:
    """Name the seeds that point the other way than the word."""
    other: dict[str, tuple[Sequence[int], str]] = {
        "supported": (beyond, beyond_text),
        "refuted": (within, within_text),
    }
    seeds, what = other.get(word, ((), ""))
    if not seeds:
        return ()
    listed = ", ".join(map(str, seeds))
    return (f"{'Seed' if len(seeds) == 1 else 'Seeds'} {listed} alone: {what}.",)


def undecided(evidence: Evidence, pair: str, arms: Sequence[str]) -> tuple[Word, str] | None:
    """Say why arms can't be compared, whatever was measured."""
    for arm in arms:
        key = rate_key(evidence.matrix, pair, arm)
        if key in evidence.waiting:
            return "not tested", f"{arm}: {evidence.waiting[key]}."
        if not evidence.seeds(pair, arm):
            return "not tested", f"No run of {pair}.{arm} is planned."
    return UNDECLARED if pair in evidence.undeclared_pairs else None


def _gain(evidence: Evidence, pair: str, side: Side) -> float | None:
    """Return how much an arm improved on the untrained model, mean over its seeds."""
    sign = evidence.sign(pair)
    gains = [
        sign * (run.base_value - run.final_value)
        for run in side.runs.values()
        if run is not None and run.base_value is not None and run.final_value is not None
    ]
    return sum(gains) / len(gains) if gains else None
