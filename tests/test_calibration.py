"""The rule keeps its error rate and reaches its power on studies whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.calibration import DRAWS, NOISES, errors, judge, measure, powers, table

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


@pytest.mark.slow
def test_the_documented_tables_are_what_the_code_says_and_hold_what_is_promised():
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
