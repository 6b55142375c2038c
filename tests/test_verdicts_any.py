"""Whatever a study holds, its claims are judged without a crash, and no word stands without its test."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from harness.claim_checks import RATIO
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
from harness.record import Status
from harness.verdicts.judge import judge_claims
from tests.claim_evidence import claim, matrix_of, parabola, study

ARMS = ("full", "r1", "r4", "r16", "r4-attention", "r1-mlp", "r1-every")
SWEPT = ("full", "r1", "r4", "r16")
LAYERS = {"attention": "r4-attention", "mlp": "r1-mlp", "every": "r1-every"}
ONE = {"pair": "p", "margin": 0.02}
CLAIMS = {
    "match": claim(MatchClaim, arm="r4", **ONE),
    "control": claim(MatchClaim, arm="r1", role="positive-control", **ONE),
    "memory": claim(MemoryClaim, RATIO, comparisons=("p.r4", "q.r1")),
    "compute": claim(
        ComputeClaim, RATIO, models=("m",), ranks=(1,), margin=0.1, comparisons=("p.r4",)
    ),
    "layers": claim(LayersClaim, **LAYERS, **ONE),
    "capacity": claim(CapacityClaim, arms=("r1", "r4", "r16"), **ONE),
    "rates": claim(RateClaim, RATIO, pair="p", arm="r4", ranks=("r1", "r16")),
    "batch": claim(BatchClaim, pairs=("p", "q"), arm="r4", raised="r16", margin=0.02),
    "free": claim(RankFreeClaim, arms=("r1", "r4", "r16"), **ONE),
}
TOY = matrix_of(CLAIMS, arms=ARMS, pairs=("p", "q"), swept=SWEPT)
LOST = ("nan", "diverged", "oom-gpu", "crashed", None)


def anything(rng: random.Random):
    """A study of any size and luck: lost runs, copies, wild values, holes in grids and curves."""
    seeds, lost = rng.choice([0, 1, 2, 3, 3, 6]), rng.choice([0, 0, 0.1, 0.5, 1])
    spread = rng.choice([0, 1e-18, 0.003, 0.003, 1])

    def value(mean: float):
        return rng.choice(LOST) if rng.random() < lost else mean + rng.gauss(0, spread)

    values, peaks, curves = {}, {}, {}
    for pair, arm in ((p, a) for p in "pq" for a in ARMS if rng.random() < 0.95):
        mean = rng.choice([1.0, 1.0, 1.0, 1.1, 1e-9, 1e9])
        values[f"{pair}.{arm}"] = [value(mean) for _ in range(seeds)]
        peaks[f"{pair}.{arm}"] = [
            rng.choice([None, 0, 1, 2**62, 10**9, 10**9 + rng.randrange(10**7)])
            for _ in range(seeds)
        ]
        for seed in range(seeds):
            curves[pair, arm, seed] = tuple(
                (step, rng.gauss(1, 0.1)) for step in range(0, 40, 10) if rng.random() < 0.9
            )
    points = [
        point
        if rng.random() > lost / 3
        else replace(point, status=rng.choice([None, Status.NAN, Status.OK]), value=None)
        for arm in SWEPT
        for point in parabola(arm, [10 ** rng.uniform(-6, 0) for _ in range(rng.choice([0, 3]))])
    ]
    more = {"undeclared_pairs": frozenset({"p"})} if rng.random() < 0.2 else {}
    more |= {"waiting": {}, "edges": {}} if rng.random() < 0.5 else {}
    looks = rng.choice([(), (3, 6)])
    return study(TOY, values, peaks, points=points, curves=curves, looks=looks, **more)


@pytest.mark.parametrize("number", range(200))
def test_no_study_crashes_the_judge_and_no_word_stands_without_its_test(number):
    for got in judge_claims(anything(random.Random(number))):
        assert got.reason
        assert got.plain
        assert got.model_dump_json()
        for part in got.parts:
            known = (part.p_supported, part.p_refuted, part.p_equal)
            assert all(0 <= p <= 1 for p in known if p is not None)
        if got.word in ("supported", "refuted") and got.role == "claim":
            assert got.p_adjusted is not None
            assert got.p_adjusted <= 0.05
