"""Claims and grids that can't be judged are refused before anything trains, and say what would do."""

from __future__ import annotations

import pytest

from harness.catalog import MODELS
from harness.claim_checks import NATS, RATIO, REWARD, check_claims, matching_rank
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    ComputeClaim,
    LayersClaim,
    MatchClaim,
    MemoryClaim,
    RankFreeClaim,
    RateClaim,
)
from harness.errors import ConfigError
from harness.matrix import parse_matrix
from harness.settings import Lora
from harness.sizes import count_lora
from harness.spec import Arm
from tests.claim_evidence import claim, matrix_of
from tests.conftest import MATRIX

LLAMA_1B = "meta-llama/Llama-3.2-1B"
GRID = MATRIX.replace("trainer: {learning_rate: 1e-3}}", "rates: [1e-4, 1e-3]}", 1)
SELECTED = GRID.replace("seeds: [0, 1]", "seeds: [0, 1]\nselection: {seeds: [100]}").replace(
    "test_rows: 8}", "test_rows: 8, validation_rows: 4}", 1
)


def said(asked, **changes) -> list[str]:
    """What is wrong with a claim, in a matrix of these arms and pairs."""
    found = check_claims(matrix_of({"c": asked}, **changes))
    return [f"{'.'.join(at)}: {what}" for at, what in found]


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_matrix(text, "m.yaml")
    return caught.value.problems


MATCH = {"pair": "p", "arm": "r4", "margin": 0.02}
CAPACITY = {"pair": "p", "arms": ("r1", "r4", "r16"), "margin": 0.02}
BATCH = {"pairs": ("b8", "b64"), "arm": "r4", "raised": "r16", "margin": 0.02}
RATE = {"pair": "p", "arm": "r4", "ranks": ("r1", "r16")}


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (MatchClaim, {**MATCH, "pair": "pp"}, "c: no pair 'pp' (did you mean 'p'?); expected one of p"),
        (MatchClaim, {**MATCH, "arm": "r44"}, "c: pair 'p' has no arm 'r44' (did you mean 'r4'?)"),
        (MatchClaim, {**MATCH, "baseline": "ful"}, "has no arm 'ful' (did you mean 'full'?)"),
        (MatchClaim, {**MATCH, "arm": "full"}, "compares arm 'full' with itself"),
        (MatchClaim, {**MATCH, "baseline": "r4"}, "compares arm 'r4' with itself"),
        (MatchClaim, {**MATCH, "unit": REWARD}, f"c.unit: found 'reward', expected '{NATS}'"),
        (MatchClaim, {**MATCH, "measures": ("train-reward",)}, "an sft pair has no train-reward"),
        (MemoryClaim, {"unit": RATIO, "comparisons": ("p.r5",)}, "has no arm 'r5'"),
        (MemoryClaim, {"unit": RATIO, "comparisons": ("p.full",)}, "arm 'full' with itself"),
        (CapacityClaim, {**CAPACITY, "arms": ("r4", "r1")}, "c.arms: ranks [4, 1]; expected the low"),
        (CapacityClaim, {**CAPACITY, "arms": ("full", "r1")}, "c.arms: 'full' has no adapter"),
        (CapacityClaim, {**CAPACITY, "baseline": "r16"}, "compares arm 'r16' with itself"),
        (RankFreeClaim, {**CAPACITY, "arms": ("r1", "r1")}, "ranks [1, 1]; expected the lowest first"),
        (BatchClaim, {**BATCH, "pairs": ("b8", "b8")}, "c.pairs: expected pairs of one task, each once"),
        (BatchClaim, {**BATCH, "arm": "r16", "raised": "r4"}, "c.raised: ranks [16, 4]; expected"),
        (BatchClaim, {**BATCH, "baseline": "r16"}, "compares arm 'r16' with itself"),
        (BatchClaim, {**BATCH, "pairs": ("b8", "b88")}, "no pair 'b88' (did you mean 'b8'?)"),
        (RateClaim, {**RATE, "unit": RATIO, "low": 20.0}, "low 20 must be below high 20"),
        (RateClaim, {**RATE, "unit": RATIO, "arm": "full"}, "compares arm 'full' with itself"),
        (RateClaim, {**RATE, "unit": RATIO, "ranks": ("r16", "r1")}, "c.ranks: ranks [16, 1]"),
        (RateClaim, {**RATE, "unit": RATIO, "ranks": ("r1",)}, "found one arm; expected two or more"),
        (
            ComputeClaim,
            {"unit": RATIO, "models": ("meta-llama/Llama-3.2-1",), "ranks": (1,), "margin": 0.1},
            f"c.models: 'meta-llama/Llama-3.2-1' is unknown (did you mean '{LLAMA_1B}'?)",
        ),
    ],
)  # fmt: skip
def test_what_a_claim_asks_for_in_vain_is_said(model, fields, expected):
    found = said(
        claim(model, **fields),
        pairs=("p", "b8", "b64"),
        swept=("full", "r1", "r4", "r16") if model is RateClaim else (),
    )
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (MatchClaim, MATCH),
        (MemoryClaim, {"unit": RATIO, "comparisons": ("p.r4",)}),
        (CapacityClaim, CAPACITY),
        (RankFreeClaim, {**CAPACITY, "arms": ("r1", "r16")}),
        (BatchClaim, BATCH),
        (RateClaim, {**RATE, "unit": RATIO}),
        (ComputeClaim, {"unit": RATIO, "models": (LLAMA_1B,), "ranks": (1,), "margin": 0.1}),
    ],
)
def test_a_claim_that_can_be_judged_passes(model, fields):
    swept = ("full", "r1", "r4", "r16") if model is RateClaim else ()
    assert said(claim(model, **fields), pairs=("p", "b8", "b64"), swept=swept) == []


