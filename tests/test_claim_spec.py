"""Claims as data: what decides a verdict, and what YAML may say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.claim_checks import NATS, RATIO
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    ComputeClaim,
    LayersClaim,
    MatchClaim,
    MemoryClaim,
    RankFreeClaim,
    RateClaim,
    arms_of_claim,
)
from harness.errors import ConfigError
from harness.matrix import margins_hash, matrix_hash, parse_matrix
from tests.claim_evidence import claim
from tests.conftest import MATRIX

CLAIM = """\
claims:
  good:
    rule: match
    sentence: LoRA matches.
    estimand: held-out NLL
    unit: nats per completion token
    margin: 0.02
    margin_reason: a test
    speaks_for: a toy
    pair: sft-micro
    arm: lora
"""
RULES = "match, memory, compute, layers, capacity, rate-ratio, batch, rank-free"


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_matrix(MATRIX + text, "m.yaml")
    return caught.value.problems


def parsed(old: str = "", new: str = ""):
    return parse_matrix(MATRIX + CLAIM.replace(old, new) if old else MATRIX + CLAIM, "m.yaml")


def test_a_claim_is_read_and_its_defaults_stand_in_it():
    found = parsed().claims["good"]
    assert isinstance(found, MatchClaim)
    assert (found.role, found.minimum_seeds, found.gain_margins) == ("claim", 3, 1.0)
    assert found.measures == ("held-out",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    rule: match\n", "", f"m.yaml:32: claims.good: has no `rule`; expected one of {RULES}"),
        (
            "rule: match",
            "rule: mach",
            "m.yaml:33: claims.good.rule: found 'mach' (did you mean 'match'?), expected one of "
            + RULES,
        ),
        ("rule: match", "rule: null", "m.yaml:33: claims.good.rule: found 'None', expected one of"),
        ("rule: match", "rule: [1]", "m.yaml:33: claims.good.rule: found '[1]', expected one of"),
        ("margin: 0.02", "margin: -1", "m.yaml:37: claims.good.margin: found -1, expected greater"),
        ("margin: 0.02", "margin: .nan", "m.yaml:37: claims.good.margin: found nan, expected a fin"),
        ("margin: 0.02", "margin: big", "m.yaml:37: claims.good.margin: found 'big', expected a"),
        (
            "arm: lora",
            "arm: lora\n    role: control",
            "m.yaml:42: claims.good.role: found 'control', expected 'claim', 'positive-control' or",
        ),
        (
            "arm: lora",
            "arm: lora\n    measures: []",
            "m.yaml:42: claims.good.measures: expected at least 1 item",
        ),
        (
            "arm: lora",
            "arm: lora\n    measures: [held-ot]",
            "m.yaml:42: claims.good.measures.0: found 'held-ot', expected 'held-out' or",
        ),
    ],
)  # fmt: skip
def test_a_malformed_claim_is_one_sentence_with_its_line(old, new, expected):
    (found,) = problems_of(CLAIM.replace(old, new))
    assert found.startswith(expected)


def test_a_misspelt_key_gets_a_suggestion_among_those_of_its_rule():
    missing, unknown = problems_of(CLAIM.replace("margin: 0.02", "margn: 0.02"))
    assert missing == "m.yaml:32: claims.good.margin: is missing; add it"
    assert unknown == (
        "m.yaml:37: claims.good.margn: is no key of a matrix (did you mean 'margin'?)"
    )
    # A claim that is called like a rule is found all the same.
    named = problems_of(CLAIM.replace("  good:", "  match:").replace("margin: 0.02", "margn: 0.02"))
    assert named[1].startswith("m.yaml:37: claims.match.margn: is no key")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("claims: []\n", "m.yaml:31: claims: expected an object"),
        ("claims: null\n", "m.yaml:31: claims: found None"),
        ("claims: {a: null}\n", "m.yaml:31: claims.a: found None"),
        ("claims: {a: []}\n", "m.yaml:31: claims.a: expected an object"),
        ("claims: {a: match}\n", "m.yaml:31: claims.a: found 'match'"),
        ("claims: {a: {}}\n", "m.yaml:31: claims.a: has no `rule`"),
        ("claims: {'a b': {rule: match}}\n", "m.yaml:31: claims.a b: "),
    ],
)
def test_a_claim_of_any_shape_is_refused_and_never_crashes(text, expected):
    assert problems_of(text)[0].startswith(expected)


def test_an_empty_map_of_claims_is_none_at_all():
    assert parse_matrix(MATRIX + "claims: {}\n", "m").claims == {}


def test_several_problems_are_listed_at_once():
    text = CLAIM + CLAIM.partition("\n")[2].replace("good:", "other:").replace("match", "mach")
    found = problems_of(text.replace("margin: 0.02", "margin: 0"))
    assert [line.split(":")[1] for line in found] == ["37", "43"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("margin: 0.02", "margin: 0.03"),
        ("arm: lora", "arm: lora\n    baseline: full"),
        ("arm: lora", "arm: lora\n    minimum_seeds: 5"),
        ("arm: lora", "arm: lora\n    gain_margins: 2"),
        ("arm: lora", "arm: lora\n    role: negative-control"),
    ],
)
def test_what_decides_a_verdict_is_hashed(old, new):
    assert margins_hash(parsed(old, new)) != margins_hash(parsed())


@pytest.mark.parametrize(
    "old", ["LoRA matches.", "margin_reason: a test", "estimand: held-out", "speaks_for: a toy"]
)
def test_what_is_only_said_of_a_claim_may_be_mended_after_the_runs(old):
    changed = parsed(old, f"{old} Indeed")
    assert margins_hash(changed) == margins_hash(parsed())
    assert matrix_hash(changed, {}) == matrix_hash(parsed(), {})


def test_another_rule_or_a_missing_claim_is_another_hash():
    asked = claim(RankFreeClaim, pair="sft-micro", arms=("lora", "lora"), margin=0.02)
    bare = parse_matrix(MATRIX, "m")
    other = bare.model_copy(update={"claims": {"good": asked}})
    hashes = {margins_hash(m) for m in (bare, other, parsed(), parsed("good:", "better:"))}
    assert len(hashes) == 4


def test_a_drift_is_a_factor_above_one():
    with pytest.raises(ValidationError, match="greater than 1"):
        claim(RateClaim, RATIO, pair="p", arm="a", drift=0.5)


def test_the_arms_of_every_rule():
    two = ("a", "b")
    pairs = ("small", "large")
    assert arms_of_claim(claim(MatchClaim, pair="p", arm="a", margin=1)) == [
        ("p", "a"),
        ("p", None),
    ]
    memory = claim(MemoryClaim, RATIO, comparisons=("p.a",))
    assert arms_of_claim(memory) == [("p", "a"), ("p", None)]
    compute = claim(ComputeClaim, RATIO, models=("m",), ranks=(1,), margin=1)
    assert arms_of_claim(compute) == []
    layers = claim(LayersClaim, pair="p", attention="a", mlp="m", every="e", margin=1)
    assert [arm for _, arm in arms_of_claim(layers)] == ["a", "m", "e"]
    capacity = claim(CapacityClaim, pair="p", arms=two, baseline="f", margin=1)
    assert [arm for _, arm in arms_of_claim(capacity)] == ["a", "b", "f"]
    rate = claim(RateClaim, RATIO, pair="p", arm="a", ranks=two)
    assert [arm for _, arm in arms_of_claim(rate)] == ["a", "a", "b", None]
    batch = claim(BatchClaim, NATS, pairs=pairs, arm="a", raised="b", margin=1)
    everywhere = [(p, arm) for p in pairs for arm in ("a", None)]
    assert arms_of_claim(batch) == [*everywhere, ("large", "b")]
    free = claim(RankFreeClaim, pair="p", arms=two, margin=1)
    assert arms_of_claim(free) == [("p", "a"), ("p", "b")]
