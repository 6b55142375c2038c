"""The numbers under the memory figure."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.record import PhaseRow
from harness.traces import ALTERNATING, SLICES, extremes, innermost_spans, memory_trace
from tests.study_factory import Plan, build_study


def row(phase, begin, end):
    return PhaseRow(phase=phase, begin_ns=begin, end_ns=end)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=400), st.integers(1, 50))
def test_thinning_loses_no_extreme(values, slices):
    series = pd.Series(values, index=[i * 50 for i in range(len(values))], dtype="float64")
    rows = extremes(series, slices)
    assert len(rows) <= slices
    assert max(high for _, _, high in rows) == max(values)
    assert min(low for _, low, _ in rows) == min(values)
    assert [t for t, _, _ in rows] == sorted(t for t, _, _ in rows)


def test_an_empty_slice_of_time_gives_no_row():
    series = pd.Series([1.0, 2.0], index=[0, 999])
    assert extremes(series, 10) == [(0, 1.0, 1.0), (999, 2.0, 2.0)]


def test_nested_phases_are_cut_into_innermost_stretches():
    phases = [row("generate", 20, 40), row("train", 10, 60), row("save", 70, 80)]
    assert innermost_spans(phases) == [
        ("train", 10, 20),
        ("generate", 20, 40),
        ("train", 40, 60),
        ("save", 70, 80),
    ]


def test_rss_is_shown_as_growth_above_the_reading_before_loading():
    study = build_study()
    trace = memory_trace(study, "sft-micro")
    assert (trace.lens, trace.is_growth) == ("rss", True)
    assert trace.seeds == (("full", 0), ("lora-r32", 0))
    run = study.runs[0]
    peak = next(p for p in trace.peaks if p.arm == "full")
    assert peak.bytes == pytest.approx(run.summary.growth("rss"))
    assert trace.slices[0].t_s == pytest.approx(0.0, abs=0.3)
    assert len(trace.slices) <= 2 * SLICES


def test_device_memory_is_preferred_and_shown_as_it_is():
    study = build_study(Plan(has_gpu=True))
    trace = memory_trace(study, "sft-micro")
    assert (trace.lens, trace.is_growth) == ("nvml-device", False)
    peak = next(p for p in trace.peaks if p.arm == "full")
    assert peak.bytes == study.runs[0].summary.peak_bytes["nvml-device"]["training"]


def test_the_seed_is_the_first_that_every_arm_finished():
    study = build_study(Plan(failures={"sft-micro.full.s0": "crashed"}))
    assert memory_trace(study, "sft-micro").seeds == (("full", 1), ("lora-r32", 1))


def test_steps_that_alternate_fast_are_one_stretch():
    trace = memory_trace(build_study(), "grpo-micro")
    names = [s.phase for s in trace.spans if s.arm == "full"]
    assert names == ["load", "build", "evaluate", ALTERNATING, "evaluate", "save"]


def test_without_samples_there_is_no_figure():
    failures = {f"sft-micro.{a}.s{s}": "missing" for a in ("full", "lora-r32") for s in range(3)}
    assert memory_trace(build_study(Plan(failures=failures)), "sft-micro") is None
