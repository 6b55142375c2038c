"""One run's raw files to the figures that a report shows, derived again at any time.

Each subject has a module: memory by lens and phase (`memory_figures`), what a sampler can have missed
(`missed_peak`), energy and load (`energy`), how far to trust them (`grade`). The growth of a lens is
its peak minus its baseline: for `rss` the worker's own reading when the model was about to be loaded
(libraries imported), for `nvml-device` what was in use before; a process held nothing on a GPU before.

What this leaves out: comparing arms (`claims`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from harness.energy import EnergySource, gpu_load, joules_per_token, training_energy
from harness.frozen import Count, Frozen, absent
from harness.grade import MeasurementGrade, grade_run
from harness.grade_faults import Watch
from harness.integrity import RewardIntegrity, reward_integrity
from harness.lenses import (
    ABOVE_IDLE,
    DEVICE,
    LENS_NAMES,
    PROCESS,
    SAMPLED,
    WHOLE_RUN,
    Lens,
    innermost_spans,
    passed_within,
    summed,
)
from harness.memory_figures import (
    LensStatistics,
    device_peaks,
    growth_of,
    memory_peaks,
    memory_statistics,
    sampled_series,
    statistics_by_device,
)
from harness.missed_peak import MissedPeak, missed_peak
from harness.record import ParameterCounts, Record, StepRow
from harness.samples import PhaseRow
from harness.spec import RunSpec
from harness.stats import median
from harness.strangers import stands_above_idle

__all__ = [
    "LENS_NAMES", "SAMPLED", "WHOLE_RUN", "Lens", "RunSummary", "model_flops", "summarise",
]  # fmt: skip


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
        description="sampled tokens over the wall time of the generate phase, the sync of weights within "
        "it left out (grpo)"
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
    memory_statistics: dict[str, dict[str, LensStatistics]] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="lens → phase (or 'run', or 'training') → peak, 99th percentile, mean; several GPUs "
        "summed",
    )
    device_statistics: dict[str, dict[str, dict[str, LensStatistics]]] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="UUID → lens → phase → statistics, where a run has several GPUs; the first "
        "process's GPU first",
    )
    missed: dict[str, MissedPeak] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="sampled lens → what it can have missed in training",
    )
    grades: dict[str, MeasurementGrade] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="lens, or 'run' → how far its measurement can be trusted",
    )
    is_judged_above_idle: bool = Field(
        False,
        exclude_if=absent(False),
        description="whether NVML device memory above idle stands for the run: the device misleads",
    )
    energy_j: float | None = Field(
        None, description="of all GPUs in the training phases, as far as it was read"
    )
    energy_source: EnergySource | None = Field(None, exclude_if=absent(None))
    energy_coverage: float | None = Field(
        None, exclude_if=absent(None), description="share of the training time that was read"
    )
    joules_per_token: float | None = Field(
        None,
        exclude_if=absent(None),
        description="energy over all trained tokens; null where too little of it was read",
    )
    power_w_mean: float | None = Field(None, description="of all GPUs together, while training")
    utilization_percent_mean: float | None = Field(
        None, description="mean over GPUs, while training"
    )
    temperature_c_max: float | None = Field(None, description="of the hottest GPU, while training")
    integrity: RewardIntegrity | None = Field(
        None, description="what the reward could and could not judge (grpo)"
    )

    def peak(self, lens: str, phase: str = "training") -> int | None:
        """Highest value of a lens in a phase, in bytes; None if not measured."""
        if lens != ABOVE_IDLE:
            return self.peak_bytes.get(lens, {}).get(phase)
        found = self.memory_statistics.get(lens, {}).get(phase)
        return found.peak_bytes if found else None

    def growth(self, lens: str, phase: str = "training") -> int | None:
        """Peak minus baseline of a lens, in bytes; None if either was not measured."""
        peak = self.peak_bytes.get(lens, {}).get(phase)
        baseline = self.baseline_bytes.get(lens)
        if peak is None or baseline is None:
            return None
        return peak - baseline

    def grade_of(self, lens: str) -> MeasurementGrade | None:
        """A lens's grade; None where it gave nothing, or was not graded."""
        return self.grades.get(lens)

    def in_training(self, lens: str, statistic: str) -> int | None:
        """'peak', 'p99' or 'mean' of a lens in training; RSS above the worker before loading."""
        return growth_of(self.memory_statistics, self.baseline_bytes, lens, statistic)


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
    gpus = len(record.sampler.devices) if record.sampler else 0
    energy = training_energy(phases, memory, gpus)
    load: dict[str, Any] = {**gpu_load(phases, memory, gpus)}
    result = record.result
    points = result.evaluations if result else ()
    judged = [p for p in points if p.split == spec.judged_split]
    metric: Literal["nll", "reward"] = "nll" if spec.task == "sft" else "reward"
    flops = [
        model_flops(result.parameters, s.tokens)
        for s in counted
        if result and result.parameters and s.tokens
    ]
    step_s = median([(s.end_ns - s.begin_ns) / 1e9 for s in counted])
    return RunSummary(
        metric=metric,
        base_value=next((p.value for p in judged if p.step == 0), None),
        final_value=next((p.value for p in reversed(judged) if p.step > 0), None),
        train_reward_last=_last_fifth([s.logs.get("reward") for s in steps]),
        steps=len(steps),
        steps_excluded=len(steps) - len(counted),
        step_s_median=step_s,
        trained_tokens_per_s=_rate([s.tokens for s in counted], counted),
        generated_tokens_per_s=_generation_rate(counted, phases),
        samples_per_s=_rate([s.samples for s in counted], counted),
        model_flops_per_step=median(flops),
        wall_s=next((a.wall_s for a in record.attempts if a.number == record.attempt), None),
        peak_bytes=peaks,
        baseline_bytes=baselines,
        integrity=reward_integrity(steps) if spec.task == "grpo" else None,
        peak_bytes_by_device=device_peaks(phases, memory),
        energy_j=energy.joules if energy else None,
        energy_source=energy.source if energy else None,
        energy_coverage=energy.coverage if energy else None,
        joules_per_token=joules_per_token(energy, [s.tokens for s in steps]),
        **load,
        **_measured(record, phases, memory, len(counted), step_s),
    )


