"""How the parts of a claim make its word and its p values."""

from __future__ import annotations

import pytest

from harness.verdicts.model import Effect, Part, combine, combined_p, leading


def part(word, p_supported=None, p_refuted=None, decides=True, name="a number"):
    effect = Effect(name=name, unit="nats", value=None)
    p = {"p_supported": p_supported, "p_refuted": p_refuted}
    return Part(effect=effect, word=word, reason="a test", decides=decides, **p)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "not tested"),
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "refuted"], "refuted"),
        (["refuted", "not tested"], "refuted"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "not tested"], "inconclusive"),
        (["inconclusive", "not tested"], "inconclusive"),
        (["not tested", "not tested"], "not tested"),
    ],
)
def test_all_parts_have_to_hold_and_one_is_enough_to_refute(words, expected):
    assert combine([part(word) for word in words]) == expected


def test_what_decides_nothing_counts_for_nothing():
    beside = part("refuted", 1.0, 0.0, decides=False)
    assert combine([part("supported"), beside]) == "supported"
    assert combine([beside]) == "not tested"
    assert combined_p([part("supported", 0.01, 0.9), beside]) == (0.01, 0.9)
    assert leading([beside], "refuted") is None


def test_the_largest_p_value_supports_and_the_smallest_refutes_times_the_parts():
    parts = [part("inconclusive", 0.01, 0.2), part("inconclusive", 0.04, 0.5)]
    assert combined_p(parts) == (0.04, 0.4)
    assert combined_p([part("inconclusive", 0.9, 0.8)] * 2) == (0.9, 1.0)
    assert combined_p([]) == (None, None)


def test_a_part_without_a_p_value_leaves_the_claim_without():
    parts = [part("supported", 0.01, 0.9), part("inconclusive")]
    assert combined_p(parts) == (None, 1.0)
    assert combined_p([part("not tested")] * 2) == (None, None)


def test_a_part_whose_word_was_withheld_does_not_lend_its_p_value():
    """A baseline that was lost, say: the seeds that remain may be those in which it was lucky."""
    parts = [part("refuted", 0.9, 0.02), part("inconclusive", 0.9, 1e-9)]
    assert combined_p(parts)[1] == pytest.approx(0.04)


def test_a_word_hangs_on_the_first_part_that_has_it_or_is_open():
    first, second = part("supported", name="first"), part("not tested", name="second")
    assert leading([first, second], "supported") is first
    assert leading([first, second], "inconclusive") is second
    assert leading([], "supported") is None
