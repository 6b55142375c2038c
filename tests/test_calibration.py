"""The rule keeps its error rate and reaches its power on studies whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.rule import Side, decide
from harness.stats import Estimate
from tests.calibration import errors, judge, measure, powers, table
from tests.calibration_claims import (
    SOUND,
    degenerate,
    equivalence_row,
    holm_row,
    looks_row,
    optimum_row,
    tables,
    word_for,
)
from tests.simulated import DRAWS, NOISES

DOCUMENT = Path(__file__).parent.parent / "docs" / "calibration.md"
LIKE = [noise for noise in NOISES if noise != "only LoRA skewed"]  # both arms scatter alike
COARSE = 2_000


def slack(share: float, draws: int) -> float:
    """Four standard errors of a share that was counted."""
    return 4 * math.sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("noise", LIKE)
def test_at_the_margin_a_match_is_rarely_claimed_and_rarely_refuted(noise):
    row = measure(noise, 3, 1.5, COARSE)
    assert row.supported <= 0.05
    assert row.refuted <= 0.05


def test_a_clear_difference_and_a_clear_match_are_told_apart():
    assert measure("normal", 5, 6.0, COARSE).refuted > 0.95
    assert measure("normal", 5, -3.0, COARSE).supported > 0.95


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
def test_a_single_seed_and_identical_values_are_never_a_match(values):
    if len(values) > 1:
        assert judge(values, 1.0)[0] == "inconclusive"
    else:
        with pytest.raises(AssertionError):  # there is no interval to read
            judge(values, 1.0)


def test_a_study_that_can_show_nothing_is_never_a_match():
    assert word_for(SOUND) == "supported"
    for name, studies in degenerate():
        assert "supported" not in {word_for(cells) for cells in studies}, name


def test_an_interval_that_is_not_a_number_is_never_a_match():
    sound = Estimate(0.0, -0.1, 0.1, 5, 0.1)
    nan = Estimate(math.nan, math.nan, math.nan, 5, math.nan)
    sides = [Side(name, dict.fromkeys(range(5)), {}) for name in ("lora", "full")]
    assert decide(sound, 1.0, 10.0, *sides)[0] == "supported"
    assert decide(nan, 1.0, 10.0, *sides)[0] == "inconclusive"
    assert decide(sound, 1.0, math.nan, *sides)[0] == "inconclusive"
    assert decide(sound, math.nan, 10.0, *sides)[0] == "inconclusive"


@pytest.mark.parametrize("noise", LIKE)
def test_equality_is_rarely_claimed_at_either_edge_of_the_margin(noise):
    upper, lower, none = equivalence_row(noise, 8, COARSE)[2:]
    assert max(upper, lower) <= 0.05 + slack(0.05, COARSE)
    assert none > 0.9


@pytest.mark.parametrize("noise", LIKE)
def test_planned_looks_keep_the_error_in_total_where_looking_thrice_does_not(noise):
    naive, planned, power = looks_row(noise, COARSE)[1:]
    assert planned <= 0.05 + slack(0.05, COARSE)
    assert naive > planned
    assert power > 0.9


@pytest.mark.parametrize("noise", LIKE)
def test_nine_claims_at_the_margin_rarely_give_any_false_match(noise):
    plain, adjusted = holm_row(noise, 5, COARSE // 4)[2:]
    assert adjusted <= 0.05 + slack(0.05, COARSE // 4)
    assert plain > 0.2


@pytest.mark.parametrize("noise", [3e-4, 1e-3, 1e-2])
def test_the_interval_of_a_ratio_of_best_rates_covers_as_often_as_it_says(noise):
    covered, lost = optimum_row("even", 0.25, noise, 3, 1_000)[4:]
    assert covered == pytest.approx(0.95, abs=slack(0.95, 1_000))
    assert lost < 0.1


@pytest.mark.slow
def test_the_documented_rule_is_what_the_code_says_and_holds_what_is_promised():
    at_margin, alike = list(errors()), list(powers())
    document = DOCUMENT.read_text(encoding="utf-8")
    assert table(at_margin) in document
    assert table(alike) in document
    for row in at_margin:
        if row.noise in LIKE:
            assert row.supported <= 0.05, row
            assert 0.93 <= row.covered <= 0.97, row
    for row in alike:
        if row.noise in LIKE:
            assert row.supported >= 0.8 - slack(0.8, DRAWS), row


@pytest.mark.slow
def test_the_documented_tests_of_claims_are_what_the_code_says_and_hold_what_is_promised():
    document = DOCUMENT.read_text(encoding="utf-8")
    made = {table.title: table for table in tables()}
    for one in made.values():
        assert one.text() in document, one.title
    error = 0.05 + slack(0.05, DRAWS)
    for noise, _, upper, lower, _ in made["Equal within the margin"].rows:
        assert noise not in LIKE or max(upper, lower) <= error, noise
    for noise, _, planned, _ in made["Looks at 3, 5 and 8 seeds"].rows:
        assert noise not in LIKE or planned <= 0.05, noise
    for noise, _, _, adjusted in made["Nine claims at the margin"].rows:
        assert noise not in LIKE or adjusted <= 0.05, noise
    for row in made["Ratio of best learning rates"].rows:
        shape, step, _, _, covered, _ = row
        assert (shape, step) == ("lopsided", "0.5") or 0.93 <= covered <= 0.97, row
