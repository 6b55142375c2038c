"""Memory by lens and phase: peak, 99th percentile, time-weighted mean, and the reading before.

Of the same two runs LoRA takes 57 % of full fine-tuning's memory by their peaks, 54 % by their 99th
percentiles and 42 % by their means, so every figure carries its statistic. A sample belongs to the
innermost phase that spans it and weighs the time from half-way to the sample before to half-way to the
one after, as far as that lies in the phase: a rate that changes, or a gap, moves no mean. torch counts
its own peaks, so its lenses have no other statistic. What this leaves out: how far the figures can be
trusted (`grade`) and comparing arms (`ratios`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from harness.frozen import Frozen
from harness.lenses import (
    ABOVE_IDLE,
    COUNTED,
    DEVICE,
    PROCESS,
    RSS,
    SAMPLED,
    TRAINING,
    TRAINING_PHASES,
    WHOLE_RUN,
    Lens,
    assign_phases,
    device_series,
    idle_by_device,
    innermost_spans,
    lens_series,
    load_begin,
    passed_within,
    process_series,
    summed,
    training_spans,
)
from harness.samples import DeviceSummary, PhaseRow

HIGH_SHARE = 0.99  # of a phase's time that lies at or below the 99th percentile
ROUNDING = 1e-9  # of a sum of weights

Weights = npt.NDArray[np.float64]
ByPhase = dict[str, "LensStatistics"]  # phase, or 'training', or 'run' → figures
Series = dict[Lens, dict[str, "pd.Series[float]"]]  # lens → device → bytes over time
Peaks = dict[str, dict[str, int | None]]


class LensStatistics(Frozen):
    """What one lens read in one phase. torch's own counters know the peak alone."""

    peak_bytes: int = Field(description="highest value")
    p99_bytes: int | None = Field(None, description="at or below it for 99 % of the time")
    mean_bytes: int | None = Field(None, description="each sample weighted by the time around it")


def memory_peaks(
    phases: Sequence[PhaseRow], memory: pd.DataFrame
) -> tuple[Peaks, dict[str, int | None]]:
    """Return peaks (lens → phase → bytes) and baselines (lens → bytes).

    Several GPUs are summed before the peak is taken.
    """
    peaks: Peaks = {}
    baselines: dict[str, int | None] = {}
    for lens, column in SAMPLED.items():
        series = lens_series(memory, column)
        if series.empty:
            continue
        if lens == RSS:
            rss = series
        peaks[lens] = _peaks_by_phase(series, assign_phases(series.index, phases))
        # A process is first read once it has a context: before that it held nothing.
        baselines[lens] = 0 if lens == PROCESS else int(series.iloc[0])
    if DEVICE in peaks:
        baselines[DEVICE] = sum(idle_by_device(memory, phases).values())
    begin_ns = load_begin(phases)
    if begin_ns is not None and RSS in peaks:
        before = rss[rss.index <= begin_ns]
        baselines[RSS] = int(before.iloc[-1] if len(before) else rss.iloc[0])
    for lens in COUNTED:
        values = counted_peaks(phases, lens)
        if values:
            peaks[lens] = {TRAINING: None, **values}
            baselines[lens] = 0
    return peaks, baselines


def counted_peaks(phases: Sequence[PhaseRow], lens: Lens) -> dict[str, int]:
    """Return torch's own peak of each phase, of training and of the run; empty without a counter."""
    values: dict[str, int] = {}
    for row in phases:
        value = getattr(row, COUNTED[lens])
        if value is not None:
            values[row.phase] = max(values.get(row.phase, 0), value)
    if not values:
        return {}
    training = [value for phase, value in values.items() if phase in TRAINING_PHASES]
    whole = {**values, WHOLE_RUN: max(values.values())}
    return {**whole, TRAINING: max(training)} if training else whole


def device_peaks(phases: Sequence[PhaseRow], memory: pd.DataFrame) -> dict[str, int]:
    """Return each GPU's peak while training, of a run that has several; empty for one or none."""
    found = {}
    for device, series in device_series(memory, SAMPLED[DEVICE]).items():
        labels = assign_phases(series.index, phases)
        training = series[[label in TRAINING_PHASES for label in labels]]
        if len(training):
            found[device] = int(training.max())
    return found if len(found) > 1 else {}


def memory_statistics(phases: Sequence[PhaseRow], series: Series) -> dict[str, ByPhase]:
    """Return each lens's statistics by phase; several GPUs summed at each instant."""
    found = {
        lens: statistics_by_phase(summed(by_device.values()), phases)
        for lens, by_device in series.items()
    }
    for lens in COUNTED:
        counted = counted_peaks(phases, lens)
        if counted:
            found[lens] = {
                phase: LensStatistics(peak_bytes=peak) for phase, peak in counted.items()
            }
    return {str(lens): by_phase for lens, by_phase in found.items() if by_phase}


