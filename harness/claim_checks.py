"""Whether a matrix's claims and grids can be judged: names that exist, arms that are comparable.

Works on the parsed matrix. What this leaves out: shapes and types (`claim_spec`), and the rest of a
matrix (`matrix_checks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.catalog import MODELS, ModelFacts
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    Claim,
    ComputeClaim,
    LayersClaim,
    MatchClaim,
    MemoryClaim,
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
MOST_SEED = 2**32 - 1  # what numpy takes
# What the arms of a claim on layers adapt; a list of layer names is taken as it is.
LAYERS = {
    "attention": ("attention",),
    "mlp": ("mlp",),
    "every": ("all-linear", "all-linear+lm_head"),
}
MATCHED_WITHIN = 0.02  # of the first arm's parameters


Path = tuple[str, ...]
Problem = tuple[Path, str]  # where in the matrix, and what


def check_claims(matrix: Matrix) -> list[Problem]:
    """List what grids and claims ask for that can't be, one sentence each."""
    problems = list(_check_offsets(matrix))
    for name, pair in matrix.pairs.items():
        problems += _check_rates(matrix, pair, ("pairs", name))
    for name, claim in matrix.claims.items():
        at = ("claims", name)
        unknown = list(_check_names(matrix, claim, at))
        problems += unknown
        if not unknown:
            problems += _check_unit(matrix, claim, at)
            problems += _check_rule(matrix, claim, at)
    return problems


def shared_seeds(matrix: Matrix, seeds: Sequence[int]) -> Iterator[Problem]:
    """Say which arm trains with a seed that another run has too, were these the seeds of the matrix."""
    chosen_on = matrix.selection.seeds if matrix.selection else ()
    for name, pair in matrix.pairs.items():
        for arm, each in pair.arms.items():
            moved = {seed + each.seed_offset for seed in seeds}
            taken = sorted(moved & {*seeds, *chosen_on})
            if each.seed_offset and taken:
                yield (
                    ("pairs", name, "arms", arm, "seed_offset"),
                    f"found {each.seed_offset}, with which it trains on {taken}, seeds of other runs; "
                    "expected an offset that leads past all of them",
                )


def _check_offsets(matrix: Matrix) -> Iterator[Problem]:
    yield from shared_seeds(matrix, matrix.seeds)
    for name, pair in matrix.pairs.items():
        for arm, each in pair.arms.items():
            if max(matrix.seeds) + each.seed_offset > MOST_SEED:
                yield (
                    ("pairs", name, "arms", arm, "seed_offset"),
                    f"found {each.seed_offset}; expected seeds to stay below 2^32 with it",
                )


def matching_rank(facts: ModelFacts, target_modules: str | tuple[str, ...], parameters: int) -> int:
    """Return the rank at which an adapter comes closest to a number of parameters."""
    return max(1, round(parameters / count_lora(facts, 1, target_modules)))


def facts_of(source: str) -> ModelFacts | None:
    """Return a model's shape if it is catalogued or ships with the harness."""
    kind, _, name = source.partition(":")
    return embedded_facts(name) if kind == "embedded" else MODELS.get(source)


def _check_rates(matrix: Matrix, pair: Pair, at: Path) -> Iterator[Problem]:
    known = [name for name, arm in pair.arms.items() if arm.rates]
    if known and "learning_rate" not in pair.declared_differences:
        yield (
            (*at, "declared_differences"),
            f"lacks learning_rate, which {', '.join(known)} choose from a grid; add it",
        )
    for name in known:
        place = (*at, "arms", name, "rates")
        if matrix.selection is None:
            yield place, "a grid needs `selection: {seeds: [...]}` in the matrix"
        if not pair.dataset.validation_rows:
            yield place, "a grid needs dataset.validation_rows to choose on"
    for name, arm in pair.arms.items():
        if arm.rate_of is not None and arm.rate_of not in known:
            yield (
                (*at, "arms", name, "rate_of"),
                f"found {arm.rate_of!r}{did_you_mean(arm.rate_of, known)}, expected an arm with rates: "
                f"{', '.join(known) or '(none here)'}",
            )


def _check_names(matrix: Matrix, claim: Claim, at: Path) -> Iterator[Problem]:
    for pair_name, arm in dict.fromkeys(arms_of_claim(claim)):
        pair = matrix.pairs.get(pair_name)
        if pair is None:
            hint = did_you_mean(pair_name, matrix.pairs)
            yield at, f"no pair {pair_name!r}{hint}; expected one of {', '.join(matrix.pairs)}"
        elif arm is not None and arm not in pair.arms:
            hint = did_you_mean(arm, pair.arms)
            known = ", ".join(pair.arms)
            yield at, f"pair {pair_name!r} has no arm {arm!r}{hint}; expected one of {known}"
    if isinstance(claim, ComputeClaim):
        for model in claim.models:
            if model not in MODELS:
                hint = did_you_mean(model, MODELS)
                known = ", ".join(MODELS)
                yield (*at, "models"), f"{model!r} is unknown{hint}; expected {known}"


def _check_unit(matrix: Matrix, claim: Claim, at: Path) -> Iterator[Problem]:
    expected = unit_of(matrix, claim)
    if claim.unit != expected:
        yield (*at, "unit"), f"found {claim.unit!r}, expected {expected!r}: the margin's own"


