"""The figures: one definition, static and living, with text that stays text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from harness.chart_parts import arm_color, arm_dash, on_paper, to_svg
from harness.charts import curves_spec, memory_spec
from harness.palette import ARM_COLORS, DARK, FAINT, GRID, INK, PAPER
from harness.series import learning_curves
from harness.traces import memory_trace
from tests.study_factory import HOSTILE, Plan, build_study

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def study():
    return build_study(Plan(arms=3))


@pytest.fixture(scope="module")
def curves(study):
    return learning_curves(study, "grpo-micro")


@pytest.fixture(scope="module")
def trace(study):
    return memory_trace(study, "grpo-micro")


ARMS = ["full", "lora-r1", "lora-r8"]


def words(svg):
    return [e.text for e in ET.fromstring(svg).iter(f"{SVG}text")]


def test_curves_show_arms_axis_and_unit(curves):
    shown = words(to_svg(curves_spec(curves, ARMS, has_hover=False), "curves", "c"))
    assert {*ARMS, "train reward", "optimizer step", "held-out test"} <= set(shown)


def test_memory_names_the_lens_the_phases_and_the_peaks(trace):
    shown = words(to_svg(memory_spec(trace, ARMS, has_hover=False), "memory", "m"))
    assert "growth of process-tree RSS, MiB" in shown
    assert {*ARMS, "load", "train + generate"} <= set(shown)
    assert sum(w.startswith("peak ") for w in shown) == 3


def test_the_living_chart_adds_hovering_and_nothing_else(curves, trace):
    for spec_of, values in ((curves_spec, curves), (memory_spec, trace)):
        still = spec_of(values, ARMS, has_hover=False)
        living = spec_of(values, ARMS, has_hover=True)
        assert len(living["layer"]) == len(still["layer"]) + 1
        assert "params" in living
        assert "params" not in still


def test_rows_that_layers_share_are_written_once(trace):
    spec = memory_spec(trace, ARMS, has_hover=True)
    assert len(json.dumps(spec)) < 120_000


def test_an_svg_has_a_name_and_ids_of_its_own(curves):
    svg = to_svg(curves_spec(curves, ARMS, has_hover=False), 'a "name" <b>', "grpo")
    root = ET.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", 'a "name" <b>')
    assert all(i.startswith("grpo-") for i in re.findall(r'\bid="([^"]+)"', svg))
    assert "style=" not in svg  # the page's policy would refuse it


def test_text_in_data_is_text_in_the_picture(curves, trace):
    """Arm names are checked when a matrix is read; the picture doesn't rely on it."""
    name = HOSTILE.replace("\x1b", "").replace("\u2028", "")
    line = tuple(replace(p, arm=name) for p in curves.line if p.arm == "full")
    hostile = replace(curves, line=line, held_out=())
    svg = to_svg(curves_spec(hostile, [name], has_hover=False), name, "c")
    assert "<script" not in svg
    assert any("<script>alert(1)</script>" in (w or "") for w in words(svg))
    slices = tuple(replace(p, arm=name) for p in trace.slices if p.arm == "full")
    spans = tuple(replace(s, arm=name) for s in trace.spans if s.arm == "full")
    watched = replace(trace, seeds=((name, 0),), slices=slices, spans=spans, peaks=())
    assert "<script" not in to_svg(memory_spec(watched, [name], has_hover=False), name, "m")


def test_every_colour_that_is_not_a_phase_has_one_for_the_dark():
    assert set(DARK) == {INK, FAINT, GRID, PAPER, *ARM_COLORS}


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [INK, *ARM_COLORS])
def test_written_colours_stand_out_in_both_themes(color):
    """WCAG AA: 4.5 to 1 for text; arm names are written in their colour."""
    for ink, paper in ((color, PAPER), (DARK[color], DARK[PAPER])):
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_on_paper_adds_a_background(curves):
    svg = to_svg(curves_spec(curves, ARMS, has_hover=False), "x", "c")
    first = next(iter(ET.fromstring(on_paper(svg))))
    assert (first.tag, first.get("fill")) == (f"{SVG}rect", PAPER)


def test_the_names_of_many_arms_go_on_below_instead_of_widening_the_figure():
    few, many = ([f"lora-r{2**i}-long" for i in range(n)] for n in (3, 9))
    assert "columns" not in arm_color(few).to_dict()["legend"]
    assert arm_color(many).to_dict()["legend"]["columns"] == 2


def test_more_arms_than_colours_still_differ_in_colour_or_dash():
    arms = [f"a{i}" for i in range(9)]
    colors = arm_color(arms).to_dict()["scale"]["range"]
    dashes = arm_dash(arms).to_dict()["scale"]["range"]
    assert len({(c, str(d)) for c, d in zip(colors, dashes, strict=True)}) == 9
