"""Markdown of a comparison: within the limit, by whole rows, and nothing of it acts."""

from __future__ import annotations

import re

import pytest

from harness.compare.explain import explain
from harness.compare.markdown import LIMIT, MARKER, Section, fit, md, render_markdown
from harness.compare.model import Place
from tests.comparison_pages import HOSTILE, every_word, make, only, with_text


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_hidden_marker_comes_first():
    assert render_markdown(every_word()).startswith(MARKER + "\n")


def test_what_the_page_says_first_stands_in_it():
    made = make(only("grpo", gradients=lambda g: 2 * g), trl=("0.22.1", "0.22.2"))
    comparison = explain(*made.all)
    text = render_markdown(comparison)
    assert "### TRL 0.22.1 → TRL 0.22.2: changed" in text
    assert "A/A: 0 of 4 reruns differed" in text
    assert md(comparison.causes[0].sentence) in text
    assert md(comparison.notices[0]) in text
    assert "| grpo-plain.full | changed | gradient/attention | 1 | 0.813 | 1.626 |" in text
    assert "| trl | 0.22.1 | 0.22.2 |" in text


def test_every_word_stands_in_it_the_gravest_first():
    text = render_markdown(every_word())
    words = re.findall(r"^\| pair-\d\.full \| ([^|]+) \|", text, re.MULTILINE)
    assert words == [
        "changed", "undecided", "unsupported here", "not comparable", "rounding", "same",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cells", [500, 3000])
def test_many_cells_stay_within_the_limit_and_whole(cells):
    sentence = "The loss of step 3 is another one, by a lot more than rounding. " * 4
    text = render_markdown(with_text(sentence, cells).comparison)
    assert len(text) <= LIMIT
    assert len(text) > 0.9 * LIMIT
    (left,) = re.findall(r"\*(\d+) more cells left out", text)
    shown = [row for row in rows(text) if row.startswith("| The loss") and row.count("|") == 8]
    assert len(shown) + int(left) == cells
    for heading in ("Likely causes", "What a user will notice", "Packages that differ", "Notes"):
        assert f"#### {heading}" in text


def test_rows_have_as_many_cells_as_their_head():
    text = render_markdown(with_text(HOSTILE, 3).comparison)
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows(text)]
    assert all(width in (3, 4, 6, 8) for width in widths)


def test_text_from_outside_does_not_act():
    text = render_markdown(with_text(HOSTILE, 2).comparison)
    rest = text.removeprefix(MARKER)
    assert "<" not in rest
    assert not re.search(r"(?<!\\)`", rest)
    assert "](" not in rest.replace("\\](", "")
    assert "@someone" not in rest
    assert not re.search(r"#\d", rest)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\x1b]", rest)
    assert not [line for line in rest.splitlines() if line.startswith("::")]


def test_a_small_limit_leaves_rows_out_and_says_so():
    text = render_markdown(with_text("a sentence of some words", 40).comparison, 3000)
    assert len(text) <= 3000
    assert "left out, for lack of room" in text


def test_room_goes_to_shares_first_and_then_to_the_earlier_sections():
    greedy = Section("h", ("x" * 100,) * 50, "rows", 0.5)
    modest = Section("h", ("y" * 100,) * 50, "rows", 0.3)
    first, second = fit([greedy, modest], 3000)
    assert second * 100 + 81 <= 0.3 * 3000
    assert second >= 7
    assert first * 100 + second * 100 + 162 <= 3000
    assert first == 28 - second


def test_null_values_are_written_as_null():
    assert "| log/loss | 3 | null | 0.25 |" in render_markdown(every_word())


def test_the_place_is_said_once():
    made = make(only("grpo", gradients=lambda g: 2 * g))
    place = Place(tasks=("grpo",), methods=("full",), kinds=(), sentence="GRPO only: gradients")
    sentence = f"Changed from A to B: {place.sentence}."
    update = {"place": place, "sentence": sentence}
    text = render_markdown(made.comparison.model_copy(update=update))
    assert text.count("GRPO only: gradients") == 1
