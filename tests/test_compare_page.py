"""The page of a comparison: all of it there, nothing from elsewhere, nothing that runs."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from harness.compare import outline
from harness.compare.drawings import SERIES_MAX, residuals, series_figures
from harness.compare.explain import explain
from harness.compare.model import (
    Acknowledged,
    Comparison,
    Control,
    Curve,
    Difference,
    Layer,
    Word,
)
from harness.compare.page import render_page, write_files
from harness.errors import MachineError
from tests.comparison_pages import HOSTILE, as_side, every_word, make, only, with_text
from tests.test_report import Page

EMPTY = as_side((), "TRL 1.16.0", {"trl": "1.16.0"})


def page_of(comparison, base=EMPTY, candidate=EMPTY):
    return Page(render_page(comparison, base, candidate).decode())


@pytest.fixture(scope="module")
def made():
    planted = make(only("grpo", gradients=lambda g: 2 * g), trl=("0.22.1", "0.22.2"))
    return explain(*planted.all), planted.base, planted.candidate


@pytest.fixture(scope="module")
def page(made):
    return page_of(*made)


def test_the_first_screen_has_sentence_word_and_reruns(made, page):
    assert made[0].sentence in page.text
    assert "A/A: 0 of 4 reruns differed." in page.text
    assert "2 changed, 2 same" in page.text
    for cause in made[0].causes:
        assert cause.what in page.text
    for notice in made[0].notices:
        assert notice in page.text


def test_every_word_stands_in_the_matrix_with_a_class_of_its_own():
    page = page_of(every_word())
    words = [a["class"] for a in page.all("span") if (a.get("class") or "").startswith("word ")]
    for word in get_args(Word):
        assert f"This one is {word}." in page.text or word == "same"
        assert f"word {word.replace(' ', '-')}" in words


def test_a_cell_that_differs_links_to_its_differences(page):
    links = {a["href"] for a in page.all("a") if (a.get("href") or "").startswith("#cell-")}
    targets = {"#" + (a.get("id") or "") for a in page.all("p")}
    assert links == {"#cell-2", "#cell-3"}
    assert links <= targets


def test_the_first_differing_step_has_both_values(page):
    assert "gradient/attention" in page.text
    assert "0.813" in page.text
    assert "1.626" in page.text


def test_every_link_inside_the_page_has_its_target(page):
    identities = {a.get("id") for _, a in page.elements}
    for each in page.all("a"):
        if each["href"].startswith("#"):
            assert each["href"][1:] in identities


def test_scripts_and_style_are_allowed_by_hash_alone(page):
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert len(re.findall("sha256-", policy)) == 3
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)


def test_a_page_without_figures_has_no_script():
    page = page_of(make().comparison)
    assert page.all("script") == []
    assert page.all("figure") == []
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert "script-src ;" in policy
    assert "Nothing changed, so nothing is to explain." in page.text


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")) or tag == "a"
    links = {a["href"] for a in page.all("a") if not a["href"].startswith(("#", "data:"))}
    assert links == {"comparison.json", "comparison.md", "junit.xml"}


def test_markup_from_outside_is_text_in_the_page():
    made = with_text(HOSTILE)
    page = page_of(*made.all)
    assert "<script>alert(1)</script> {{7*7}}" in page.text
    assert len(page.all("script")) == 3
    assert not any(a["href"].startswith("javascript") for a in page.all("a"))
    ours = render_page(*made.all).decode().partition("<script>")[0]  # then the charts' library
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", ours)
    charts = next(s for s in page.raw["script"] if s.startswith("{"))
    assert "<" not in charts
    json.loads(charts)


def test_a_comparison_of_nothing_has_a_page():
    comparison = Comparison(
        base="a", candidate="a", matrix_name="m", word="not comparable", sentence="No cell in common.",
        cells=(),
    )  # fmt: skip
    page = page_of(comparison)
    assert "No cell was compared." in page.text
    assert "nothing was trained twice" in page.text


def test_an_alarm_of_the_reruns_stands_on_the_first_screen():
    comparison = make(
        controls=(Control(compared=3, alarms=1, sentences=("grpo-plain.again lost a step.",)),)
    ).comparison
    assert "A/A: 1 of 3 reruns differed." in page_of(comparison).text
    assert "grpo-plain.again lost a step." in page_of(comparison).text


@pytest.mark.slow
def test_figures_are_drawn_for_a_handful_of_series_and_the_rest_is_named():
    comparison = with_text("loss", SERIES_MAX + 2).comparison
    figures, left = series_figures(comparison)
    assert len(figures) == 2 * SERIES_MAX
    assert left == [f"loss{n}.loss: loss" for n in (SERIES_MAX, SERIES_MAX + 1)]
    assert len({f.identity for f in figures}) == len(figures)


def test_a_residual_is_relative_to_the_larger_and_passes_over_what_is_missing():
    curve = Curve(what="x", base=(1.0, None, 0.0, 2.0), candidate=(1.0, 3.0, 0.0, 1.0, 5.0))
    assert [(p.step, p.value) for p in residuals(curve)] == [(1, 0.0), (3, 0.0), (4, -0.5)]


def test_sides_of_one_name_are_told_apart_in_the_figures():
    comparison = with_text("same").comparison
    figures, _ = series_figures(comparison)
    assert "same (base)" in figures[0].svg
    assert "same (candidate)" in figures[0].svg


def test_a_change_that_was_accepted_is_shown_with_its_reason():
    entry = Acknowledged(what="grpo-*", reason="as the notes say", version="trl 0.22.2")
    comparison = make(
        only("grpo", gradients=lambda g: 2 * g),
        accepted="as the notes say",
        acknowledged=(entry,),
    ).comparison
    page = page_of(comparison)
    assert page.text.count("as the notes say") == 3
    assert "trl 0.22.2" in page.text
    rows = outline.rows_of(comparison)
    assert [row.is_accepted for row in rows] == [True, True, False, False]


def test_a_cell_of_which_one_change_was_not_accepted_is_accepted_in_part():
    cell = make(only("sft", gradients=lambda g: 2 * g), accepted="r").comparison.cells[0]
    (known,) = cell.differences
    new = known.model_copy(update={"kind": "loss", "what": "log/loss", "accepted": None})
    comparison = every_word().model_copy(
        update={"cells": (cell.model_copy(update={"differences": (known, new)}),)}
    )
    assert not outline.rows_of(comparison)[0].is_accepted
    assert "in part acknowledged" in page_of(comparison).text


def test_the_gravest_cells_come_first():
    words = [row.cell.word for row in outline.rows_of(every_word())]
    assert words == [
        "changed", "undecided", "unsupported here", "not comparable", "rounding", "same",
    ]  # fmt: skip


def test_every_word_and_every_layer_has_its_meaning():
    assert set(outline.MEANINGS) == set(get_args(Word))
    assert set(outline.LAYERS) == set(get_args(Layer))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1.0, "1"),
        (-0.1234567891, "−0.123456789"),
        (float("nan"), "nan"),
        ("a\x1b[1mb", "ab"),
        ([1, None], "[1, null]"),
        ("x" * 200, "x" * 79 + "…"),
    ],
)
def test_a_value_is_written_so_that_it_can_be_told_from_another(value, shown):
    assert outline.show(value) == shown


def test_the_first_difference_is_the_earliest_of_the_gravest():
    def difference(word, step):
        return Difference(
            layer="exact", kind="loss", what=f"at {step}", word=word, step=step, sentence="s"
        )

    cell = every_word().cells[-1].model_copy(
        update={
            "differences": (
                difference("changed", 5), difference("changed", None), difference("rounding", 1),
                difference("changed", 3),
            )
        }
    )  # fmt: skip
    assert outline.first_difference(cell).step == 3


def test_missing_things_are_named_once():
    lost = Difference(
        layer="missing", kind="missing", what="run", word="changed", sentence="No run of s1."
    )
    cell = every_word().cells[-1].model_copy(update={"differences": (lost, lost)})
    comparison = every_word().model_copy(update={"cells": (cell,)})
    side = as_side((), "TRL 1", {}, unreadable=("steps.jsonl of r1",))
    assert outline.missing_sentences(comparison, (side,)) == [
        "pair-5.full: No run of s1.", "TRL 1, unreadable: steps.jsonl of r1",
    ]  # fmt: skip
    assert "No run of s1." in page_of(comparison).text


def test_every_file_is_written_and_the_data_comes_back(made, tmp_path):
    paths = write_files(tmp_path / "new" / "folder", *made)
    assert {p.name for p in paths} == {
        "comparison.json",
        "index.html",
        "comparison.md",
        "junit.xml",
    }
    assert Comparison.model_validate_json(paths[0].read_text()) == made[0]
    assert paths[1].read_bytes() == render_page(*made)


def test_a_folder_that_can_not_be_written_is_an_error_that_says_so(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="can't write"):
        write_files(tmp_path / "file", *made)
