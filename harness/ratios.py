"""What an arm takes compared with its baseline: memory by lens, and speed, as ratios over seeds.

One lens and one statistic count only where every compared run has a positive value, so that the
bytes and the ratio of a comparison always speak of the same runs. What this leaves out: quality and
the words (`claims`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from harness.frozen import Count, Frozen, absent
from harness.lenses import LENS_NAMES, TRAINING, WHOLE_RUN, Lens, judged_order
from harness.stats import CONFIDENCE, Estimate, paired_ratio
from harness.summary import RunSummary

# The phases that memory is compared in, and how a sentence calls them.
PHASE_NAMES: dict[str, str] = {
    TRAINING: "training",
    "load": "loading",
    "build": "building the trainer",
    "train": "training steps",
    "generate": "generation",
    "evaluate": "evaluation",
}

Runs = Mapping[int, RunSummary | None]  # seed → summary of a run that ended ok


class Interval(Frozen):
    """An estimate with its 95 % t interval over seeds."""

    value: float
    low: float | None
    high: float | None
    n: Count


class MemoryComparison(Frozen):
    """Memory of an arm over its baseline, one lens, named statistic."""

    lens: str
    statistic: str
    arm_bytes: float | None = Field(description="mean over the compared seeds")
    baseline_bytes: float | None
    ratio: Interval | None
    log_sd: float | None = Field(
        None, exclude=True, description="spread of the ratio's natural logarithm over seeds"
    )
    by_seed: tuple[tuple[int, float], ...] = Field((), exclude=True)
    refused: str | None = Field(
        None,
        exclude_if=absent(None),
        description="why no verdict may rest on it: a run's measurement is graded D",
    )


def interval_of(estimate: Estimate | None) -> Interval | None:
    """Keep of an estimate what a report shows."""
    if estimate is None:
        return None
    return Interval(value=estimate.mean, low=estimate.low, high=estimate.high, n=estimate.n)


def compare_memory(
    ours: Runs,
    theirs: Runs,
    seeds: Sequence[int],
    phase: str = TRAINING,
    confidence: float = CONFIDENCE,
) -> tuple[MemoryComparison, ...]:
    """Compare a phase's memory by every lens and statistic that all runs have; the judged one first."""
    rows = []
    is_above = any(
        run.is_judged_above_idle for s in seeds for of in (ours, theirs) if (run := of[s])
    )
    for lens in judged_order(is_above_idle=is_above):
        for kind in ("growth", "peak") if lens == "rss" else ("peak",):
            a = _positive(ours, seeds, lens, kind, phase)
            b = _positive(theirs, seeds, lens, kind, phase)
            if not seeds or len(a) < len(seeds) or len(b) < len(seeds):
                continue
            ratio = paired_ratio(a, b, confidence)
            rows.append(
                MemoryComparison(
                    lens=lens,
                    statistic=_statistic(lens, kind, phase),
                    arm_bytes=sum(a.values()) / len(a),
                    baseline_bytes=sum(b.values()) / len(b),
                    ratio=interval_of(ratio),
                    log_sd=ratio.sd if ratio else None,
                    by_seed=tuple((seed, a[seed] / b[seed]) for seed in seeds),
                    refused=_refusal(ours, theirs, seeds, lens),
                )
            )
    return tuple(rows)


def compare_field(ours: Runs, theirs: Runs, seeds: Sequence[int], field: str) -> Interval | None:
    """Compare one figure of the summaries over the seeds in which both arms have it."""
    a = {s: v for s in seeds if (v := getattr(ours[s], field)) is not None}
    b = {s: v for s in seeds if (v := getattr(theirs[s], field)) is not None}
    return interval_of(paired_ratio(a, b))


def _statistic(lens: Lens, kind: str, phase: str) -> str:
    when = "in the whole run" if phase == WHOLE_RUN else f"in {PHASE_NAMES.get(phase, phase)}"
    if kind == "growth":
        return f"peak growth of {LENS_NAMES[lens]} {when}, above the worker before loading"
    return f"peak {LENS_NAMES[lens]} {when}"


def _refusal(ours: Runs, theirs: Runs, seeds: Sequence[int], lens: Lens) -> str | None:
    """Name a run whose lens can't be trusted, if there is one, and say why."""
    poor = [
        (who, seed, grade.reasons)
        for who, runs in (("the arm", ours), ("the baseline", theirs))
        for seed in seeds
        if (run := runs[seed]) and (grade := run.grade_of(lens)) and grade.grade == "D"
    ]
    if not poor:
        return None
    who, seed, reasons = poor[0]
    more = f" {len(poor) - 1} more like it." if len(poor) > 1 else ""
    why = reasons[0] if reasons else ""
    return f"{LENS_NAMES[lens]} of {who}, seed {seed}, is graded D: {why}{more}"


def _positive(
    runs: Runs, seeds: Sequence[int], lens: str, kind: str, phase: str
) -> dict[int, float]:
    found = {}
    for seed in seeds:
        value = _memory(runs[seed], lens, kind, phase)
        if value is not None and value > 0:
            found[seed] = value
    return found


def _memory(run: RunSummary | None, lens: str, kind: str, phase: str) -> float | None:
    if run is None:
        return None
    value = run.growth(lens, phase) if kind == "growth" else run.peak(lens, phase)
    return None if value is None else float(value)