def test_an_optimum_takes_three_rates_of_the_arm_s_own():
    found = said(claim(RateClaim, RATIO, **RATE), swept=("full", "r1"))
    assert [line for line in found if "takes three" in line] == [
        "claims.c: arm 'r4' has 0 rates; an optimum takes three or more",
        "claims.c: arm 'r16' has 0 rates; an optimum takes three or more",
    ]


def test_a_trend_over_ranks_takes_validation_rows():
    toy = matrix_of({"c": claim(CapacityClaim, **CAPACITY)})
    pair = toy.pairs["p"]
    bare = pair.model_copy(
        update={"dataset": pair.dataset.model_copy(update={"validation_rows": 0})}
    )
    ((_, what),) = check_claims(toy.model_copy(update={"pairs": {"p": bare}}))
    assert "no dataset.validation_rows to draw curves on" in what


def layers(attention: tuple[int, str], mlp: tuple[int, str], every: tuple[int, str]) -> list[str]:
    """What is said of a claim on these ranks and layers of Llama 1B."""
    names = ("attention", "mlp", "every")
    asked = claim(LayersClaim, pair="p", margin=0.02, **{name: name for name in names})
    toy = matrix_of({"c": asked})
    arms = {
        name: Arm(method="lora", lora=Lora(r=rank, target_modules=layer))
        for name, (rank, layer) in zip(names, (attention, mlp, every), strict=True)
    }
    pair = toy.pairs["p"]
    model = pair.model.model_copy(update={"source": LLAMA_1B})
    pair = pair.model_copy(update={"model": model, "arms": {**pair.arms, **arms}})
    return [what for _, what in check_claims(toy.model_copy(update={"pairs": {"p": pair}}))]


def test_layers_are_compared_at_the_same_number_of_parameters():
    """Per rank, Llama 1B has 212,992 parameters on attention, 491,520 on the MLP, 704,512 on both."""
    assert layers((256, "attention"), (111, "mlp"), (77, "all-linear")) == []
    (found,) = layers((256, "attention"), (128, "mlp"), (77, "all-linear"))
    assert found == (
        "mlp adds 62,914,560 parameters, attention 54,525,952; expected the same within 2%: rank 111 "
        "comes closest"
    )
    assert matching_rank(MODELS[LLAMA_1B], "mlp", 256 * 212_992) == 111