def statistics_by_device(
    phases: Sequence[PhaseRow], series: Series, order: Sequence[str] = ()
) -> dict[str, dict[str, ByPhase]]:
    """Return the statistics of each GPU of a run that has several: device → lens → phase.

    order: devices that come first, as the run's processes use them.
    """
    if len(series.get(DEVICE, {})) < 2:
        return {}
    found: dict[str, dict[str, ByPhase]] = {}
    for lens in (DEVICE, ABOVE_IDLE, PROCESS):
        for device, own in series.get(lens, {}).items():
            found.setdefault(device, {})[lens] = statistics_by_phase(own, phases)
    first = [device for device in order if device in found]
    return {device: found[device] for device in dict.fromkeys((*first, *found))}


def sampled_series(
    memory: pd.DataFrame, devices: Sequence[DeviceSummary] = (), phases: Sequence[PhaseRow] = ()
) -> Series:
    """Return every sampled lens over time, device by device, 'above idle' among them.

    devices, phases: the sampler's and the run's, which say what idle was (`lenses.idle_by_device`).
    """
    held = device_series(memory, SAMPLED[DEVICE])
    idle = idle_by_device(memory, phases, devices)
    above = {device: series - idle[device] for device, series in held.items()}
    found = {
        RSS: device_series(memory, SAMPLED[RSS]),
        DEVICE: held,
        ABOVE_IDLE: above,
        PROCESS: process_series(memory),
    }
    return {lens: by_device for lens, by_device in found.items() if by_device}


def statistics_by_phase(series: pd.Series[float], phases: Sequence[PhaseRow]) -> ByPhase:
    """Return a lens's statistics in each phase that has a sample, in training and in the run."""
    if series.empty:
        return {}
    values: Weights = np.asarray(series.to_numpy(), dtype=np.float64)
    times = series.index.to_numpy(dtype="int64")
    labels = assign_phases(series.index, phases)
    masks = {
        name: np.asarray([label == name for label in labels])
        for name in dict.fromkeys(label for label in labels if label is not None)
    }
    masks[TRAINING] = np.asarray([label in TRAINING_PHASES for label in labels])
    weights = _weights_by_phase(times, phases)
    found = {
        name: statistics_of(values[mask], weights[name][mask])
        for name, mask in masks.items()
        if mask.any()
    }
    return {**found, WHOLE_RUN: statistics_of(values, time_weights(times))}


def _weights_by_phase(
    times_ns: npt.NDArray[np.int64], phases: Sequence[PhaseRow]
) -> Mapping[str, Weights]:
    """Return what each sample weighs in a phase: of the time that it stands for, what lies in it."""
    edges = np.concatenate([times_ns[:1], times_ns[:-1] + np.diff(times_ns) // 2, times_ns[-1:]])
    spans: dict[str, list[tuple[int, int]]] = {TRAINING: training_spans(phases)}
    for name, begin, end in innermost_spans(phases):
        spans.setdefault(name, []).append((begin, end))
    return defaultdict(
        lambda: np.zeros(len(times_ns)),
        {
            name: np.diff(passed_within(edges, each)).astype("float64")
            for name, each in spans.items()
        },
    )


def statistics_of(values: Weights, weights: Weights) -> LensStatistics:
    """Return peak, 99th percentile and mean of weighted samples."""
    total = float(weights.sum())
    if total <= 0:  # one sample, or several at one instant: each counts the same
        weights, total = np.ones(len(values)), float(len(values))
    ordered = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[ordered])
    place = int(np.searchsorted(reached, (HIGH_SHARE - ROUNDING) * total))
    return LensStatistics(
        peak_bytes=int(values.max()),
        p99_bytes=int(values[ordered][min(place, len(values) - 1)]),
        mean_bytes=round(float((values * weights).sum()) / total),
    )


def time_weights(times_ns: npt.NDArray[np.int64]) -> Weights:
    """Return the time that each sample stands for: half-way to its neighbours, in ns."""
    if len(times_ns) < 2:
        return np.ones(len(times_ns))
    gaps = np.diff(times_ns).astype("float64")
    weights: Weights = (np.concatenate([[0.0], gaps]) + np.concatenate([gaps, [0.0]])) / 2
    return weights


def growth_of(
    statistics: Mapping[str, ByPhase], baselines: Mapping[str, int | None], lens: str, name: str
) -> int | None:
    """Return a statistic in training, RSS above the worker before loading; None if not measured.

    name: 'peak', 'p99' or 'mean'.
    """
    found = statistics.get(lens, {}).get(TRAINING)
    value: int | None = getattr(found, f"{name}_bytes") if found else None
    if lens != RSS or value is None:
        return value
    before = baselines.get(lens)
    return None if before is None else value - before


def _peaks_by_phase(series: pd.Series[float], labels: list[str | None]) -> dict[str, int | None]:
    by_phase: dict[str, int | None] = {}
    for label, value in zip(labels, series.to_numpy(), strict=True):
        if label is not None:
            by_phase[label] = max(by_phase.get(label) or 0, int(value))
    training = [v for p, v in by_phase.items() if p in TRAINING_PHASES and v is not None]
    return {
        **by_phase,
        WHOLE_RUN: int(series.max()),
        TRAINING: max(training) if training else None,
    }
