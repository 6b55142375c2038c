"""A study as pytest-benchmark's JSON: `pytest-benchmark compare` and common CI actions read it.

A benchmark is an arm of a pair; its rounds are the seconds of the training steps of all its seeds that
ended ok, warm-up left out. Steps are fit to compare speed on one machine, and no samples of anything else:
what an arm came to, and its memory, stand in `extra_info`, a number a seed. Memory that a lens measured
with grade D is left out there, and how many runs that were is said. Nothing names a host or a path.

Source: pytest-benchmark 5.3.1, whose quartiles and outliers these are (`stats.py`).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from harness import text
from harness.provenance import environment_of, shareable
from harness.record import Status
from harness.summary import RunSummary
from harness.trust import is_graded_d
from harness.view import RunView, StudyView

VERSION = "5.3.1"  # of the plugin whose format this is
METRIC_UNITS = {"nll": "nats per completion token", "reward": "reward"}
_FENCE = 1.5  # interquartile ranges


def benchmark_json(view: StudyView) -> bytes | None:
    """Write a study's step times; None if no run has any.

    Raises: ValueError if a number is not finite; a record can't hold one.
    """
    environment = next((e for e in map(environment_of, view.runs) if e), {})
    benchmarks = [_benchmark(view, arm) for arm in _arms(view)]
    measured = [benchmark for benchmark in benchmarks if benchmark is not None]
    if not measured:
        return None
    data = {
        "machine_info": _machine(environment),
        "commit_info": _commit(environment),
        "benchmarks": measured,
        "datetime": view.study.created_utc,
        "version": VERSION,
    }
    return (json.dumps(shareable(data), allow_nan=False, indent=1) + "\n").encode()


def describe(seconds: Sequence[float]) -> dict[str, Any]:
    """Describe one or more rounds by pytest-benchmark's names."""
    data = sorted(seconds)
    mean, q1, q3 = statistics.mean(data), *_quartiles(data)
    stddev = statistics.stdev(data) if len(data) > 1 else 0
    low, high = q1 - _FENCE * (q3 - q1), q3 + _FENCE * (q3 - q1)
    beyond_stddev = sum(not mean - stddev <= x <= mean + stddev for x in data)
    beyond_fence = sum(not low <= x <= high for x in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond_fence,
        "stddev_outliers": beyond_stddev,
        "outliers": f"{beyond_stddev};{beyond_fence}",
        "ld15iqr": next(x for x in data if x >= low),
        "hd15iqr": next(x for x in reversed(data) if x <= high),
        "ops": len(data) / sum(data),
        "total": sum(data),
        "data": list(seconds),
        "iterations": 1,
    }


def _arms(view: StudyView) -> list[list[RunView]]:
    """The runs of each arm, in the order of the matrix."""
    order = [(pair, arm) for pair, each in view.matrix.pairs.items() for arm in each.arms]
    runs = sorted(view.runs, key=lambda run: order.index(_place(run)))
    return [list(found) for _, found in groupby(runs, key=_place)]


def _place(run: RunView) -> tuple[str, str]:
    return run.planned.pair, run.planned.arm


def _benchmark(view: StudyView, runs: list[RunView]) -> dict[str, Any] | None:
    """One arm; None if none of its runs has a step that counts."""
    ok = [run for run in runs if run.record is not None and run.record.status is Status.OK]
    warmup = view.matrix.warmup_steps_excluded
    seconds = [
        (step.end_ns - step.begin_ns) / 1e9
        for run in ok
        for step in run.steps
        if step.step > warmup and step.end_ns > step.begin_ns
    ]
    if not seconds:
        return None
    pair, arm = _place(runs[0])
    return {
        "group": pair,
        "name": f"{pair}.{arm}",
        "fullname": f"{view.study.matrix_name}::{pair}.{arm}",
        "params": None,
        "param": None,
        "extra_info": _extra(view, runs, ok),
        "options": {
            "disable_gc": False,
            "timer": "monotonic_ns",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": warmup > 0,
        },
        "stats": describe(seconds),
    }


