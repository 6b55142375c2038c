"""The numbers under the findings' figures, on values that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.finding_series import (
    capacity_curves,
    dots_of,
    failed_rates,
    finals,
    frame,
    gap_dots,
    optima,
    rank_dots,
    rate_dots,
    ratio_dots,
)
from harness.record import Status
from harness.selection import GridPoint
from tests.claims_study import BEST, claims_matrix, claims_plan, claims_study


@pytest.fixture(scope="module")
def study():
    return claims_study(matrix=claims_matrix(only=("capacity", "rates", "batch", "memory")))


@pytest.fixture(scope="module")
def evidence(study):
    return study.evidence


def test_a_place_has_its_mean_and_its_lowest_and_highest_seed():
    dots = dots_of(4.0, "a", {0: 1.0, 1: 3.0, 2: 5.0})
    (mean,) = dots.means
    assert (mean.x, mean.mean, mean.low, mean.high, mean.seeds) == (4.0, 3.0, 1.0, 5.0, 3)
    assert [point.seed for point in dots.seeds] == [0, 1, 2]
    assert dots_of(4.0, "a", {}).means == ()


def test_ranks_stand_at_their_rank_with_the_mean_of_their_seeds(evidence):
    dots = rank_dots(evidence, "sft-rank", ("lora-r1", "lora-r16"))
    assert [point.x for point in dots.means] == [1.0, 16.0]
    values = finals(evidence, "sft-rank", "lora-r1").values()
    assert dots.means[0].mean == pytest.approx(sum(values) / 5)


def test_curves_leave_out_the_untrained_model_and_mark_departures(evidence, study):
    line, departures = capacity_curves(evidence, study.matrix.claims["capacity"])
    assert min(point.step for point in line) == 10
    assert {point.seeds for point in line} == {5}
    left = {point.arm: point for point in departures}
    assert "lora-r256" not in left
    on_curve = {(p.arm, p.step): p.mean for p in line}
    assert left["lora-r1"].mean == on_curve["lora-r1", left["lora-r1"].x]


def test_a_departure_is_the_median_over_the_seeds_that_depart(study):
    """Two seeds leave at 20 and 40 and one never does: the median of the two is 30."""
    claim = study.matrix.claims["capacity"].model_copy(update={"arms": ("lora-r1",)})
    flat = tuple((step, 1.0) for step in (0, 10, 20, 30, 40))
    curves = {("sft-rank", "full", s): flat for s in range(3)}
    for seed, at in enumerate((20, 40, math.inf)):
        worse = tuple((step, 1.5 if step >= at else 1.0) for step, _ in flat)
        curves["sft-rank", "lora-r1", seed] = worse
    _, (left,) = capacity_curves(replace(study.evidence, curves=curves), claim)
    assert (left.x, left.seeds, left.low, left.high) == (30.0, 2, 20.0, 40.0)


def test_best_rates_are_those_the_grid_was_made_with(evidence):
    best = {each.arm: each for each in optima(evidence, "sft-rank", ("full", "lora-r16"))}
    for arm, kind in (("full", "full"), ("lora-r16", "lora")):
        assert best[arm].rate == pytest.approx(BEST[kind], rel=0.25)
        assert best[arm].low < best[arm].rate < best[arm].high
        assert best[arm].seeds == 3


def test_a_failed_rate_keeps_its_seeds_and_loses_its_mean(evidence):
    points = [
        replace(p, status=Status.DIVERGED, value=None)
        if (p.arm, p.rate, p.seed) == ("full", 3e-3, 101)
        else p
        for p in evidence.points
    ]
    lossy = replace(evidence, points=points)
    dots = rate_dots(lossy, "sft-rank", ("full",))
    assert 3e-3 not in {point.x for point in dots.means}
    assert {p.seed for p in dots.seeds if p.x == 3e-3} == {100, 102}
    assert failed_rates(lossy, "sft-rank", ("full",)) == ["full at 0.003, seed 101: diverged"]


def test_a_frame_shows_the_valley_and_ignores_what_is_far_off():
    low, high = frame([1.0, 1.1, 1.2, 9.0, 1.05], 1.0)
    assert low < 1.0
    assert 1.2 < high < 2.0
    upside = frame([0.5, 0.45, 0.4, 0.0, 0.48], -1.0)
    assert upside[0] > 0.1
    assert upside[1] > 0.5
    assert frame([], 1.0) is None
    assert frame([2.0], 1.0)[0] < 2.0 < frame([2.0], 1.0)[1]


def test_gaps_are_paired_and_grow_with_the_batch(evidence, study):
    claim = study.matrix.claims["batch"]
    places = {"sft-batch-4": 4.0, "sft-batch-32": 32.0, "sft-batch-256": 256.0}
    means = [p for p in gap_dots(evidence, claim, places).means if p.arm == claim.arm]
    assert [point.x for point in means] == [4.0, 32.0, 256.0]
    assert means[0].mean < means[1].mean < means[2].mean
    assert all(point.low < point.mean < point.high for point in means)


def test_ratios_stand_at_the_arm_they_are_of(study):
    verdict = next(v for v in study.verdicts if v.claim == "memory")
    dots = ratio_dots(verdict.parts)
    assert [point.x for point in dots.means] == ["sft-rank.lora-r256", "rl.lora-r1"]
    assert len(dots.seeds) == 10


def test_a_comparison_with_a_run_of_grade_d_has_no_place(study):
    verdict = next(v for v in study.verdicts if v.claim == "memory")
    first = next(part for part in verdict.parts if part.decides)
    parts = [
        part.model_copy(update={"is_refused": True}) if part is first else part
        for part in verdict.parts
    ]
    dots = ratio_dots(parts)
    assert [point.x for point in dots.means] == ["rl.lora-r1"]
    assert len(dots.seeds) == 5


def test_nothing_measured_gives_nothing(study):
    bare = replace(study.evidence, cells={}, points=(), curves={})
    claims = study.matrix.claims
    assert rank_dots(bare, "sft-rank", ("lora-r1",)).means == ()
    assert capacity_curves(bare, claims["capacity"]) == ((), ())
    assert rate_dots(bare, "sft-rank", ("full",)).seeds == ()
    assert optima(bare, "sft-rank", ("full",)) == []
    assert gap_dots(bare, claims["batch"], {}).means == ()


def test_a_point_that_never_ran_is_named():
    point = GridPoint("sft-rank", "full", 1e-4, 100, None, None)
    study = claims_study(claims_plan(), claims_matrix(only=("match-r16",)))
    lossy = replace(study.evidence, points=[point])
    assert failed_rates(lossy, "sft-rank", ("full",)) == ["full at 0.0001, seed 100: not run"]