def _measured(
    record: Record,
    phases: Sequence[PhaseRow],
    memory: pd.DataFrame,
    counted_steps: int,
    step_s: float | None,
) -> dict[str, Any]:
    """Derive memory by lens and statistic, what was missed of it, and the grades."""
    sampler, result = record.sampler, record.result
    devices = sampler.devices if sampler else ()
    order = (result.device or "").split(",") if result else []
    each = sampled_series(memory, devices, phases)
    statistics = memory_statistics(phases, each)
    by_device = statistics_by_device(phases, each, order)
    series = {str(lens): summed(of.values()) for lens, of in each.items()}
    generation = result.generation if result else None
    sleeps = bool(generation and generation.sleeps)
    # torch counts in one process, on one GPU: of several GPUs' sum it says nothing.
    counted = () if sleeps or by_device else (DEVICE, ABOVE_IDLE, PROCESS)
    missed = {
        str(lens): missed_peak(
            series[lens],
            statistics.get(lens, {}),
            phases,
            is_counted=lens in counted,
            parts=tuple(of.values()),
        )
        for lens, of in each.items()
    }
    watch = Watch(
        counted_steps=counted_steps,
        step_s=step_s,
        phases=phases,
        memory=memory,
        statistics=statistics,
        series=series,
        missed=missed,
        sampler=sampler,
        pool_bytes=(generation.pool_bytes or 0) if generation else 0,
        sleeps=sleeps,
        processes=result.distributed.processes if result and result.distributed else 1,
        first_device=next(iter(by_device.values()), {}),
    )
    return {
        "memory_statistics": statistics,
        "device_statistics": by_device,
        "missed": missed,
        "grades": grade_run(watch),
        "is_judged_above_idle": stands_above_idle(watch),
    }


def model_flops(parameters: ParameterCounts, tokens: int) -> float:
    """FLOPs of the matrix multiplications of one training step over `tokens` tokens.

    Forward 2 and input gradients 2 per base weight and token, weight gradients 2 per trained weight
    and token, 6 per adapter weight. Full fine-tuning: 6 per weight; LoRA: 4 per base weight + 6 per
    adapter weight. Source: LoRA Without Regret, 'compute efficiency' (N² forward, 2N² backward).
    """
    per_token = 4 * parameters.matmul + 2 * parameters.matmul_trainable + 6 * parameters.adapter
    return float(per_token * tokens)


def _rate(amounts: Sequence[int | None], steps: Sequence[StepRow]) -> float | None:
    seconds = sum(s.end_ns - s.begin_ns for s in steps) / 1e9
    known = [a for a in amounts if a is not None]
    if not known or len(known) < len(amounts) or seconds <= 0:
        return None
    return sum(known) / seconds


def _generation_rate(steps: Sequence[StepRow], phases: Sequence[PhaseRow]) -> float | None:
    """Divide what was sampled by the time that sampling took, over the steps that say how much it was.

    Arms bring their weights to an engine in different ways, so that is no part of the time.
    """
    known = [(s, s.generated_tokens) for s in steps if s.generated_tokens is not None]
    spans = [(begin, end) for name, begin, end in innermost_spans(phases) if name == "generate"]
    edges = passed_within([t for s, _ in known for t in (s.begin_ns, s.end_ns)], spans)
    seconds = float((edges[1::2] - edges[::2]).sum()) / 1e9
    return sum(tokens for _, tokens in known) / seconds if seconds > 0 else None


def _last_fifth(values: Sequence[float | None]) -> float | None:
    tail = values[-max(1, len(values) // 5) :] if values else []
    known = [v for v in tail if v is not None]
    return sum(known) / len(known) if known else None
