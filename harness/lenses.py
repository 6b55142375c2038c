"""Where memory is read, and when: names of lenses, one lens over time, the phase of an instant.

Lenses: `rss` (RSS of the worker's process tree), `nvml-device`, `nvml-above-idle` (the same above
what was in use before the worker had a context), `nvml-process`, `torch-reserved`,
`torch-allocated`. Phases nest: an instant belongs to the innermost one that spans it, so that a
generation within training is not read as training. What this leaves out: figures (`memory_figures`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.samples import DeviceSummary, PhaseRow

Lens = Literal[
    "rss", "nvml-device", "nvml-above-idle", "nvml-process", "torch-reserved", "torch-allocated"
]
RSS: Lens = "rss"
DEVICE: Lens = "nvml-device"
ABOVE_IDLE: Lens = "nvml-above-idle"
PROCESS: Lens = "nvml-process"
RESERVED: Lens = "torch-reserved"
ALLOCATED: Lens = "torch-allocated"
SAMPLED: dict[Lens, str] = {
    RSS: "rss_bytes",
    DEVICE: "nvml_device_bytes",
    PROCESS: "nvml_process_bytes",
}
COUNTED: dict[Lens, str] = {
    RESERVED: "torch_reserved_peak_bytes",
    ALLOCATED: "torch_allocated_peak_bytes",
}
LENS_NAMES: dict[Lens, str] = {
    RSS: "process-tree RSS",
    DEVICE: "NVML device memory",
    ABOVE_IDLE: "NVML device memory above idle",
    PROCESS: "NVML process memory",
    RESERVED: "torch reserved memory",
    ALLOCATED: "torch allocated memory",
}
# The lens a pair is judged by: the first of these that every compared run has (`judged_order`).
LENS_ORDER: tuple[Lens, ...] = (DEVICE, RESERVED, RSS)
HOST = "host"  # the device of rows that no GPU wrote
WHOLE_RUN, TRAINING = "run", "training"
# Phases in which training itself works, as against loading, evaluating and saving.
TRAINING_PHASES = ("train", "generate", "weight_sync")

Times = npt.NDArray[np.int64]


def judged_order(*, is_above_idle: bool) -> tuple[Lens, ...]:
    """Return the lenses that memory is judged by, in their order.

    is_above_idle: whether the device above idle stands for a compared run; then it does for all of them.
    """
    return (ABOVE_IDLE, *LENS_ORDER) if is_above_idle else LENS_ORDER


def lens_series(memory: pd.DataFrame, column: str) -> pd.Series[float]:
    """One lens as bytes over time (index: t_ns), GPUs summed as `summed` does; empty if unmeasured."""
    return summed(device_series(memory, column).values())


def device_series(memory: pd.DataFrame, column: str) -> dict[str, pd.Series[float]]:
    """One lens of each device that answered, in the order in which they first did."""
    times, values, devices = _present(memory, column)
    found = {}
    for device in dict.fromkeys(devices):
        own = devices == device
        index = pd.Index(times[own], name="t_ns")
        found[str(device)] = pd.Series(values[own], index=index, name=column).sort_index()
    return found


def load_begin(phases: Sequence[PhaseRow]) -> int | None:
    """Return when the model began to be loaded, in ns; None if it never was."""
    return next((row.begin_ns for row in phases if row.phase == "load"), None)


def idle_by_device(
    memory: pd.DataFrame,
    phases: Sequence[PhaseRow] = (),
    devices: Sequence[DeviceSummary] = (),
    column: str = SAMPLED[DEVICE],
) -> dict[str, int]:
    """Return what each GPU held before the run: the lowest reading until loading begins.

    The lowest, for what a process before it held is often freed only after the first samples. Where none
    was taken before loading it is what the sampler noted, else the first sample.
    """
    begin = load_begin(phases)
    found = {d.uuid: d.idle_bytes for d in devices if d.idle_bytes is not None}
    for device, series in device_series(memory, column).items():
        before = series[:0] if begin is None else series[series.index <= begin]
        if len(before):
            found[device] = min(int(before.min()), found.get(device, int(before.iloc[0])))
        else:
            found.setdefault(device, int(series.iloc[0]))
    return found


def process_series(memory: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """NVML process memory of each device: a list stands for as long as the device's figure stays the same.

    Lists are read when the device's memory has changed, else rarely: a figure that stood still would weigh
    less than one that moved.
    """
    column, device = SAMPLED[PROCESS], SAMPLED[DEVICE]
    if memory.empty or column not in memory or device not in memory:
        return device_series(memory, column)
    rows = memory.sort_values("t_ns", kind="stable")
    is_listed = rows[column].notna()
    beside = rows[device].fillna(-1).where(is_listed).groupby(rows["device"]).ffill()
    held = rows.groupby("device")[column].ffill().where(rows[device] == beside)
    return device_series(rows.assign(**{column: rows[column].where(is_listed, held)}), column)


def summed(series: Iterable[pd.Series[float]]) -> pd.Series[float]:
    """Add devices up, each with its last reading: lists of processes are not read of all at once.

    Before the first and after the last reading of any of them there is no sum: one that is silent would
    look like a fall of what is held.
    """
    parts = list(series)
    if not parts:
        return pd.Series(dtype="float64")
    if len(parts) == 1:
        return parts[0]
    apart = [part[~part.index.duplicated(keep="last")] for part in parts]
    held = pd.concat(apart, axis=1).sort_index().ffill()
    begin, end = max(part.index[0] for part in parts), min(part.index[-1] for part in parts)
    whole: pd.Series[float] = held[(held.index >= begin) & (held.index <= end)].sum(axis=1)
    return whole


def assign_phases(times_ns: Iterable[int], phases: Sequence[PhaseRow]) -> list[str | None]:
    """Name the innermost phase that spans each instant: the one that began last."""
    times = np.asarray(list(times_ns), dtype="int64")
    edges, at, after = _labels(phases)
    if not len(edges):
        return [None] * len(times)
    places = np.searchsorted(edges, times, side="right") - 1
    return [
        None if place < 0 else at[place] if edges[place] == t else after[place]
        for place, t in zip(places, times, strict=True)
    ]


def innermost_spans(phases: Sequence[PhaseRow]) -> list[tuple[str, int, int]]:
    """Flatten nested phases to (phase, begin_ns, end_ns), the innermost named, in time order."""
    edges, _, after = _labels(phases)
    flat: list[tuple[str, int, int]] = []
    for (begin, end), label in zip(pairwise(edges.tolist()), after[:-1], strict=True):
        if label is None:
            continue
        if flat and flat[-1][0] == label and flat[-1][2] == begin:
            flat[-1] = (label, flat[-1][1], end)
        else:
            flat.append((label, begin, end))
    return flat


def training_spans(phases: Sequence[PhaseRow]) -> list[tuple[int, int]]:
    """Return the stretches (begin_ns, end_ns) in which training itself worked, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for name, begin, end in innermost_spans(phases):
        if name not in TRAINING_PHASES:
            continue
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined


