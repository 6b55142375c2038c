"""Ranks against full fine-tuning's curve: who leaves it, and when."""

from __future__ import annotations

import math

import pytest

from harness.claim_spec import CapacityClaim
from harness.verdicts.capacity import departure
from tests.claim_evidence import FULL, claim, matrix_of, study, verdict, worse

MARGIN = 0.02
CAPACITY = claim(CapacityClaim, pair="p", arms=("r1", "r4", "r16"), margin=MARGIN)
STEPS = (0, 10, 20, 30, 40)
RANKS = {
    "full": FULL,
    "r1": worse(0.10, 0.11, 0.105),
    "r4": worse(0.05, 0.052, 0.047),
    "r16": worse(0.001, -0.002, 0.003),
}
LEAVES = {"r1": (10, 10, 20), "r4": (30, 20, 30), "r16": (math.inf,) * 3}


def curve(leaves, level=0.0):
    """A curve that leaves the reference at a step, for good."""
    return tuple((step, 2.0 - step / 50 + level + (0.1 if step >= leaves else 0)) for step in STEPS)


def curves(leaves=LEAVES, full=True):
    found = {
        ("p", arm, seed): curve(step, seed / 10)
        for arm, steps in leaves.items()
        for seed, step in enumerate(steps)
        if step is not None
    }
    reference = {("p", "full", seed): curve(math.inf, seed / 10) for seed in range(3)}
    return {**found, **reference} if full else found


def capacity(values=RANKS, drawn=None, **changes):
    asked = CAPACITY.model_copy(update=changes)
    drawn = curves() if drawn is None else drawn
    return verdict(study(matrix_of({"c": asked}), values, curves=drawn))


def test_ranks_that_leave_one_after_the_other_support_the_claim():
    got = capacity()
    assert [part.word for part in got.parts] == ["supported"] * 4
    assert got.word == "supported"
    assert got.parts[2].p_supported == pytest.approx(1 / 216)  # three seeds in perfect order
    assert "10, 10, 20" in got.parts[3].reason
    assert "never" in got.parts[3].reason


def test_a_lowest_rank_that_keeps_up_or_a_highest_that_does_not_refutes():
    keeps_up = {**RANKS, "r1": worse(0.001, 0.002, -0.001)}
    assert capacity(keeps_up).parts[0].word == "refuted"
    assert capacity(keeps_up).word == "refuted"
    falls = {**RANKS, "r16": worse(0.04, 0.041, 0.042)}
    assert capacity(falls).parts[1].word == "refuted"


def test_a_trend_the_other_way_refutes():
    turned = {"full": FULL, "r1": RANKS["r16"], "r4": RANKS["r4"], "r16": RANKS["r1"]}
    assert capacity(turned).parts[2].word == "refuted"
    back = {"r1": LEAVES["r16"], "r4": LEAVES["r4"], "r16": LEAVES["r1"]}
    assert capacity(drawn=curves(back)).parts[3].word == "refuted"


def test_without_curves_no_departure_is_tested_and_the_claim_is_open():
    got = capacity(drawn={})
    assert got.parts[3].word == "not tested"
    assert got.word == "inconclusive"
    assert capacity(drawn=curves(full=False)).parts[3].word == "not tested"
    start_alone = {cell: points[:1] for cell, points in curves().items()}
    assert capacity(drawn=start_alone).parts[3].word == "not tested"


@pytest.mark.parametrize("arm", ["full", "r1", "r4", "r16"])
@pytest.mark.parametrize("status", ["nan", "diverged", "crashed", None])
def test_a_lost_run_never_supports(arm, status):
    lost = {**RANKS, arm: [*RANKS[arm][:2], status]}
    got = capacity(lost)
    assert got.word != "supported"
    if arm == "full":
        assert got.word != "refuted"


def test_a_seed_without_a_curve_withholds_either_trend():
    more = {name: [*values, values[0] + 0.001] for name, values in RANKS.items()}
    got = capacity(more)
    assert got.parts[3].word == "inconclusive"
    assert "1 of 4 seeds lack a value" in got.parts[3].reason
    back = {"r1": LEAVES["r16"], "r4": LEAVES["r4"], "r16": LEAVES["r1"]}
    assert capacity(more, curves(back)).parts[3].word == "inconclusive"


def test_two_ranks_have_no_trend_and_are_judged_without():
    got = capacity(arms=("r1", "r16"))
    assert got.word == "supported"
    assert [part.decides for part in got.parts] == [True, True, False, False]


def test_too_few_seeds_or_copies_decide_nothing():
    two = {name: values[:2] for name, values in RANKS.items()}
    assert capacity(two).word == "inconclusive"
    copies = {name: [values[0]] * 3 for name, values in RANKS.items()}
    assert capacity(copies).word == "inconclusive"
    assert capacity(minimum_seeds=4).word == "inconclusive"
    assert capacity(dict.fromkeys(RANKS, ["nan"] * 3), {}).word == "not tested"


# Numbers that binary fractions hold, so that a gap can be the margin itself.
REFERENCE = ((0, 2.0), (10, 1.5), (20, 1.25), (30, 1.0))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((9.0, 0.0, 0.0, 0.0), math.inf),  # the untrained model is no step
        ((0.0, 0.0, 0.0, 0.05), 30),
        ((0.0, 0.0, 0.05, 0.05), 20),
        ((0.0, 0.05, 0.0, 0.05), 30),  # it came back in between
        ((0.0, 0.05, 0.05, 0.015625), math.inf),  # the margin itself is within it
        ((0.0, -1.0, -1.0, -1.0), math.inf),
    ],
)
def test_a_departure_is_the_first_step_of_what_lasts(gaps, expected):
    drawn = [(step, value + gap) for (step, value), gap in zip(REFERENCE, gaps, strict=True)]
    assert departure(REFERENCE, drawn, 0.015625) == expected


def test_a_departure_takes_steps_that_both_have():
    assert departure(REFERENCE, [(15, 9.0), (30, 1.0)], 0.02) == math.inf
    assert math.isnan(departure(REFERENCE, [(0, 2.0), (15, 9.0)], 0.02))
    assert math.isnan(departure(REFERENCE, [], 0.02))


def test_a_reward_departs_downwards():
    rewards = [(10, 0.3), (20, 0.5)]
    assert departure(rewards, [(10, 0.3), (20, 0.4)], 0.05, sign=-1.0) == 20
    assert departure(rewards, [(10, 0.3), (20, 0.6)], 0.05, sign=-1.0) == math.inf