def _extra(view: StudyView, runs: list[RunView], ok: list[RunView]) -> dict[str, Any]:
    """What a step's seconds don't say: throughput, memory, quality, and what it was made of."""
    pair, arm = _place(runs[0])
    by_seed = {run.planned.seed: run.summary for run in ok if run.summary}
    metric = next((summary.metric for summary in by_seed.values()), None)
    final = {seed: summary.final_value for seed, summary in by_seed.items()}
    lenses = sorted({lens for summary in by_seed.values() for lens in summary.peak_bytes})
    trusted = {lens: [s for s in by_seed.values() if not is_graded_d(s, lens)] for lens in lenses}
    poor = {lens: len(by_seed) - len(good) for lens, good in trusted.items()}
    return {
        "matrix": view.study.matrix_name,
        "matrix_hash": view.study.matrix_hash,
        "harness_version": view.study.harness_version,
        "task": view.matrix.pairs[pair].task,
        "method": view.matrix.pairs[pair].arms[arm].method,
        "runs": len(runs),
        "runs_ok": len(ok),
        "seeds": list(by_seed),
        "warmup_steps_excluded": view.matrix.warmup_steps_excluded,
        "trained_tokens_per_s": _mean([s.trained_tokens_per_s for s in by_seed.values()]),
        "peak_training_bytes": {
            lens: _most([_training_peak(s, lens) for s in good]) for lens, good in trusted.items()
        },
        "growth_training_bytes": {
            lens: _most([s.growth(lens) for s in good]) for lens, good in trusted.items()
        },
        "runs_graded_d": {lens: runs for lens, runs in poor.items() if runs},
        "metric": metric,
        "metric_unit": METRIC_UNITS[metric] if metric else None,
        "final_value": _mean(list(final.values())),
        "final_value_by_seed": {str(seed): value for seed, value in final.items()},
        "versions": _versions(ok),
    }


def _training_peak(summary: RunSummary, lens: str) -> int | None:
    return summary.peak_bytes.get(lens, {}).get("training")


def _versions(runs: list[RunView]) -> dict[str, str]:
    """The releases of an arm's runs; where they differ, all of them."""
    found: dict[str, list[str]] = {}
    for run in runs:
        packages = run.environment.get("packages") or {}
        for name, version in packages.items():
            if version is not None and version not in found.setdefault(name, []):
                found[name].append(str(version))
    return {name: ", ".join(versions) for name, versions in sorted(found.items()) if versions}


def _machine(environment: dict[str, Any]) -> dict[str, Any]:
    """The machine by pytest-benchmark's names; who owns it is nobody's business."""
    platform = environment.get("platform") or {}
    python = str(environment.get("python") or "")
    implementation, _, version = python.partition(" ")
    return {
        "processor": platform.get("cpu_model") or "",
        "machine": platform.get("machine") or "",
        "python_implementation": implementation,
        "python_version": version,
        "release": platform.get("kernel") or "",
        "system": platform.get("system") or "",
        "cpu": {
            "brand_raw": platform.get("cpu_model") or "",
            "count": platform.get("cpu_cores_logical"),
        },
        "gpus": [text.clean(gpu.get("name")) for gpu in environment.get("gpus") or []],
    }


def _commit(environment: dict[str, Any]) -> dict[str, Any]:
    tree = environment.get("harness") or {}
    return {
        "id": tree.get("commit") or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(tree.get("is_dirty")),
        "project": "lora-harness",
        "branch": "(unknown)",
    }


def _quartiles(data: Sequence[float]) -> tuple[float, float]:
    """The quartiles of sorted values, as pytest-benchmark takes them."""
    n, odd = divmod(len(data), 4)
    if len(data) == 1:
        return data[0], data[0]
    if len(data) % 2 == 0:
        half = len(data) // 2
        return statistics.median(data[:half]), statistics.median(data[half:])
    if odd == 1:
        return 0.25 * data[n - 1] + 0.75 * data[n], 0.75 * data[3 * n] + 0.25 * data[3 * n + 1]
    return (
        0.75 * data[n] + 0.25 * data[n + 1],
        0.25 * data[3 * n + 1] + 0.75 * data[3 * n + 2],
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean over seeds; None if one of them has no value."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _most(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
