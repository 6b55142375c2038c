"""At the edge of what a claim denies, no rule says 'supported' in more than 5 % of studies."""

from __future__ import annotations

import math
import random

import pytest

from harness.claim_checks import RATIO
from harness.claim_spec import (
    BatchClaim,
    CapacityClaim,
    LayersClaim,
    MatchClaim,
    MemoryClaim,
    RankFreeClaim,
    RateClaim,
)
from harness.verdicts.judge import judge_claims
from tests.claim_evidence import claim, matrix_of, parabola, study, verdict

STUDIES = 400
# 5 % of so many studies, and three standard errors of that count.
MOST = 0.05 * STUDIES + 3 * math.sqrt(STUDIES * 0.05 * 0.95)
MARGIN, SPREAD = 0.02, 0.005
SEEDS = range(3)


def noise(rng, *means):
    """Values of as many arms, over seeds that share their luck in part."""
    luck = [rng.gauss(0, SPREAD) for _ in SEEDS]
    return [[1.0 + mean + shared + rng.gauss(0, SPREAD) for shared in luck] for mean in means]


def supported(build):
    """How many studies support the claim."""
    rng = random.Random(20260102)
    return sum(verdict(build(rng)).word == "supported" for _ in range(STUDIES))


def test_a_match_that_is_worse_by_just_the_margin():
    toy = matrix_of({"c": claim(MatchClaim, pair="p", arm="r4", margin=MARGIN)})

    def build(rng):
        full, ours = noise(rng, 0.0, MARGIN)
        return study(toy, {"full": full, "r4": ours})

    assert 0 < supported(build) <= MOST


@pytest.mark.parametrize("sign", [1, -1])
def test_ranks_that_differ_by_just_the_margin(sign):
    toy = matrix_of({"c": claim(RankFreeClaim, pair="p", arms=("r1", "r4"), margin=MARGIN)})

    def build(rng):
        low, high = noise(rng, 0.0, sign * MARGIN)
        return study(toy, {"r1": low, "r4": high})

    assert supported(build) <= MOST


def test_layers_that_do_not_matter():
    """Attention no worse than the MLP, and both worse than all: the other parts hold."""
    asked = claim(
        LayersClaim, pair="p", attention="r4-attention", mlp="r1-mlp", every="r1-every", margin=MARGIN
    )  # fmt: skip
    toy = matrix_of({"c": asked}, arms=("full", "r4-attention", "r1-mlp", "r1-every"))

    def build(rng):
        attention, mlp, every = noise(rng, 0.0, 0.0, -0.01)
        return study(toy, {"r4-attention": attention, "r1-mlp": mlp, "r1-every": every})

    assert supported(build) <= MOST


def test_a_lowest_rank_that_is_behind_by_just_the_margin():
    toy = matrix_of({"c": claim(CapacityClaim, pair="p", arms=("r1", "r16"), margin=MARGIN)})

    def build(rng):
        full, low, high = noise(rng, 0.0, MARGIN, 0.0)
        return study(toy, {"full": full, "r1": low, "r16": high})

    assert supported(build) <= MOST


def test_a_gap_that_does_not_grow_with_the_batch():
    asked = claim(BatchClaim, pairs=("b8", "b64"), arm="r4", raised="r16", margin=MARGIN)
    toy = matrix_of({"c": asked}, pairs=("b8", "b64"))

    def build(rng):
        cells = ("b8.full", "b8.r4", "b64.full", "b64.r4", "b64.r16")
        return study(toy, dict(zip(cells, noise(rng, 0.0, 0.01, 0.0, 0.01, 0.01), strict=True)))

    assert 0 < supported(build) <= MOST


@pytest.mark.parametrize("ratio", [5.0, 20.0])
def test_a_ratio_of_rates_at_the_end_of_its_range(ratio):
    asked = claim(RateClaim, RATIO, pair="p", arm="r4")
    toy = matrix_of({"c": asked}, swept=("full", "r4"))

    def build(rng):
        theirs = [1e-4 * math.exp(rng.gauss(0, 0.1)) for _ in SEEDS]
        ours = [ratio * 1e-4 * math.exp(rng.gauss(0, 0.1)) for _ in SEEDS]
        return study(toy, {}, points=parabola("full", theirs) + parabola("r4", ours))

    assert 0 < supported(build) <= MOST


def test_memory_that_is_the_same():
    toy = matrix_of({"c": claim(MemoryClaim, RATIO, comparisons=("p.r4",))})

    def build(rng):
        full, ours = noise(rng, 0.0, 0.0)
        peaks = {arm: [int(1e9 * rng.gauss(1, 0.02)) for _ in SEEDS] for arm in ("full", "r4")}
        return study(toy, {"full": full, "r4": ours}, peaks)

    assert 0 < supported(build) <= MOST


def test_several_claims_at_once_share_the_error():
    arms = ("r1", "r4", "r16")
    toy = matrix_of({arm: claim(MatchClaim, pair="p", arm=arm, margin=MARGIN) for arm in arms})
    rng = random.Random(7)
    false = 0
    for _ in range(STUDIES):
        full, *ours = noise(rng, 0.0, MARGIN, MARGIN, MARGIN)
        values = {"full": full, **dict(zip(arms, ours, strict=True))}
        false += any(v.word == "supported" for v in judge_claims(study(toy, values)))
    assert false <= MOST