def unit_of(matrix: Matrix, claim: Claim) -> str:
    """Return the unit that a claim's margin is in."""
    if isinstance(claim, BatchClaim):
        task = matrix.pairs[claim.pairs[0]].task
    elif isinstance(claim, MatchClaim | LayersClaim | CapacityClaim | RankFreeClaim):
        task = matrix.pairs[claim.pair].task
    else:
        return RATIO
    return NATS if task == "sft" else REWARD


def _check_rule(matrix: Matrix, claim: Claim, at: Path) -> Iterator[Problem]:
    """Check what one rule asks of its arms."""
    if isinstance(claim, RateClaim):
        yield from _check_optima(matrix.pairs[claim.pair], claim, at)
    if isinstance(claim, CapacityClaim | RankFreeClaim):
        yield from _check_order(matrix.pairs[claim.pair], claim.arms, (*at, "arms"))
    if isinstance(claim, CapacityClaim):
        pair = matrix.pairs[claim.pair]
        yield from _check_apart(pair, claim.arms, claim.baseline, at)
        if len(claim.arms) > 2 and not pair.dataset.validation_rows:
            yield (
                at,
                f"pair {claim.pair!r} has no dataset.validation_rows to draw curves on; add them",
            )
    if isinstance(claim, LayersClaim):
        yield from _check_matched(matrix.pairs[claim.pair], claim, at)
    if isinstance(claim, BatchClaim):
        yield from _check_batches(matrix, claim, at)
    if isinstance(claim, MemoryClaim):
        for each in claim.comparisons:
            name, arm = each.split(".", 1)
            yield from _check_apart(matrix.pairs[name], (arm,), None, at)
    if isinstance(claim, MatchClaim):
        pair = matrix.pairs[claim.pair]
        if pair.task == "sft" and "train-reward" in claim.measures:
            yield (*at, "measures"), "an sft pair has no train-reward; remove it"
        yield from _check_apart(pair, (claim.arm,), claim.baseline, at)


def _check_apart(
    pair: Pair, arms: Sequence[str], baseline: str | None, at: Path
) -> Iterator[Problem]:
    """An arm's difference to itself is nothing in every seed, whatever the claim."""
    other = baseline or pair.baseline
    if other in arms:
        yield at, f"compares arm {other!r} with itself; expected two arms"


def _check_optima(pair: Pair, claim: RateClaim, at: Path) -> Iterator[Problem]:
    if claim.low >= claim.high:
        yield at, f"low {claim.low:g} must be below high {claim.high:g}"
    yield from _check_apart(pair, (claim.arm,), claim.baseline, at)
    if claim.ranks:
        yield from _check_order(pair, claim.ranks, (*at, "ranks"))
    if len(claim.ranks) == 1:
        yield (*at, "ranks"), "found one arm; expected two or more to compare, or none"
    for name in dict.fromkeys((claim.arm, *claim.ranks, claim.baseline or pair.baseline)):
        found = len(pair.arms[name].rates)
        if found < 3:
            yield at, f"arm {name!r} has {found} rates; an optimum takes three or more"


def _check_batches(matrix: Matrix, claim: BatchClaim, at: Path) -> Iterator[Problem]:
    tasks = {matrix.pairs[name].task for name in claim.pairs}
    if len(tasks) > 1 or len(set(claim.pairs)) < len(claim.pairs):
        yield (*at, "pairs"), "expected pairs of one task, each once"
    largest = matrix.pairs[claim.pairs[-1]]
    yield from _check_order(largest, (claim.arm, claim.raised), (*at, "raised"))
    yield from _check_apart(largest, (claim.raised,), claim.baseline, (*at, "baseline"))
    for name in claim.pairs:
        yield from _check_apart(matrix.pairs[name], (claim.arm,), claim.baseline, (*at, "baseline"))


def _check_order(pair: Pair, arms: Sequence[str], at: Path) -> Iterator[Problem]:
    ranks = [_rank(pair.arms[name]) for name in arms]
    if None in ranks:
        yield at, f"{arms[ranks.index(None)]!r} has no adapter; expected LoRA arms"
        return
    known = [rank for rank in ranks if rank is not None]
    if known != sorted(set(known)):
        yield at, f"ranks {known}; expected the lowest first, each once"


def _rank(arm: Arm) -> int | None:
    return arm.lora.r if arm.lora else None


def _check_matched(pair: Pair, claim: LayersClaim, at: Path) -> Iterator[Problem]:
    """Arms on different layers are compared at the same number of parameters, or more would win."""
    for field, words in LAYERS.items():
        lora = pair.arms[getattr(claim, field)].lora
        if lora and isinstance(lora.target_modules, str) and lora.target_modules not in words:
            yield (
                (*at, field),
                f"{getattr(claim, field)} adapts {lora.target_modules}, expected {' or '.join(words)}",
            )
    facts = facts_of(pair.model.source)
    adapters = {name: pair.arms[name].lora for name in (claim.attention, claim.mlp, claim.every)}
    missing = [name for name, lora in adapters.items() if lora is None]
    if missing:
        yield at, f"{', '.join(missing)} has no adapter; expected LoRA arms"
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
                at,
                f"{name} adds {count:,} parameters, {claim.attention} {wanted:,}; expected the same "
                f"within {MATCHED_WITHIN:.0%}: rank {rank} comes closest",
            )
