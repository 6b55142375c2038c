"""Whether a matrix's claims and grids can be judged: names that exist, arms that are comparable.

Works on the parsed matrix. What this leaves out: shapes and types (`claim_spec`), and the rest of a
matrix (`matrix_checks`).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.catalog import MODELS, ModelFacts
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    Claim,
    ComputeClaim,
    LayersClaim,
    MatchClaim,
    RankFreeClaim,
    RateClaim,
    arms_of_claim,
)
from harness.errors import ConfigError, did_you_mean
from harness.sizes import count_lora, embedded_facts
from harness.spec import Arm, Matrix, Pair

NATS, REWARD = "nats per completion token", "reward"
UNITS: dict[str, str] = {"nll": NATS, "reward": REWARD}
RATIO = "ratio"
MATCHED_WITHIN = 0.02  # of the first arm's parameters


def check_claims(matrix: Matrix, where: str) -> list[str]:
    """List what grids and claims ask for that can't be, one sentence each."""
    problems = [
        problem
        for name, pair in matrix.pairs.items()
        for problem in _check_rates(matrix, pair, f"{where}: pairs.{name}.arms")
    ]
    for name, claim in matrix.claims.items():
        at = f"{where}: claims.{name}"
        unknown = list(_check_names(matrix, claim, at))
        problems += unknown
        if not unknown:
            problems += _check_unit(matrix, claim, at)
            problems += _check_rule(matrix, claim, at)
    return problems


def matching_rank(facts: ModelFacts, target_modules: str | tuple[str, ...], parameters: int) -> int:
    """Return the rank at which an adapter comes closest to a number of parameters."""
    return max(1, round(parameters / count_lora(facts, 1, target_modules)))


def facts_of(source: str) -> ModelFacts | None:
    """Return a model's shape if it is catalogued or ships with the harness."""
    kind, _, name = source.partition(":")
    return embedded_facts(name) if kind == "embedded" else MODELS.get(source)


def _check_rates(matrix: Matrix, pair: Pair, at: str) -> Iterator[str]:
    for name, arm in pair.arms.items():
        if arm.rates and matrix.selection is None:
            yield f"{at}.{name}.rates: a grid needs `selection: {{seeds: [...]}}` in the matrix"
        if arm.rates and not pair.dataset.validation_rows:
            yield f"{at}.{name}.rates: a grid needs dataset.validation_rows to choose on"
        if arm.rate_of is not None and not _has_rates(pair, arm.rate_of):
            known = [other for other in pair.arms if pair.arms[other].rates]
            yield (
                f"{at}.{name}.rate_of: found {arm.rate_of!r}{did_you_mean(arm.rate_of, known)}, "
                f"expected an arm with rates: {', '.join(known) or '(none here)'}"
            )


def _has_rates(pair: Pair, arm: str) -> bool:
    return arm in pair.arms and bool(pair.arms[arm].rates)


def _check_names(matrix: Matrix, claim: Claim, at: str) -> Iterator[str]:
    for pair_name, arm in dict.fromkeys(arms_of_claim(claim)):
        pair = matrix.pairs.get(pair_name)
        if pair is None:
            hint = did_you_mean(pair_name, matrix.pairs)
            yield f"{at}: no pair {pair_name!r}{hint}; expected one of {', '.join(matrix.pairs)}"
        elif arm is not None and arm not in pair.arms:
            hint = did_you_mean(arm, pair.arms)
            yield (
                f"{at}: pair {pair_name!r} has no arm {arm!r}{hint}; expected one of "
                + ", ".join(pair.arms)
            )
    if isinstance(claim, ComputeClaim):
        for model in claim.models:
            if model not in MODELS:
                hint = did_you_mean(model, MODELS)
                yield f"{at}.models: {model!r} is unknown{hint}; expected {', '.join(MODELS)}"


def _check_unit(matrix: Matrix, claim: Claim, at: str) -> Iterator[str]:
    expected = unit_of(matrix, claim)
    if claim.unit != expected:
        yield f"{at}.unit: found {claim.unit!r}, expected {expected!r}: the margin's own"


def unit_of(matrix: Matrix, claim: Claim) -> str:
    """Return the unit that a claim's margin is in."""
    if isinstance(claim, BatchClaim):
        task = matrix.pairs[claim.pairs[0]].task
    elif isinstance(claim, MatchClaim | LayersClaim | CapacityClaim | RankFreeClaim):
        task = matrix.pairs[claim.pair].task
    else:
        return RATIO
    return NATS if task == "sft" else REWARD


def _check_rule(matrix: Matrix, claim: Claim, at: str) -> Iterator[str]:
    """Check what one rule asks of its arms."""
    if isinstance(claim, RateClaim):
        if claim.low >= claim.high:
            yield f"{at}: low {claim.low:g} must be below high {claim.high:g}"
        pair = matrix.pairs[claim.pair]
        for name in (claim.arm, *claim.ranks, claim.baseline or pair.baseline):
            if len(pair.arms[name].rates) < 3:
                yield (
                    f"{at}: arm {name!r} has {len(pair.arms[name].rates)} rates; an optimum takes three "
                    "or more"
                )
    if isinstance(claim, CapacityClaim | RankFreeClaim):
        yield from _check_order(matrix.pairs[claim.pair], claim.arms, at)
    if isinstance(claim, LayersClaim):
        yield from _check_matched(matrix.pairs[claim.pair], claim, at)
    if isinstance(claim, MatchClaim):
        pair = matrix.pairs[claim.pair]
        if pair.task == "sft" and "train-reward" in claim.measures:
            yield f"{at}.measures: an sft pair has no train-reward; remove it"
        if claim.arm == (claim.baseline or pair.baseline):
            yield f"{at}: compares arm {claim.arm!r} with itself; expected two arms"


def _check_order(pair: Pair, arms: tuple[str, ...], at: str) -> Iterator[str]:
    ranks = [_rank(pair.arms[name]) for name in arms]
    if None in ranks:
        yield f"{at}.arms: {arms[ranks.index(None)]!r} has no adapter; expected LoRA arms"
        return
    known = [rank for rank in ranks if rank is not None]
    if known != sorted(set(known)):
        yield f"{at}.arms: ranks {known}; expected the lowest first, each once"


def _rank(arm: Arm) -> int | None:
    return arm.lora.r if arm.lora else None


def _check_matched(pair: Pair, claim: LayersClaim, at: str) -> Iterator[str]:
    """Arms on different layers are compared at the same number of parameters, or more would win."""
    facts = facts_of(pair.model.source)
    adapters = {name: pair.arms[name].lora for name in (claim.attention, claim.mlp, claim.every)}
    missing = [name for name, lora in adapters.items() if lora is None]
    if missing:
        yield f"{at}: {', '.join(missing)} has no adapter; expected LoRA arms"
    if facts is None or missing:
        return
    counts = {}
    for name, lora in adapters.items():
        if lora is not None:
            try:
                counts[name] = count_lora(facts, lora.r, lora.target_modules)
            except ConfigError:
                return  # said already, by the arm
    wanted = counts[claim.attention]
    for name, count in counts.items():
        lora = adapters[name]
        if lora is not None and abs(count - wanted) > MATCHED_WITHIN * wanted:
            rank = matching_rank(facts, lora.target_modules, wanted)
            yield (
                f"{at}: {name} adds {count:,} parameters, {claim.attention} {wanted:,}; expected the same "
                f"within {MATCHED_WITHIN:.0%}: rank {rank} comes closest"
            )
