"""The band that a vLLM pool makes in a memory figure, its label and its sentence."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from harness.chart_parts import to_svg
from harness.charts import memory_spec
from harness.pool_band import pool_label, pool_sentence
from harness.traces import MemoryPool, MemorySlice, MemoryTrace, PhaseSpan

SVG = "{http://www.w3.org/2000/svg}"
GIB = 2**30
ARMS = ["full", "lora-r1"]
TRACE = MemoryTrace(
    lens="nvml-device",
    is_growth=False,
    seeds=(("full", 0), ("lora-r1", 0)),
    slices=tuple(
        MemorySlice(arm, float(t), 30.0 * GIB, 40.0 * GIB) for arm in ARMS for t in range(9)
    ),
    peaks=(),
    spans=tuple(PhaseSpan(arm, "train", 2.0, 8.0) for arm in ARMS),
)


def pool(arm, gib, asked=None, sleeps=False):
    return MemoryPool(arm, 2.0, 8.0, int(gib * GIB), asked, sleeps)


def drawn(trace):
    svg = ET.fromstring(to_svg(memory_spec(trace, ARMS, has_hover=False), "memory", "m"))
    return svg, [e.text for e in svg.iter(f"{SVG}text")]


def test_a_figure_without_a_pool_is_as_it_was():
    with_it = memory_spec(replace(TRACE, pools=(pool("full", 1),)), ARMS, has_hover=False)
    without = memory_spec(TRACE, ARMS, has_hover=False)
    assert len(with_it["layer"]) == len(without["layer"]) + 3
    assert pool_sentence(TRACE) == ""


def test_the_band_reaches_from_zero_to_the_pool_over_its_time():
    spec = memory_spec(replace(TRACE, pools=(pool("full", 20),)), ARMS, has_hover=False)
    band = spec["layer"][0]
    assert band["mark"]["type"] == "rect"
    (row,) = spec["datasets"][band["data"]["name"]]
    assert (row["zero"], row["amount"], row["begin_s"], row["end_s"]) == (0, 20.0, 2.0, 8.0)
    assert (row["arm"], row["bytes"]) == ("full", 20 * GIB)
    y = band["encoding"]["y"]
    assert (y["field"], band["encoding"]["y2"]["field"]) == ("amount", "zero")
    assert y["title"].endswith("GiB")


def test_the_picture_names_the_pool():
    _, words = drawn(replace(TRACE, pools=(pool("lora-r1", 20),)))
    assert "vLLM pool of lora-r1, 20.00 GiB reserved" in words


@pytest.mark.parametrize(
    ("pools", "label"),
    [
        ((pool("full", 20), pool("lora-r1", 20)), "vLLM pool, 20.00 GiB reserved"),
        ((pool("full", 20),), "vLLM pool of full, 20.00 GiB reserved"),
        (
            (pool("full", 20), pool("lora-r1", 20.3)),
            "vLLM pools reserved: full 20.00 GiB, lora-r1 20.30 GiB",
        ),
    ],
)
def test_one_label_names_all_pools(pools, label):
    trace = replace(TRACE, pools=pools)
    assert pool_label(trace) == label
    assert drawn(trace)[1].count(label) == 1


def test_the_caption_gives_the_share_that_was_asked_for():
    both = (pool("full", 20, 0.3), pool("lora-r1", 20, 0.3))
    said = pool_sentence(replace(TRACE, pools=both))
    assert said.startswith(" Band: vLLM pool, 20.00 GiB reserved")
    assert said.endswith("(vllm_gpu_memory_utilization 0.3).")
    apart = (pool("full", 20, 0.3), pool("lora-r1", 25, 0.4))
    assert "full 0.3, lora-r1 0.4" in pool_sentence(replace(TRACE, pools=apart))
    unknown = pool_sentence(replace(TRACE, pools=(pool("full", 1),)))
    assert "utilization" not in unknown


def test_a_pool_that_sleeps_is_said_to():
    said = pool_sentence(replace(TRACE, pools=(pool("full", 20, sleeps=True),)))
    assert said.endswith(
        "part of the arm's line only while it generates: in sleep mode it is freed between generations."
    )
    awake = pool_sentence(replace(TRACE, pools=(pool("full", 20),)))
    assert awake.endswith("for its key-value cache, part of the arm's line.")
    both = replace(TRACE, pools=(pool("full", 20), pool("lora-r1", 20, sleeps=True)))
    assert "part of the arm's line, for lora-r1 only while it generates" in pool_sentence(both)
