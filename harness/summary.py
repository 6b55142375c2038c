"""One run's raw files to the figures that a report shows, derived again at any time.

Lenses of memory: `rss` (RSS of the worker's process tree), `nvml-device`, `nvml-process`,
`torch-reserved`, `torch-allocated`. A sample belongs to the innermost phase that spans it. The
growth of a lens is its peak minus its baseline: for `rss` the worker's own reading when the model
was about to be loaded (libraries imported), for `nvml-device` the first sample.

What this leaves out: comparing arms (`claims`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd
from pydantic import Field

from harness.frozen import Count, Frozen, absent
from harness.integrity import RewardIntegrity, reward_integrity
from harness.record import ParameterCounts, Record, StepRow
from harness.samples import PhaseRow
from harness.spec import RunSpec
from harness.stats import median

Lens = Literal["rss", "nvml-device", "nvml-process", "torch-reserved", "torch-allocated"]
SAMPLED: dict[Lens, str] = {
    "rss": "rss_bytes",
    "nvml-device": "nvml_device_bytes",
    "nvml-process": "nvml_process_bytes",
}
LENS_NAMES: dict[Lens, str] = {
    "rss": "process-tree RSS",
    "nvml-device": "NVML device memory",
    "nvml-process": "NVML process memory",
    "torch-reserved": "torch reserved memory",
    "torch-allocated": "torch allocated memory",
}
WHOLE_RUN = "run"
# Phases in which training itself works, as against loading, evaluating and saving.
TRAINING_PHASES = ("train", "generate", "weight_sync")


class RunSummary(Frozen):
    """The derived figures of one run. A figure that was not measured is null."""

    metric: Literal["nll", "reward"]
    base_value: float | None = Field(
        description="on the judged rows (test; validation where a rate is tried) before training"
    )
    final_value: float | None = Field(description="on the judged rows after training")
    train_reward_last: float | None = Field(
        description="mean train reward over the last fifth of the steps (grpo)"
    )
    steps: Count
    steps_excluded: Count = Field(description="warm-up steps left out of times and rates")
    step_s_median: float | None
    trained_tokens_per_s: float | None = Field(
        description="non-padding tokens (prompt + completion) over the wall time of counted steps"
    )
    generated_tokens_per_s: float | None = Field(
        description="sampled tokens over the wall time of the generate phase (grpo)"
    )
    samples_per_s: float | None
    model_flops_per_step: float | None = Field(
        description="matrix multiplications of forward and backward, median over counted steps; "
        "attention scores, recomputation and generation left out"
    )
    wall_s: float | None
    peak_bytes: dict[str, dict[str, int | None]] = Field(
        description="lens → phase (or 'run', or 'training') → highest value"
    )
    baseline_bytes: dict[str, int | None] = Field(
        description="lens → value before the model is loaded"
    )
    peak_bytes_by_device: dict[str, int] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="UUID of a GPU → its highest NVML device memory while training, where a run has "
        "several; `peak_bytes` sums them at each instant",
    )
    energy_j: float | None = Field(
        None,
        description="of all GPUs from the first training sample to the last, evaluations between "
        "included: last minus first reading of the counter",
    )
    power_w_mean: float | None = Field(None, description="of all GPUs together, while training")
    utilization_percent_mean: float | None = Field(
        None, description="mean over GPUs, while training"
    )
    temperature_c_max: float | None = Field(None, description="of the hottest GPU, while training")
    integrity: RewardIntegrity | None = Field(
        None, description="what the reward could and could not judge (grpo)"
    )

    def growth(self, lens: str, phase: str = "training") -> int | None:
        """Peak minus baseline of a lens, in bytes; None if either was not measured."""
        peak = self.peak_bytes.get(lens, {}).get(phase)
        baseline = self.baseline_bytes.get(lens)
        if peak is None or baseline is None:
            return None
        return peak - baseline


def summarise(
    spec: RunSpec,
    record: Record,
    steps: Sequence[StepRow],
    phases: Sequence[PhaseRow],
    memory: pd.DataFrame,
    warmup_steps: int,
) -> RunSummary:
    """Derive a run's figures from its raw files. `memory` has the columns of MEMORY_COLUMNS."""
    counted = [s for s in steps if s.step > warmup_steps]
    peaks, baselines = memory_peaks(phases, memory)
    result = record.result
    points = result.evaluations if result else ()
    judged = [p for p in points if p.split == spec.judged_split]
    metric: Literal["nll", "reward"] = "nll" if spec.task == "sft" else "reward"
    flops = [
        model_flops(result.parameters, s.tokens)
        for s in counted
        if result and result.parameters and s.tokens
    ]
    return RunSummary(
        metric=metric,
        base_value=next((p.value for p in judged if p.step == 0), None),
        final_value=next((p.value for p in reversed(judged) if p.step > 0), None),
        train_reward_last=_last_fifth([s.logs.get("reward") for s in steps]),
        steps=len(steps),
        steps_excluded=len(steps) - len(counted),
        step_s_median=median([(s.end_ns - s.begin_ns) / 1e9 for s in counted]),
        trained_tokens_per_s=_rate([s.tokens for s in counted], counted),
        generated_tokens_per_s=_generation_rate(counted, phases),
        samples_per_s=_rate([s.samples for s in counted], counted),
        model_flops_per_step=median(flops),
        wall_s=next((a.wall_s for a in record.attempts if a.number == record.attempt), None),
        peak_bytes=peaks,
        baseline_bytes=baselines,
        integrity=reward_integrity(steps) if spec.task == "grpo" else None,
        peak_bytes_by_device=device_peaks(phases, memory),
        **gpu_load(phases, memory),
    )


