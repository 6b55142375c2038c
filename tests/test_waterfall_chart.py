"""The figure of what peaks are made of."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from harness.chart_parts import to_svg
from harness.palette import PART_COLORS
from harness.waterfall import PARTS, Part, Waterfall
from harness.waterfall_chart import is_worth_drawing, peak_caption, peak_spec, peak_title, peaks_of
from tests.gpu_study import Hardware, build_gpu_study
from tests.study_factory import Plan, build_study

GIB = 2**30
SVG = "{http://www.w3.org/2000/svg}"
SHOWN = {
    "full": Waterfall(
        lens="nvml-device",
        total_bytes=20 * GIB,
        parts=(Part(name="weights", bytes=12 * GIB), Part(name=PARTS[-1], bytes=8 * GIB)),
    ),
    "lora": Waterfall(
        lens="nvml-device",
        total_bytes=13 * GIB,
        parts=(Part(name="weights", bytes=12 * GIB), Part(name=PARTS[-1], bytes=GIB)),
    ),
}


def test_bars_lie_end_to_end_and_end_at_the_total():
    spec = peak_spec(SHOWN, has_hover=True)
    bars = spec["layer"][0]
    rows = spec["datasets"][bars["data"]["name"]]
    assert [(r["arm"], r["begin"], r["end"]) for r in rows] == [
        ("full", 0, 12), ("full", 12, 20), ("lora", 0, 12), ("lora", 12, 13),
    ]  # fmt: skip
    assert bars["encoding"]["x"]["title"] == "peak NVML device memory, GiB"
    assert "tooltip" in bars["encoding"]
    assert "tooltip" not in peak_spec(SHOWN, has_hover=False)["layer"][0]["encoding"]


def test_a_size_is_written_where_it_has_room_and_the_total_always():
    svg = ET.fromstring(to_svg(peak_spec(SHOWN, has_hover=False), "peaks", "p"))
    words = [e.text for e in svg.iter(f"{SVG}text")]
    assert words.count("12.00 GiB") == 2
    assert {"8.00 GiB", "20.00 GiB", "13.00 GiB", "weights"} <= set(words)
    assert "1.00 GiB" not in words


def test_every_part_has_a_colour_of_its_own():
    assert set(PART_COLORS) == set(PARTS)
    assert len(set(PART_COLORS.values())) == len(PARTS)


@pytest.mark.parametrize(
    ("gpus", "where"), [(1, "Peak NVML device memory in training"), (2, "GPU")]
)
def test_the_caption_names_lens_seed_and_what_was_counted(gpus, where):
    study = build_gpu_study(Hardware(gpus=gpus), Plan(arms=2, seeds=(7,)), ("sft",))
    seeds = (("full", 7), ("lora-r32", 7))
    shown = peaks_of(study, "sft-micro", seeds)
    said = peak_caption(shown, seeds)
    assert list(shown) == ["full", "lora-r32"]
    assert where in said
    assert ", seed 7." in said
    assert "no lens tells them apart" in said
    assert ("first process's GPU" in said) == (gpus == 2)


def test_on_a_cpu_the_figure_is_of_growth():
    study = build_study(Plan(arms=2, seeds=(0,)))
    shown = peaks_of(study, "sft-micro", (("full", 0), ("lora-r32", 0), ("gone", 0)))
    assert peak_title(shown) == "peak growth of process-tree RSS"
    assert "NVML" not in peak_caption(shown, (("full", 0),))
    assert is_worth_drawing(shown)
    whole = Waterfall(lens="rss", total_bytes=5, parts=(Part(name=PARTS[-1], bytes=5),))
    assert not is_worth_drawing({"full": whole})
    assert not is_worth_drawing({})


def test_the_caption_tells_of_no_part_that_is_not_there():
    said = peak_caption(SHOWN, (("full", 0), ("lora", 0)))
    assert "torch reserved" not in said
    assert "context, libraries and fragmentation are part of the rest" in said
    assert "vLLM" not in said
    pooled = Waterfall(
        lens="nvml-device",
        total_bytes=3 * GIB,
        parts=(Part(name="vLLM pool", bytes=GIB), Part(name=PARTS[-1], bytes=2 * GIB)),
    )
    assert "vLLM pool: what the engine reserves" in peak_caption({"full": pooled}, (("full", 0),))
