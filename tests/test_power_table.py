"""The seeds a claim takes, from effects whose spread is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from harness.power import match_power, seeds_needed
from harness.power_table import power_rows
from harness.verdicts.model import Effect, Part


def rows(effect: Effect, *, decides: bool = True) -> list:
    part = Part(effect=effect, word="inconclusive", reason="r", decides=decides)
    verdict = SimpleNamespace(claim="c", parts=(part,))
    view = SimpleNamespace(verdicts=[verdict], evidence=SimpleNamespace(alpha=0.025))
    return power_rows(view)  # type: ignore[arg-type]


def effect(values, unit="reward", **bounds) -> Effect:
    by_seed = tuple(enumerate(values))
    return Effect(name="n", unit=unit, value=None, by_seed=by_seed, **bounds)


def test_a_match_is_reckoned_from_no_difference_to_the_margin():
    (row,) = rows(effect([-1.0, 0.0, 1.0], ceiling=2.0))
    assert (row.sd, row.distance, row.seeds) == (1.0, 2.0, 3)
    assert row.power_now == pytest.approx(match_power(3, 2.0, 1.0))
    assert row.seeds_needed == seeds_needed(2.0, 1.0)


def test_what_is_claimed_to_be_larger_is_reckoned_as_large_as_it_was_seen():
    (row,) = rows(effect([1.0, 2.0, 3.0], floor=0.5))
    assert row.distance == pytest.approx(1.5)


def test_a_ratio_is_reckoned_in_logarithms_from_the_middle_of_its_range():
    (row,) = rows(effect([8.0, 10.0, 12.5], unit="ratio", floor=5.0, ceiling=20.0))
    assert row.distance == pytest.approx(math.log(2))
    assert row.sd == pytest.approx(math.log(1.25))


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.5]])
def test_without_a_spread_there_is_no_power(values):
    (row,) = rows(effect(values, ceiling=2.0))
    assert (row.power_now, row.seeds_needed) == (None, None)


def test_what_decides_nothing_takes_no_seeds():
    assert rows(effect([0.0, 1.0], ceiling=2.0), decides=False) == []
