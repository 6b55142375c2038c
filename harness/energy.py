"""A run's GPU load while training: energy, joules per trained token, power, use, temperature.

Energy is read off NVML's counter where there is one; else it is the trapezoid over the power
samples. Both are taken between two neighbouring readings: where evaluation begins or ends between
them, training gets its share of the time. The counter is joules since the driver was loaded, in 64
bits, so it never wraps: a fall is a restart, and that interval is left out. `coverage` is the share
of the training time that was read; nothing is made up for the rest. A CPU has no energy here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from harness.frozen import Frozen
from harness.lenses import HOST, TRAINING_PHASES, assign_phases, passed_within, training_spans
from harness.samples import PhaseRow

EnergySource = Literal["counter", "power", "counter and power"]

# Between readings further apart nothing is known of the power; readings are meant to be 1 s apart.
FURTHEST_S = 5.0
# With less of the training time read, what a token took is not said.
LEAST_COVERAGE = 0.9


class Energy(Frozen):
    """Joules of one GPU, or of several together, in the training phases."""

    joules: float
    source: EnergySource
    coverage: float = Field(description="share of the training time that was read, 0 to 1")
    whole_joules: float = Field(
        description="with the time that was not read taken as the mean of the rest, GPU by GPU"
    )


def training_energy(
    phases: Sequence[PhaseRow], memory: pd.DataFrame, gpus: int = 0
) -> Energy | None:
    """Return the energy of all GPUs in training; None without one, or where one did not answer.

    gpus: how many the run had, of which one may have left no sample; 0 where that was not noted.
    """
    spans = training_spans(phases)
    if memory.empty or "device" not in memory or not spans:
        return None
    rows = memory[memory["device"] != HOST].sort_values("t_ns")
    found = [_of_device(part, spans) for _, part in rows.groupby("device")]
    known = [energy for energy in found if energy is not None]
    if not known or len(known) < max(gpus, len(found)):
        return None
    sources = {energy.source for energy in known}
    return Energy(
        joules=sum(energy.joules for energy in known),
        source=sources.pop() if len(sources) == 1 else "counter and power",
        coverage=min(energy.coverage for energy in known),
        whole_joules=sum(energy.whole_joules for energy in known),
    )


def joules_per_token(energy: Energy | None, tokens: Sequence[int | None]) -> float | None:
    """Return what a trained token took, time that was not read taken as the mean of the rest.

    tokens: of every step, warm-up included, as the energy is.
    """
    known = [n for n in tokens if n is not None]
    if energy is None or energy.coverage < LEAST_COVERAGE:
        return None
    if not known or len(known) < len(tokens) or not sum(known):
        return None
    return energy.whole_joules / sum(known)


def _of_device(rows: pd.DataFrame, spans: Sequence[tuple[int, int]]) -> Energy | None:
    """Choose the counter, unless it was read for too little of the time and power for more.

    Nor where it stood still while power was drawn: it answers, and counts nothing.
    """
    counter, power = (_integral(rows, column, spans) for column in ("energy_j", "power_w"))
    if counter is not None and not counter.joules and power is not None and power.joules:
        return power
    if counter is not None and counter.coverage >= LEAST_COVERAGE:
        return counter
    found = [energy for energy in (counter, power) if energy is not None]
    return max(found, key=lambda energy: energy.coverage) if found else None


def _integral(rows: pd.DataFrame, column: str, spans: Sequence[tuple[int, int]]) -> Energy | None:
    """Add up one column between its neighbouring readings; None with fewer than two."""
    if column not in rows:
        return None
    read = rows[rows[column].notna()]
    times = read["t_ns"].to_numpy(dtype="int64")
    values = read[column].to_numpy(dtype="float64")
    if len(times) < 2:
        return None
    lengths = np.diff(times)
    inside = np.diff(passed_within(times, spans))
    is_near = lengths <= FURTHEST_S * 1e9
    if column == "energy_j":
        joules = np.diff(values)
        # Wholly in training, a difference of the counter is exact however long it took.
        is_known = (joules >= 0) & (is_near | (inside == lengths))
    else:
        joules = (values[:-1] + values[1:]) / 2 * lengths / 1e9
        is_known = is_near
    is_known &= inside > 0
    training_ns = sum(end - begin for begin, end in spans)
    if not is_known.any() or training_ns <= 0:
        return None
    read_joules = float((joules[is_known] * inside[is_known] / lengths[is_known]).sum())
    coverage = min(1.0, float(inside[is_known].sum()) / training_ns)
    return Energy(
        joules=read_joules,
        source="counter" if column == "energy_j" else "power",
        coverage=coverage,
        whole_joules=read_joules / coverage,
    )


def gpu_load(
    phases: Sequence[PhaseRow], memory: pd.DataFrame, gpus: int = 0
) -> dict[str, float | None]:
    """Return power, utilisation and temperature in the training phases.

    A figure is null without a GPU, and where one of several GPUs did not answer: a sum over the
    others would look like less. gpus: as for `training_energy`.
    """
    rows = training_rows(phases, memory)

    def by_device(column: str) -> list[pd.Series[float]]:
        if rows.empty or column not in rows:
            return []
        found = [part[column].dropna().astype("float64") for _, part in rows.groupby("device")]
        return found if len([r for r in found if len(r)]) == max(gpus, len(found)) else []

    power = [float(r.mean()) for r in by_device("power_w")]
    utilization = [float(r.mean()) for r in by_device("utilization_percent")]
    temperature = [float(r.max()) for r in by_device("temperature_c")]
    return {
        "power_w_mean": sum(power) if power else None,
        "utilization_percent_mean": sum(utilization) / len(utilization) if utilization else None,
        "temperature_c_max": max(temperature, default=None),
    }


def training_rows(phases: Sequence[PhaseRow], memory: pd.DataFrame) -> pd.DataFrame:
    """Return the GPUs' samples in the training phases, in order of time."""
    rows = memory[memory["device"] != HOST] if "device" in memory else memory
    if rows.empty:
        return rows
    is_training = [p in TRAINING_PHASES for p in assign_phases(rows["t_ns"], phases)]
    return rows[is_training].sort_values("t_ns")
