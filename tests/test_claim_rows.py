"""Claims as rows: drawings that stay inside their frame, seeds, parts, facts."""

from __future__ import annotations

import math

import pytest

from harness.claim_rows import (
    WIDTH,
    allowed_text,
    claim_rows,
    draw,
    interval_text,
    p_text,
    value_text,
)
from harness.verdicts.model import Effect
from tests.claims_study import claims_matrix, claims_plan, claims_study
from tests.study_factory import build_study


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in claim_rows(claims_study())}


def ratio(value, low=None, high=None, floor=None, ceiling=None):
    return Effect(
        name="x", unit="ratio", value=value, low=low, high=high, n=3, floor=floor, ceiling=ceiling
    )


def test_controls_come_last_and_say_so(rows):
    assert [row.is_control for row in rows.values()] == [False] * 10 + [True] * 2
    assert rows["control-starved"].role == "positive control"


def test_every_drawing_stays_inside_its_frame_and_in_order(rows):
    drawn = [row.drawing for row in rows.values() if row.drawing]
    assert len(drawn) == len(rows)
    for d in drawn:
        places = (d.value, d.low, d.high, d.reference, d.floor, d.ceiling)
        assert all(0 <= place <= WIDTH for place in places if place is not None)
        if d.low is not None:
            assert d.low <= d.value <= d.high
        if d.floor is not None and d.ceiling is not None:
            assert d.floor < d.ceiling


def test_ratios_are_drawn_on_a_logarithmic_axis():
    d = draw(ratio(1.0, 0.5, 2.0, 0.25, 4.0))
    assert d.value == d.reference == pytest.approx(WIDTH / 2, abs=0.1)
    assert d.value - d.low == pytest.approx(d.high - d.value, abs=0.2)
    assert d.value - d.floor == pytest.approx(2 * (d.value - d.low), abs=0.2)


def test_a_range_beside_one_does_not_squeeze_in_the_one():
    assert draw(ratio(10.0, 9.0, 11.0, 5.0, 20.0)).reference is None
    assert draw(ratio(0.6, 0.5, 0.7, None, 1.0)).reference is not None


def test_nothing_to_draw_draws_nothing():
    assert draw(ratio(None)) is None
    assert draw(ratio(0.0)) is None
    assert draw(ratio(0.5)).low is None
    assert math.isfinite(draw(ratio(1.0)).value)


def test_labels_never_lie_over_each_other():
    effect = Effect(name="x", unit="reward", value=1.0, low=0.5, high=1.5, n=3, ceiling=0.001)
    assert [label.words for label in draw(effect).labels] == ["0.001"]


def test_numbers_are_written_in_the_way_of_their_effect():
    effect = Effect(name="x", unit="reward", value=-0.01, low=-0.02, high=0.001, n=3, ceiling=0.02)
    assert value_text(effect, effect.value) == "\u22120.010"
    assert interval_text(effect) == "\u22120.020 to +0.001"
    assert allowed_text(effect) == "below 0.02"
    assert allowed_text(ratio(1.0, floor=5.0, ceiling=20.0)) == "5 to 20"
    assert value_text(ratio(0.592), 0.592) == "0.592"
    assert [p_text(p) for p in (None, 0.0123, 1e-7)] == ["\u2013", "0.012", "< 0.0001"]


def test_a_row_has_parts_with_their_seeds_and_facts(rows):
    row = rows["layers"]
    assert [cells[0].split(", ")[1] for cells in row.parts.rows] == [
        "lora-attn minus lora-mlp",
        "lora-attn minus lora-all",
        "lora-mlp minus lora-all",
    ]
    assert row.parts.rows[0][-1].startswith("0: +0.0")
    facts = dict(row.facts)
    assert facts["Speaks for"] == "a micro model on synthetic steps"
    assert facts["What it allows"].endswith("a tenth of what training gains")
    assert facts["In the blog"] == "Results"
    assert rows["compute"].seeds == "counted"
    assert rows["rates"].seeds == "3"


def test_a_study_without_claims_has_no_rows():
    assert claim_rows(build_study()) == []


@pytest.mark.slow
def test_claims_without_a_single_run_have_rows_all_the_same():
    bare = claims_study(claims_plan(), claims_matrix())
    bare = type(bare)(name="cpu", study=bare.study, matrix=bare.matrix, runs=())
    rows = claim_rows(bare)
    assert len(rows) == 12
    assert {row.word for row in rows} == {"not tested"}
    assert {row.drawing for row in rows} == {None}
    assert {row.seeds for row in rows if row.name != "compute"} == {"none"}
