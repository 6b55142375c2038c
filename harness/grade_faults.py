"""What lowers the grade of any sampled lens: gaps, a rate that was not kept, too few steps.

A fault is a grade and a plain sentence with what was found and what it was held against. What this
leaves out: what only a GPU has (`gpu_faults`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from harness import text
from harness.energy import training_rows
from harness.grade_bounds import (
    FEWEST_SAMPLES_C,
    FEWEST_SAMPLES_D,
    FEWEST_STEPS_B,
    FEWEST_STEPS_C,
    GAP_SHARE_C,
    GAP_SHARE_D,
    GAP_STEPS_C,
    HARMLESS_MISS,
    RATE_B,
    RATE_C,
    RATE_D,
    Grade,
)
from harness.lenses import (
    HOST,
    TRAINING,
    TRAINING_PHASES,
    assign_phases,
    innermost_spans,
    load_begin,
    passed_within,
    training_spans,
)
from harness.memory_figures import ByPhase
from harness.missed_peak import MissedPeak
from harness.samples import PhaseRow, SamplerSummary

GAP = "Longest gap between samples in training"


class Fault(NamedTuple):
    """One thing that makes a figure worth less."""

    grade: Grade
    reason: str


@dataclass(frozen=True)
class Watch:
    """All that is known of how a run was measured."""

    counted_steps: int  # after warm-up
    step_s: float | None  # median
    phases: Sequence[PhaseRow]
    memory: pd.DataFrame
    statistics: Mapping[str, ByPhase]
    series: Mapping[str, pd.Series[float]]  # sampled lens → bytes over time, GPUs summed
    missed: Mapping[str, MissedPeak]
    sampler: SamplerSummary | None
    pool_bytes: int = 0  # of a vLLM in the worker
    sleeps: bool = False  # whether that vLLM frees its pool while training runs
    processes: int = 1
    first_device: Mapping[str, ByPhase] = field(default_factory=dict)  # of several GPUs

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The stretches of training, in ns."""
        return training_spans(self.phases)

    @cached_property
    def gpu_rows(self) -> pd.DataFrame:
        """The GPUs' samples in training."""
        return training_rows(self.phases, self.memory)

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was read at all."""
        return "device" in self.memory and bool((self.memory["device"] != HOST).any())

    def peak(self, lens: str) -> int | None:
        """A lens's peak in training."""
        found = self.statistics.get(lens, {}).get(TRAINING)
        return found.peak_bytes if found else None


def step_faults(watch: Watch) -> list[Fault]:
    """Say that training was too short for its memory to have shown itself."""
    steps = watch.counted_steps
    if steps >= FEWEST_STEPS_B:
        return []
    many = text.plural(steps, "step") if steps else "no step"
    return [
        Fault(
            "B" if steps >= FEWEST_STEPS_C else "C",
            f"Too few steps: {many} after warm-up, {FEWEST_STEPS_B} show what rows of other lengths take.",
        )
    ]


def baseline_faults(watch: Watch, lens: str) -> list[Fault]:
    """Say that a lens was first read when the model was loading: growth is then above what is not known."""
    begin_ns = load_begin(watch.phases)
    series = watch.series.get(lens)
    if begin_ns is None or series is None or series.empty or series.index[0] <= begin_ns:
        return []
    late = text.duration((int(series.index[0]) - begin_ns) / 1e9)
    return [
        Fault("C", f"First read {late} after the model began to load: its baseline is too high.")
    ]


def pace_faults(watch: Watch, lens: str) -> list[Fault]:
    """Say what the sampler left unseen of training, by its gaps and by its rate."""
    faults = [*_gap_faults(watch, lens), *_unseen_phases(watch, lens), *_rate_faults(watch)]
    missed, peak = watch.missed.get(lens), watch.peak(lens)
    at_most = missed.at_most_bytes if missed else None
    if at_most is None or not peak or at_most > HARMLESS_MISS * peak:
        return faults
    said = f" torch's counters bound a missed peak at {text.memory(at_most)}."
    return [f if f.grade in ("A", "B") else Fault("B", f.reason + said) for f in faults]


def _gap_faults(watch: Watch, lens: str) -> list[Fault]:
    spans = watch.spans
    times = watch.series[lens].index.tolist() if lens in watch.series else []
    inside = sum(label in TRAINING_PHASES for label in assign_phases(times, watch.phases))
    gap = watch.missed[lens].longest_gap_s if lens in watch.missed else None
    if inside < FEWEST_SAMPLES_D or not spans or gap is None:
        return [Fault("D", f"{_samples(inside)} in training: its peak was hardly looked for.")]
    seen_ns, whole_ns = passed_within((times[-1], spans[-1][1]), spans).tolist()
    share = gap / (whole_ns / 1e9)
    is_over = (whole_ns - seen_ns) / 1e9 >= gap  # it was not read again
    said = f"{'Not read in the last' if is_over else GAP} {text.duration(gap)}"
    if share >= GAP_SHARE_D:
        return [Fault("D", f"{said}, {text.percent(share)} of training.")]
    if inside < FEWEST_SAMPLES_C:
        return [Fault("C", f"Only {_samples(inside).lower()} in training.")]
    if share > GAP_SHARE_C:
        return [Fault("D" if is_over else "C", f"{said}, {text.percent(share)} of training.")]
    if watch.step_s and gap > watch.step_s:
        steps = gap / watch.step_s
        what = f"{said}, as long as {text.number(steps, 2)} steps."
        return [Fault("C" if steps > GAP_STEPS_C else "B", what)]
    return []


def _samples(n: int) -> str:
    return "No sample" if n == 0 else text.plural(n, "sample")


def _unseen_phases(watch: Watch, lens: str) -> list[Fault]:
    """Name the phases of training that no sample fell into."""
    spent: Counter[str] = Counter()
    for phase, begin_ns, end_ns in innermost_spans(watch.phases):
        if phase in TRAINING_PHASES:
            spent[phase] += end_ns - begin_ns
    seen = watch.statistics.get(lens, {})
    return [
        Fault(
            "B",
            f"No sample fell into the phase {phase.replace('_', ' ')} "
            f"({text.duration(length / 1e9)} in all).",
        )
        for phase, length in spent.items()
        if phase not in seen
    ]


def _rate_faults(watch: Watch) -> list[Fault]:
    sampler = watch.sampler
    if sampler is None or sampler.achieved_hz is None or sampler.requested_hz <= 0:
        return [Fault("B", "The rate of sampling: not measured.")]
    faults = []
    share = sampler.achieved_hz / sampler.requested_hz
    said = f"Sampled at {text.number(sampler.achieved_hz, 3)} Hz, asked for {sampler.requested_hz:g} Hz."
    if share < RATE_B:
        faults.append(Fault("D" if share < RATE_D else "C" if share < RATE_C else "B", said))
    if sampler.paced_down_hz is not None and sampler.paced_down_hz < RATE_B * sampler.requested_hz:
        faults.append(
            Fault(
                "B",
                f"The sampler lowered itself to {text.number(sampler.paced_down_hz, 3)} Hz at the lowest, "
                "to keep within its share of a core.",
            )
        )
    return faults