def passed_within(times_ns: Iterable[int], spans: Sequence[tuple[int, int]]) -> Times:
    """Return how much of some stretches, in ns, had passed at each instant; they lie in time order."""
    times = np.asarray(times_ns, dtype="int64")
    if not spans:
        return np.zeros(len(times), dtype="int64")
    begins, ends = (np.asarray(side, dtype="int64") for side in zip(*spans, strict=True))
    lengths = ends - begins
    whole = np.concatenate([[0], np.cumsum(lengths)])
    place = np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)
    passed: Times = whole[place] + np.clip(times - begins[place], 0, lengths[place])
    return passed


def _present(memory: pd.DataFrame, column: str) -> tuple[Times, npt.NDArray[np.float64], Any]:
    """Return times, values and devices of the rows in which a column has a value."""
    if memory.empty or column not in memory:
        return np.empty(0, dtype="int64"), np.empty(0), np.empty(0, dtype=object)
    is_there = memory[column].notna().to_numpy()
    return (
        memory["t_ns"].to_numpy(dtype="int64")[is_there],
        memory[column].to_numpy(dtype="float64", na_value=np.nan)[is_there],
        memory["device"].to_numpy(dtype=object)[is_there],
    )


def _labels(phases: Sequence[PhaseRow]) -> tuple[Times, list[str | None], list[str | None]]:
    """Return the phases' edges, the innermost phase at each, and that between it and the next."""
    ordered = sorted(phases, key=lambda p: (p.begin_ns, -p.end_ns))
    edges = sorted({t for p in phases for t in (p.begin_ns, p.end_ns)})
    at: list[str | None] = []
    after: list[str | None] = []
    begun: list[tuple[int, int, str]] = []  # latest first: (−place, end, phase)
    place = 0
    for edge in edges:
        while place < len(ordered) and ordered[place].begin_ns <= edge:
            heapq.heappush(begun, (-place, ordered[place].end_ns, ordered[place].phase))
            place += 1
        while begun and begun[0][1] < edge:
            heapq.heappop(begun)
        at.append(begun[0][2] if begun else None)
        while begun and begun[0][1] <= edge:
            heapq.heappop(begun)
        after.append(begun[0][2] if begun else None)
    return np.asarray(edges, dtype="int64"), at, after
