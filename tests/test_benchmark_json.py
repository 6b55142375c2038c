"""A study as pytest-benchmark's JSON: its own tool reads it, and so do actions that know its fields."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from harness.benchmark_json import benchmark_json, describe
from harness.record import Status
from tests.gpu_study import GIB, Hardware, build_gpu_study
from tests.study_factory import Plan, build_study


@pytest.fixture(scope="module")
def view():
    return build_study(Plan(seeds=(0, 1), failures={"sft-micro.full.s1": "nan"}))


@pytest.fixture(scope="module")
def data(view) -> dict[str, Any]:
    content = benchmark_json(view)
    assert content is not None
    return json.loads(content)


def named(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(b for b in data["benchmarks"] if b["name"] == name)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_statistics_are_those_of_pytest_benchmark(seconds):
    theirs = Stats()
    for each in seconds:
        theirs.update(each)
    ours = describe(seconds)
    for name in Stats.fields:
        expected = getattr(theirs, name)
        if isinstance(expected, str):
            assert ours[name] == expected
        else:
            assert ours[name] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_benchmark_is_an_arm_with_the_steps_of_all_its_seeds(view, data):
    names = [b["name"] for b in data["benchmarks"]]
    assert names == [
        "sft-micro.full",
        "sft-micro.lora-r32",
        "grpo-micro.full",
        "grpo-micro.lora-r1",
    ]
    runs = [r for r in view.runs if (r.planned.pair, r.planned.arm) == ("sft-micro", "lora-r32")]
    warmup = view.matrix.warmup_steps_excluded
    seconds = [(s.end_ns - s.begin_ns) / 1e9 for r in runs for s in r.steps if s.step > warmup]
    found = named(data, "sft-micro.lora-r32")["stats"]
    assert found["rounds"] == len(seconds) == 2 * (60 - warmup)
    assert found["mean"] == pytest.approx(statistics.mean(seconds))


def test_a_run_that_failed_has_no_rounds_and_is_counted(view, data):
    extra = named(data, "sft-micro.full")["extra_info"]
    assert (extra["runs"], extra["runs_ok"], extra["seeds"]) == (2, 1, [0])
    assert view.runs[0].record.status is Status.OK


def test_what_seconds_do_not_say_stands_beside_them(view, data):
    extra = named(data, "grpo-micro.full")["extra_info"]
    runs = [r for r in view.runs if (r.planned.pair, r.planned.arm) == ("grpo-micro", "full")]
    finals = [r.summary.final_value for r in runs]
    assert extra["final_value"] == pytest.approx(statistics.mean(finals))
    assert extra["metric_unit"] == "reward"
    peaks = [r.summary.peak_bytes["rss"]["training"] for r in runs]
    assert extra["peak_training_bytes"] == {"rss": max(peaks)}
    rates = [r.summary.trained_tokens_per_s for r in runs]
    assert extra["trained_tokens_per_s"] == pytest.approx(statistics.mean(rates))


def test_memory_of_grade_d_is_left_out_and_counted():
    """Another process held 3 GiB beside one of two runs of an arm, and beside both of the other."""
    cells = ("sft-micro.full.s0", "sft-micro.lora-r32.s0", "sft-micro.lora-r32.s1")
    plan = Plan(arms=2, seeds=(0, 1))
    content = benchmark_json(build_gpu_study(Hardware(contaminated=cells), plan, ("sft",)))
    clean = benchmark_json(build_gpu_study(Hardware(), plan, ("sft",)))
    assert content is not None
    assert clean is not None
    full, lora = (b["extra_info"] for b in json.loads(content)["benchmarks"])
    expected, _ = (b["extra_info"] for b in json.loads(clean)["benchmarks"])
    assert expected["runs_graded_d"] == {}
    assert full["runs_graded_d"]["nvml-device"] == 1
    assert full["peak_training_bytes"] == expected["peak_training_bytes"]
    assert full["growth_training_bytes"] == expected["growth_training_bytes"]
    assert lora["runs_graded_d"]["nvml-device"] == lora["runs_ok"] == 2
    assert lora["peak_training_bytes"]["nvml-device"] is None
    assert lora["peak_training_bytes"]["torch-reserved"] == int(8.2 * GIB)


def extracted(data: dict[str, Any]) -> list[dict[str, Any]]:
    """What benchmark-action/github-action-benchmark takes for its tool 'pytest' (src/extract.ts)."""
    return [
        {
            "name": b["fullname"],
            "value": b["stats"]["ops"],
            "unit": "iter/sec",
            "range": f"stddev: {b['stats']['stddev']}",
            "extra": f"mean: {b['stats']['mean']}\nrounds: {b['stats']['rounds']}",
        }
        for b in data["benchmarks"]
    ]


def test_an_action_finds_a_name_of_its_own_and_a_rate_for_each_arm(data):
    results = extracted(data)
    assert len({r["name"] for r in results}) == len(results) == 4
    assert all(r["value"] > 0 for r in results)
    assert data["datetime"] == "2026-01-02T03:04:05Z"
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} == set(data)
    assert data["commit_info"]["id"] == "unversioned"


def test_nothing_names_a_host_or_a_path():
    view = build_study(Plan(seeds=(0,)))
    environment = {
        "platform": {"cpu_model": "CPU \x1b[31mred", "node": "a-host-name", "system": "Linux"},
        "packages": {"trl": "1.16.0 at /home/someone/trl", "torch": None},
        "harness": {"commit": "c" * 40, "is_dirty": True},
        "python": "CPython 3.11.7",
    }
    runs = tuple(dataclasses.replace(run, environment=environment) for run in view.runs)
    content = benchmark_json(dataclasses.replace(view, runs=runs))
    assert content is not None
    data = json.loads(content)
    assert data["machine_info"]["processor"] == "CPU red"
    assert data["machine_info"]["python_version"] == "3.11.7"
    assert data["benchmarks"][0]["extra_info"]["versions"] == {"trl": "1.16.0 at .../trl"}
    assert (data["commit_info"]["id"], data["commit_info"]["dirty"]) == ("c" * 40, True)
    assert b"a-host-name" not in content


def test_a_study_without_a_step_that_counts_has_no_benchmarks():
    cells = [f"{p}.{a}.s0" for p, a in (("sft-micro", "full"), ("sft-micro", "lora-r32"))]
    cells += ["grpo-micro.full.s0", "grpo-micro.lora-r1.s0"]
    assert (
        benchmark_json(build_study(Plan(seeds=(0,), failures=dict.fromkeys(cells, "missing"))))
        is None
    )


def test_pytest_benchmark_compares_two_studies(data, view, tmp_path: Path):
    slower = json.loads(json.dumps(data))
    for benchmark in slower["benchmarks"]:
        rounds = [2 * second for second in benchmark["stats"]["data"]]
        benchmark["stats"] = describe(rounds)
    for name, content in (("before.json", data), ("after.json", slower)):
        (tmp_path / name).write_text(json.dumps(content))
    words = ["compare", "before.json", "after.json", "--group-by", "name", "--csv", "table.csv"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for benchmark in data["benchmarks"]:
        assert f"benchmark '{benchmark['name']}': 2 tests" in done.stdout
    assert "(2.00)" in done.stdout
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 9