def test_the_rank_that_is_suggested_is_taken():
    facts = MODELS[LLAMA_1B]
    for rank in (32, 64, 256):
        wanted = count_lora(facts, rank, "attention")
        ranks = [matching_rank(facts, words, wanted) for words in ("mlp", "all-linear")]
        found = layers((rank, "attention"), (ranks[0], "mlp"), (ranks[1], "all-linear"))
        assert found == [] or rank < 64  # whole ranks are too coarse for 2 % at a low one


def test_arms_named_for_layers_that_they_do_not_adapt_are_refused():
    found = layers((111, "mlp"), (111, "mlp"), (77, "all-linear"))
    assert found == ["attention adapts mlp, expected attention"]


def test_a_grid_needs_seeds_and_rows_to_choose_on_and_a_declared_rate():
    found = problems_of(GRID)
    assert found == (
        "m.yaml:20: pairs.sft-micro.arms.lora.rates: a grid needs `selection: {seeds: [...]}` in the "
        "matrix",
        "m.yaml:20: pairs.sft-micro.arms.lora.rates: a grid needs dataset.validation_rows to choose on",
    )
    undeclared = SELECTED.replace(
        "    margin: 0.02", "    declared_differences: [lr_scheduler_type]\n    margin: 0.02"
    ).replace("trainer: {learning_rate: 1e-4}}", "rates: [1e-5, 1e-4]}", 1)
    assert "lacks learning_rate, which full, lora choose from a grid" in problems_of(undeclared)[0]
    assert parse_matrix(SELECTED, "m").pairs["sft-micro"].arms["lora"].rates == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[1e-4, 1e-3]", "[1e-3, 1e-4]", "expected two or more, lowest first, each once"),
        ("[1e-4, 1e-3]", "[1e-3]", "expected two or more, lowest first"),
        ("[1e-4, 1e-3]", "[1e-3, 1e-3]", "expected two or more, lowest first, each once"),
        ("[1e-4, 1e-3]", "[1.001e-3, 1.002e-3]", "rates that differ in their first three digits"),
        ("[1e-4, 1e-3]", "[0, 1e-3]", "rates.0: found 0, expected greater than or equal to"),
        ("[1e-4, 1e-3]", "[1e-3, 1]", "rates.1: found 1, expected less than 1"),
        ("[1e-4, 1e-3]", "[1e-3, fast]", "rates.1: found 'fast'"),
        ("[1e-4, 1e-3]}", "[1e-4, 1e-3], rate_of: full}", "gives rates and rate_of; keep one"),
        (
            "[1e-4, 1e-3]}",
            "[1e-4, 1e-3], trainer: {learning_rate: 1e-3}}",
            "gives rates and trainer.learning_rate; keep one",
        ),
        ("rates: [1e-4, 1e-3]", "rate_of: ful", "expected an arm with rates: (none here)"),
        ("rates: [1e-4, 1e-3]", "rate_of: lora", "found 'lora', expected an arm with rates"),
        ("[100]", "[1]", "seeds [1] are selection seeds too"),
        ("[100]", "[]", "selection.seeds: expected at least 1 item"),
        ("[100]", "[4294967296]", "selection.seeds.0: found 4294967296, expected less than"),
        ("rates: [1e-4", "seed_offset: 1, rates: [1e-4", "it trains on [1], seeds of other runs"),
        ("rates: [1e-4", "seed_offset: 100, rates: [1e-4", "it trains on [100], seeds of other runs"),
        ("rates: [1e-4", "seed_offset: 4294967295, rates: [1e-4", "seeds to stay below 2^32"),
        ("rates: [1e-4", "seed_offset: -1, rates: [1e-4", "seed_offset: found -1, expected greater"),
    ],
)  # fmt: skip
def test_a_grid_that_can_not_be_chosen_from_is_said(old, new, expected):
    found = problems_of(SELECTED.replace(old, new, 1))
    assert any(expected in line for line in found), found


def test_a_rate_of_another_arm_gets_a_suggestion():
    text = SELECTED.replace(
        "trainer: {learning_rate: 1e-4}}", "rate_of: loar}", 1
    )  # the baseline takes LoRA's
    assert (
        "found 'loar' (did you mean 'lora'?), expected an arm with rates: lora"
        in (problems_of(text)[0])
    )