def model_flops(parameters: ParameterCounts, tokens: int) -> float:
    """FLOPs of the matrix multiplications of one training step over `tokens` tokens.

    Forward 2 and input gradients 2 per base weight and token, weight gradients 2 per trained weight
    and token, 6 per adapter weight. Full fine-tuning: 6 per weight; LoRA: 4 per base weight + 6 per
    adapter weight. Source: LoRA Without Regret, 'compute efficiency' (N² forward, 2N² backward).
    """
    per_token = 4 * parameters.matmul + 2 * parameters.matmul_trainable + 6 * parameters.adapter
    return float(per_token * tokens)


def memory_peaks(
    phases: Sequence[PhaseRow], memory: pd.DataFrame
) -> tuple[dict[str, dict[str, int | None]], dict[str, int | None]]:
    """Return peaks (lens → phase → bytes) and baselines (lens → bytes).

    Several GPUs are summed sample by sample before the peak is taken.
    """
    peaks: dict[str, dict[str, int | None]] = {}
    baselines: dict[str, int | None] = {}
    for lens, column in SAMPLED.items():
        series = lens_series(memory, column)
        if series.empty:
            continue
        labels = assign_phases(series.index, phases)
        peaks[lens] = _peaks_by_phase(series, labels)
        baselines[lens] = int(series.iloc[0])
    load = next((p for p in phases if p.phase == "load"), None)
    if load is not None and "rss" in peaks:
        series = lens_series(memory, "rss_bytes")
        before = series[series.index <= load.begin_ns]
        baselines["rss"] = int(before.iloc[-1] if len(before) else series.iloc[0])
    torch_lenses: tuple[tuple[Lens, str], ...] = (
        ("torch-reserved", "torch_reserved_peak_bytes"),
        ("torch-allocated", "torch_allocated_peak_bytes"),
    )
    for lens, field in torch_lenses:
        values: dict[str, int] = {}
        for row in phases:
            value = getattr(row, field)
            if value is not None:
                values[row.phase] = max(values.get(row.phase, 0), value)
        if values:
            training = [v for p, v in values.items() if p in TRAINING_PHASES]
            peaks[lens] = {
                **values,
                WHOLE_RUN: max(values.values()),
                "training": max(training) if training else None,
            }
            baselines[lens] = 0
    return peaks, baselines


def device_peaks(phases: Sequence[PhaseRow], memory: pd.DataFrame) -> dict[str, int]:
    """Return each GPU's peak while training, of a run that has several; empty for one or none."""
    column = SAMPLED["nvml-device"]
    rows = _gpu_rows(phases, memory)
    if rows.empty or column not in rows:
        return {}
    peaks = rows.dropna(subset=[column]).groupby("device")[column].max()
    return {str(device): int(peak) for device, peak in peaks.items()} if len(peaks) > 1 else {}


