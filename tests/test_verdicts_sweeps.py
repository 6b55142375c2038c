"""The ratio of best learning rates, and what a large batch costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats as scipy_stats

from harness.claim_checks import RATIO
from harness.claim_spec import BatchClaim, RateClaim
from harness.record import Status
from harness.verdicts.sweeps import optima_text
from tests.claim_evidence import FULL, GRID, claim, matrix_of, parabola, study, verdict

RATE = claim(RateClaim, RATIO, pair="p", arm="r4", ranks=("r1", "r16"))
SWEPT = ("full", "r1", "r4", "r16")
BEST = {
    "full": (1.0e-4, 1.1e-4, 0.9e-4),
    "r1": (1.0e-3, 1.05e-3, 1.0e-3),
    "r4": (1.0e-3, 1.2e-3, 1.0e-3),
    "r16": (1.1e-3, 1.1e-3, 1.0e-3),
}


def points(best=BEST):
    return [point for arm, rates in best.items() for point in parabola(arm, rates)]


def rates(found, asked=RATE, **more):
    toy = matrix_of({"c": asked}, swept=SWEPT, selection=more.pop("selection", (100, 101, 102)))
    return verdict(study(toy, {}, points=found, **more))


def test_a_ratio_near_ten_is_supported_and_the_parabola_s_own_optimum_is_found():
    got = rates(points())
    assert got.word == "supported"
    ratio = got.parts[0].effect
    logs = [math.log(a / b) for a, b in zip(BEST["r4"], BEST["full"], strict=True)]
    assert ratio.value == pytest.approx(math.exp(sum(logs) / 3))
    assert [v for _, v in ratio.by_seed] == pytest.approx([math.exp(x) for x in logs])
    p_values = [
        scipy_stats.ttest_1samp(logs, math.log(bound), alternative=side).pvalue
        for bound, side in ((5, "greater"), (20, "less"))
    ]
    assert got.parts[0].p_supported == pytest.approx(max(p_values))
    assert len(got.parts) == 2  # and one drift


def test_a_ratio_outside_of_the_range_and_a_drift_beyond_its_factor_refute():
    one = {**BEST, "r4": (1.0e-4, 1.2e-4, 1.0e-4)}
    assert rates(points(one)).parts[0].word == "refuted"
    drifts = {**BEST, "r16": (5.0e-3, 5.2e-3, 4.9e-3)}
    got = rates(points(drifts))
    assert [part.word for part in got.parts] == ["supported", "refuted"]
    assert got.word == "refuted"


@pytest.mark.parametrize("best", [1e-7, 1e-5, 1e-1, 10.0])
def test_an_optimum_at_the_grid_s_end_decides_nothing(best):
    got = rates(points({**BEST, "r4": (best, 1e-3, 1.1e-3)}))
    assert got.word == "inconclusive"
    assert got.p_supported is None
    assert "a wider grid would tell" in got.reason


def test_a_rate_that_diverged_is_worse_than_any_and_one_next_to_the_best_leaves_no_parabola():
    far = [
        replace(p, status=Status.DIVERGED, value=None) if p.rate == GRID[-1] else p
        for p in points()
    ]
    assert rates(far).word == "supported"
    near = [
        replace(p, status=Status.NAN, value=None) if (p.arm, p.rate) == ("r4", 1e-2) else p
        for p in points()
    ]
    assert rates(near).word == "inconclusive"
    every = [replace(p, status=Status.NAN, value=None) if p.arm == "r4" else p for p in points()]
    assert rates(every).word == "inconclusive"
    baseline = [
        replace(p, status=Status.NAN, value=None) if p.arm == "full" else p for p in points()
    ]
    assert rates(baseline).word == "inconclusive"


def test_a_grid_that_is_not_complete_is_not_tested_with_a_reason():
    lacking = [p for p in points() if (p.arm, p.rate, p.seed) != ("r4", 1e-2, 101)]
    got = rates(lacking)
    assert got.parts[0].word == "not tested"
    assert "p.r4.lr1e-2.s101 of its grid did not end" in got.reason
    crashed = [replace(p, status=None) if p.rate == 1e-2 else p for p in points()]
    assert rates(crashed).word == "not tested"
    assert rates([]).word == "not tested"


def test_few_selection_seeds_copies_and_undeclared_arguments_decide_nothing():
    two = {arm: best[:2] for arm, best in BEST.items()}
    assert rates(points(two), selection=(100, 101)).word == "inconclusive"
    copies = {arm: (best[0],) * 3 for arm, best in BEST.items()}
    assert rates(points(copies)).word == "inconclusive"
    level = [replace(p, value=p.value + p.seed / 3) for p in points(copies)]
    assert rates(level).word == "inconclusive"  # rounding is no spread
    assert rates(points(), undeclared_pairs=frozenset({"p"})).word == "inconclusive"
    assert rates(points(), RATE.model_copy(update={"minimum_seeds": 4})).word == "inconclusive"


def test_ratios_of_any_size_are_written_down():
    """The furthest apart that two optima can be, on a grid as wide as a matrix may give."""
    wide = (1e-12, 1e-11, 1e-6, 0.5, 0.9)
    far = {"full": (1e-11, 0.4, 1e-11), "r4": (0.4, 1e-11, 0.4)}
    found = [p for arm, best in far.items() for p in parabola(arm, best, wide)]
    asked = RATE.model_copy(update={"ranks": ()})
    toy = matrix_of({"c": asked}, swept=SWEPT)
    got = verdict(study(toy, {}, points=found, waiting={}, edges={}))
    assert got.word == "inconclusive"
    assert got.effect.high > got.effect.value > got.effect.low > 0


def test_an_arm_s_best_rates_are_listed():
    evidence = study(matrix_of({"c": RATE}, swept=SWEPT), {}, points=points())
    assert optima_text(evidence, "p", "r4") == "1e-3, 1.2e-3, 1e-3"
    edge = points({**BEST, "r4": (1e-1, 1e-3, 1e-3)})
    evidence = study(matrix_of({"c": RATE}, swept=SWEPT), {}, points=edge)
    assert optima_text(evidence, "p", "r4").startswith("at the edge")


BATCH = claim(BatchClaim, pairs=("b8", "b64"), arm="r4", raised="r16", margin=0.02)
SMALL = (0.001, 0.003, -0.002)  # how much worse than full, at the small batch
LARGE = (0.051, 0.055, 0.049)
RAISED = (0.050, 0.054, 0.051)


def batch(small=SMALL, large=LARGE, raised=RAISED, full=FULL, **changes):
    toy = matrix_of({"c": BATCH.model_copy(update=changes)}, pairs=("b8", "b64"))
    values = {"b8.full": full, "b64.full": full}
    for cell, differences in (("b8.r4", small), ("b64.r4", large), ("b64.r16", raised)):
        values[cell] = [
            d if d is None or isinstance(d, str) else FULL[i % 3] + d
            for i, d in enumerate(differences)
        ]
    return verdict(study(toy, values))


def test_a_gap_that_grows_with_the_batch_and_that_rank_does_not_mend_is_supported():
    got = batch()
    assert got.word == "supported"
    growth = [b - a for a, b in zip(SMALL, LARGE, strict=True)]
    assert got.parts[0].effect.value == pytest.approx(sum(growth) / 3)
    expected = scipy_stats.ttest_1samp(growth, 0.0, alternative="greater").pvalue
    assert got.parts[0].p_supported == pytest.approx(expected)


def test_a_gap_that_does_not_grow_or_that_rank_mends_refutes():
    same = batch(large=(0.002, 0.002, -0.001))
    assert [part.word for part in same.parts] == ["refuted", "supported"]
    assert same.word == "refuted"
    mended = batch(raised=(0.001, 0.003, 0.002))
    assert [part.word for part in mended.parts] == ["supported", "refuted"]
    assert mended.p_refuted == pytest.approx(2 * mended.parts[1].p_refuted)


@pytest.mark.parametrize("status", ["nan", "oom-gpu", "crashed", None])
def test_lost_runs_withhold_what_grows(status):
    for lost in ({"small": (*SMALL[:2], status)}, {"large": (*LARGE[:2], status)}):
        assert batch(**lost).word != "supported"
    got = batch(full=(*FULL[:2], status), large=(0.002, 0.002, -0.001))
    assert got.word != "refuted"
    assert got.parts[0].word == "inconclusive"


def test_copies_and_single_seeds_decide_nothing_and_nothing_has_no_p_value():
    assert batch((0.0,) * 3, (0.5,) * 3, (0.5,) * 3).word == "inconclusive"
    assert batch(SMALL[:1], LARGE[:1], RAISED[:1], FULL[:1]).word == "inconclusive"
    nothing = batch(*[["nan"] * 3] * 3, full=["nan"] * 3)
    assert nothing.word == "not tested"
    assert (nothing.p_supported, nothing.p_refuted) == (None, None)
