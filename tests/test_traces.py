"""The numbers under the memory figure."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.charts import memory_spec
from harness.lenses import innermost_spans
from harness.memory_tables import memory_table
from harness.record import Generation
from harness.report import memory_caption
from harness.samples import PhaseRow
from harness.traces import ALTERNATING, SLICES, extremes, memory_trace
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


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**12)), min_size=1, max_size=200),
    st.integers(1, 40),
)
def test_every_slice_keeps_its_own_lowest_and_highest(rows, slices):
    times = [sum(gap for gap, _ in rows[: i + 1]) for i in range(len(rows))]
    values = [float(value) for _, value in rows]
    length = times[-1] - times[0] + 1
    bins = {}
    for t, value in zip(times, values, strict=True):
        bins.setdefault((t - times[0]) * slices // length, []).append(value)
    found = extremes(pd.Series(values, index=times), slices)
    assert [(low, high) for _, low, high in found] == [(min(b), max(b)) for b in bins.values()]


def test_one_sample_of_a_spike_in_ten_minutes_is_drawn():
    """At 50 Hz a spike of 20 ms is one sample of 30,000; the figure has 160 slices."""
    study = build_study(Plan(seeds=(0,)))
    run = study.runs[0]
    memory = pd.DataFrame(
        {
            "t_ns": [run.phases[0].begin_ns + i * 20_000_000 for i in range(30_000)],
            "device": "host",
            "rss_bytes": [2**30 + (2**33 if i == 17_777 else 0) for i in range(30_000)],
        }
    )
    begin = run.phases[0].begin_ns
    phases = (PhaseRow(phase="train", begin_ns=begin, end_ns=begin + 600 * 10**9),)
    ours = replace(run, memory=memory, phases=phases)
    again = replace(study, runs=tuple(ours if r is run else r for r in study.runs))
    trace = memory_trace(again, run.planned.pair)
    floor = run.summary.baseline_bytes["rss"]
    drawn = memory_spec(trace, ["full", "lora-r32"], has_hover=False)
    values = [row for rows in drawn["datasets"].values() for row in rows if "high_bytes" in row]
    assert len(values) <= 2 * SLICES
    highest = max(row["high_bytes"] for row in values)
    assert highest == pytest.approx(2**30 + 2**33 - floor, rel=1e-5)
    assert [row["t_s"] for row in values if row["high_bytes"] == highest] == [355.54]


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


def with_pool(study, arm, device="cpu", asked=None, **generation):
    """The study as if an arm's completions had been sampled by a vLLM beside its trainer."""
    made = Generation(engine="vllm", version="0.31.0", mode="colocate", **generation)
    runs = []
    for run in study.runs:
        if run.planned.arm == arm and run.planned.pair == "grpo-micro":
            update = {"generation": made, "device": device}
            result = run.record.result.model_copy(update=update)
            asks = {"vllm_gpu_memory_utilization": asked} if asked is not None else {}
            spec = run.spec.model_copy(update={"trainer": {**run.spec.trainer, **asks}})
            arguments = {**run.resolved_config["arguments"], "vllm_gpu_memory_utilization": 0.3}
            run = replace(
                run,
                spec=spec,
                record=run.record.model_copy(update={"result": result}),
                resolved_config={**run.resolved_config, "arguments": arguments},
            )
        runs.append(run)
    return replace(study, runs=tuple(runs))


def test_a_pool_is_held_from_the_end_of_building_to_the_end():
    study = with_pool(build_study(), "lora-r1", pool_bytes=2**30)
    trace = memory_trace(study, "grpo-micro")
    (pool,) = trace.pools
    own = [s for s in trace.spans if s.arm == "lora-r1"]
    assert pool.begin_s == next(s.end_s for s in own if s.phase == "build")
    assert pool.end_s == own[-1].end_s
    assert (pool.arm, pool.bytes, pool.sleeps) == ("lora-r1", 2**30, False)
    assert memory_trace(study, "sft-micro").pools == ()


def test_an_engine_without_a_pool_here_has_no_band():
    assert memory_trace(with_pool(build_study(), "lora-r1"), "grpo-micro").pools == ()


@pytest.mark.parametrize(
    ("device", "asked", "shown"),
    [("cpu", None, None), ("cpu", 0.1, 0.1), ("GPU-0", None, 0.3), ("GPU-0", 0.5, 0.5)],
)
def test_the_share_that_was_asked_for_is_shown_where_the_pool_came_of_it(device, asked, shown):
    """On a CPU TRL's default of 0.3 is overruled by the harness."""
    study = with_pool(build_study(), "lora-r1", device, asked, pool_bytes=2**30)
    trace = memory_trace(study, "grpo-micro")
    assert trace.pools[0].asked == shown
    words = "vLLM pool, reserved" + (
        f" (vllm_gpu_memory_utilization {shown:g})" if shown is not None else ""
    )
    (row,) = [r for r in memory_table(study).rows if r[2].startswith("vLLM pool")]
    assert row[:3] == ("grpo-micro", "lora-r1", words)
    assert set(row[3:]) == {"\u2013", "1.00 GiB"}
    assert "Band: vLLM pool of lora-r1, 1.00 GiB reserved" in memory_caption(trace)


def test_memory_that_an_ended_worker_gives_back_is_not_shown():
    study = build_study()
    run = next(r for r in study.runs if r.planned.arm == "full" and r.planned.seed == 0)
    end = max(p.end_ns for p in run.phases)
    leaving = run.memory.tail(2).assign(t_ns=[end + 1, end + 2], rss_bytes=0)
    ended = replace(run, memory=pd.concat([run.memory, leaving]))
    again = replace(study, runs=tuple(ended if r is run else r for r in study.runs))
    pair = run.planned.pair
    assert memory_trace(again, pair).slices == memory_trace(study, pair).slices
