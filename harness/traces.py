"""The numbers under the page's second figure: memory over time of a pair's arms, with phases.

One seed an arm, the first that every arm finished. Long series are thinned so that no peak is lost.
For RSS the figure shows growth above the reading when the model was about to be loaded, the same
statistic that the arms are judged by. What this leaves out: how it looks (`charts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.device_notes import names_of
from harness.lenses import (
    SAMPLED,
    TRAINING_PHASES,
    Lens,
    assign_phases,
    device_series,
    innermost_spans,
    lens_series,
    load_begin,
)
from harness.samples import PhaseRow
from harness.series import is_ok
from harness.view import RunView, StudyView

SLICES = 160  # of time, per arm, at most; each gives its lowest and its highest sample
SAMPLES_PER_SLICE = 4  # fewer would draw the beat between sampling and steps, not the run
# More phase changes than this are a barcode, not a picture: training phases are drawn as one.
READABLE_SPANS = 60
ALTERNATING = "train + generate"
UTILIZATION = "vllm_gpu_memory_utilization"
LENSES: tuple[Lens, ...] = ("nvml-device", "nvml-process", "rss")


@dataclass(frozen=True)
class MemorySlice:
    """The lowest and highest sample in a slice of time, at the time of the highest.

    Time counts from the moment the model began to load.
    """

    arm: str
    t_s: float
    low_bytes: float
    high_bytes: float


@dataclass(frozen=True)
class MemoryPeak:
    """The highest sample of one arm in training."""

    arm: str
    t_s: float
    bytes: float


@dataclass(frozen=True)
class PhaseSpan:
    """A stretch of one run in which one phase was the innermost."""

    arm: str
    phase: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class MemoryPool:
    """What a vLLM in the worker holds for its key-value cache, from the end of building on.

    The lens reads it too, as part of the arm's line; of an engine that sleeps, while it generates alone.
    """

    arm: str
    begin_s: float
    end_s: float
    bytes: int
    asked: float | None  # vllm_gpu_memory_utilization, where the pool came of it
    sleeps: bool


@dataclass(frozen=True)
class MemoryTrace:
    """A pair's memory over time, arms overlaid, one lens, one seed an arm."""

    lens: Lens
    is_growth: bool  # above the reading when the model was about to be loaded
    seeds: tuple[tuple[str, int], ...]  # arm, seed
    slices: tuple[MemorySlice, ...]
    peaks: tuple[MemoryPeak, ...]
    spans: tuple[PhaseSpan, ...]
    pools: tuple[MemoryPool, ...] = ()
    devices: int = 1  # GPUs that the lens adds up
    names: tuple[str, ...] = ()  # what these GPUs call themselves; none of RSS


def memory_trace(view: StudyView, pair: str) -> MemoryTrace | None:
    """Collect a pair's memory over time; None if no run has samples."""
    arms = list(view.matrix.pairs[pair].arms)
    good = [r for r in view.runs if r.planned.pair == pair and is_ok(r) and not r.memory.empty]
    chosen = _representatives(good, arms)
    for lens in LENSES:
        series = {a: lens_series(r.memory, SAMPLED[lens]) for a, r in chosen.items()}
        if series and all(len(s) for s in series.values()):
            break
    else:
        return None
    slices: list[MemorySlice] = []
    peaks: list[MemoryPeak] = []
    spans: list[PhaseSpan] = []
    for arm, run in chosen.items():
        shown, peak = _memory_of(arm, run, lens, series[arm])
        slices += shown
        peaks += peak
        spans += _spans_of(arm, run.phases, _origin_ns(run, series[arm]))
    return MemoryTrace(
        lens=lens,
        is_growth=lens == "rss",
        seeds=tuple((a, r.planned.seed) for a, r in chosen.items()),
        slices=tuple(slices),
        peaks=tuple(peaks),
        spans=tuple(spans),
        devices=max(len(device_series(r.memory, SAMPLED[lens])) for r in chosen.values()),
        names=() if lens == "rss" else names_of(chosen.values()),
        pools=tuple(p for arm, run in chosen.items() for p in _pool_of(arm, run, spans)),
    )


def extremes(series: pd.Series[float], slices: int) -> list[tuple[int, float, float]]:
    """Thin a series (index: ns) to the extremes of equal slices of time.

    Returns (time of the highest, lowest, highest), in time order; an empty slice gives no row.
    """
    times, values = series.index.to_numpy(), series.to_numpy()
    length = max(1, int(times[-1]) - int(times[0]) + 1)
    places = [(int(t) - int(times[0])) * slices // length for t in times]
    rows: list[tuple[int, float, float]] = []
    begin = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] != places[begin]:
            part = values[begin:end]
            highest = begin + int(part.argmax())
            rows.append((int(times[highest]), float(part.min()), float(part.max())))
            begin = end
    return rows