def gpu_load(phases: Sequence[PhaseRow], memory: pd.DataFrame) -> dict[str, float | None]:
    """Return energy, power, utilisation and temperature in the training phases.

    A figure is null without a GPU, and where one of several GPUs did not answer: a sum over the
    others would look like less. Energy needs two readings of the counter.
    """
    rows = _gpu_rows(phases, memory)

    def by_device(column: str, least: int = 1) -> list[pd.Series[float]]:
        if rows.empty or column not in rows:
            return []
        found = [part[column].dropna().astype("float64") for _, part in rows.groupby("device")]
        return found if all(len(readings) >= least for readings in found) else []

    energy = [float(r.iloc[-1] - r.iloc[0]) for r in by_device("energy_j", least=2)]
    power = [float(r.mean()) for r in by_device("power_w")]
    utilization = [float(r.mean()) for r in by_device("utilization_percent")]
    temperature = [float(r.max()) for r in by_device("temperature_c")]
    return {
        "energy_j": sum(energy) if energy else None,
        "power_w_mean": sum(power) if power else None,
        "utilization_percent_mean": sum(utilization) / len(utilization) if utilization else None,
        "temperature_c_max": max(temperature, default=None),
    }


def _gpu_rows(phases: Sequence[PhaseRow], memory: pd.DataFrame) -> pd.DataFrame:
    """The GPUs' samples in the training phases, in order of time."""
    rows = memory[memory["device"] != "host"] if "device" in memory else memory
    if rows.empty:
        return rows
    is_training = [p in TRAINING_PHASES for p in assign_phases(rows["t_ns"], phases)]
    return rows[is_training].sort_values("t_ns")


def lens_series(memory: pd.DataFrame, column: str) -> pd.Series[float]:
    """One lens as bytes over time (index: t_ns), GPUs summed per instant; empty if unmeasured."""
    if memory.empty or column not in memory:
        return pd.Series(dtype="float64")
    present = memory[memory[column].notna()]
    return present.groupby("t_ns")[column].sum().astype("float64").sort_index()


def assign_phases(times_ns: Iterable[int], phases: Sequence[PhaseRow]) -> list[str | None]:
    """Name the innermost phase that spans each instant: the one that began last."""
    ordered = sorted(phases, key=lambda p: (p.begin_ns, -p.end_ns))
    labels: list[str | None] = []
    for t in times_ns:
        label: str | None = None
        for row in ordered:
            if row.begin_ns > t:
                break
            if t <= row.end_ns:
                label = row.phase
        labels.append(label)
    return labels


def _peaks_by_phase(series: pd.Series[float], labels: list[str | None]) -> dict[str, int | None]:
    frame = pd.DataFrame({"bytes": series.to_numpy(), "phase": labels})
    by_phase: dict[str, int | None] = {
        str(name): int(value) for name, value in frame.groupby("phase")["bytes"].max().items()
    }
    training = [v for p, v in by_phase.items() if p in TRAINING_PHASES and v is not None]
    return {
        **by_phase,
        WHOLE_RUN: int(frame["bytes"].max()),
        "training": max(training) if training else None,
    }


def _rate(amounts: Sequence[int | None], steps: Sequence[StepRow]) -> float | None:
    seconds = sum(s.end_ns - s.begin_ns for s in steps) / 1e9
    known = [a for a in amounts if a is not None]
    if not known or len(known) < len(amounts) or seconds <= 0:
        return None
    return sum(known) / seconds


def _generation_rate(steps: Sequence[StepRow], phases: Sequence[PhaseRow]) -> float | None:
    tokens = [s.generated_tokens for s in steps if s.generated_tokens is not None]
    if not tokens or not steps:
        return None
    first, last = steps[0].begin_ns, steps[-1].end_ns
    spans = [
        p for p in phases if p.phase == "generate" and first <= p.begin_ns and p.end_ns <= last
    ]
    seconds = sum(p.end_ns - p.begin_ns for p in spans) / 1e9
    return sum(tokens) / seconds if seconds > 0 else None


def _last_fifth(values: Sequence[float | None]) -> float | None:
    tail = values[-max(1, len(values) // 5) :] if values else []
    known = [v for v in tail if v is not None]
    return sum(known) / len(known) if known else None