def _representatives(good: Sequence[RunView], arms: Sequence[str]) -> dict[str, RunView]:
    """Choose the first seed that every arm finished; failing that, the first of each arm."""
    present = {a: {r.planned.seed: r for r in good if r.planned.arm == a} for a in arms}
    present = {a: runs for a, runs in present.items() if runs}
    if not present:
        return {}
    shared = set.intersection(*(set(runs) for runs in present.values()))
    return {a: runs[min(shared or runs)] for a, runs in present.items()}


def _origin_ns(run: RunView, series: pd.Series[float]) -> int:
    begin_ns = load_begin(run.phases)
    return int(series.index[0]) if begin_ns is None else begin_ns


def _memory_of(
    arm: str, run: RunView, lens: Lens, series: pd.Series[float]
) -> tuple[list[MemorySlice], list[MemoryPeak]]:
    origin = _origin_ns(run, series)
    baseline = run.summary.baseline_bytes.get(lens) if run.summary else None
    floor = float(baseline or 0) if lens == "rss" else 0.0
    # Importing libraries before the model loads is the harness's time, not the arm's; after the last
    # phase the process gives its memory back.
    end = max((p.end_ns for p in run.phases), default=int(series.index[-1]))
    within = (series.index >= origin) & (series.index <= end)
    series = series[within] if within.any() else series
    slices = min(SLICES, max(1, len(series) // SAMPLES_PER_SLICE))
    shown = [
        MemorySlice(arm, (t - origin) / 1e9, low - floor, high - floor)
        for t, low, high in extremes(series, slices)
    ]
    labels = assign_phases(series.index, run.phases)
    training = series[[label in TRAINING_PHASES for label in labels]]
    if training.empty:
        return shown, []
    at = int(training.index.to_numpy()[int(training.to_numpy().argmax())])
    return shown, [MemoryPeak(arm, (at - origin) / 1e9, float(training.max()) - floor)]


def _spans_of(arm: str, phases: Sequence[PhaseRow], origin_ns: int) -> list[PhaseSpan]:
    flat = [s for s in innermost_spans(phases) if s[2] > origin_ns]
    if len(flat) > READABLE_SPANS:
        flat = _joined(flat)
    return [
        PhaseSpan(arm, name, max(0.0, (begin - origin_ns) / 1e9), (end - origin_ns) / 1e9)
        for name, begin, end in flat
    ]


def utilization_of(run: RunView) -> float | None:
    """Return the share of memory that a run gave its vLLM, None if the pool did not come of it.

    On a CPU that is so only where the matrix gives it: the harness has another default there.
    """
    result = run.record.result if run.record else None
    asked = (run.spec.trainer if run.spec else {}).get(UTILIZATION)
    if asked is None and result and result.device != "cpu":
        asked = run.resolved_config.get("arguments", {}).get(UTILIZATION)
    return float(asked) if isinstance(asked, int | float) else None


def _pool_of(arm: str, run: RunView, spans: Sequence[PhaseSpan]) -> list[MemoryPool]:
    generation = run.record.result.generation if run.record and run.record.result else None
    own = [s for s in spans if s.arm == arm]
    if generation is None or not generation.pool_bytes or not own:
        return []
    built = max((s.end_s for s in own if s.phase == "build"), default=own[0].begin_s)
    return [
        MemoryPool(
            arm=arm,
            begin_s=built,
            end_s=max(s.end_s for s in own),
            bytes=generation.pool_bytes,
            asked=utilization_of(run),
            sleeps=bool(generation.sleeps),
        )
    ]


def _joined(flat: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Draw the phases of training as one, across gaps too short to see."""
    alternates = len({name for name, _, _ in flat if name in TRAINING_PHASES}) > 1
    visible_ns = (flat[-1][2] - flat[0][1]) / 200
    joined: list[tuple[str, int, int]] = []
    for name, begin, end in flat:
        label = ALTERNATING if alternates and name in TRAINING_PHASES else name
        if joined and joined[-1][0] == label and begin - joined[-1][2] < visible_ns:
            joined[-1] = (label, joined[-1][1], end)
        else:
            joined.append((label, begin, end))
    return joined
