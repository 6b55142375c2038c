"""The numbers under the page's first figure: learning curves of a pair's arms, overlaid.

Taken over the runs that ended ok: one value per seed and step, then the mean and the lowest and
highest seed. A run that failed is named in `left_out`, so that no caption hides it. What this
leaves out: memory over time (`traces`) and how any of it looks (`charts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from harness.record import EvaluationPoint, Status
from harness.view import RunView, StudyView

CURVE_POINTS = 300  # per arm
Row = TypeVar("Row")
Measure = Literal["train reward", "validation NLL", "train loss"]


@dataclass(frozen=True)
class CurvePoint:
    """One step of one arm: the mean over seeds and the lowest and highest seed."""

    arm: str
    step: int
    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class HeldOutPoint:
    """One held-out evaluation of one arm, over seeds."""

    arm: str
    split: str
    step: int
    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Curves:
    """A pair's learning curves, arms overlaid."""

    measure: Measure
    metric: Literal["nll", "reward"]
    window_steps: int  # trailing mean over this many steps, 1 is none
    line: tuple[CurvePoint, ...]
    held_out: tuple[HeldOutPoint, ...]
    left_out: tuple[str, ...]


def learning_curves(view: StudyView, pair: str) -> Curves:
    """Collect a pair's curves over the runs that ended ok."""
    spec = view.matrix.pairs[pair]
    runs = [r for r in view.runs if r.planned.pair == pair]
    good = [r for r in runs if is_ok(r)]
    measure: Measure = "train reward"
    if spec.task == "sft":
        has_validation = any(p.split == "validation" for r in good for p in _evaluations(r))
        measure = "validation NLL" if has_validation else "train loss"
    longest = max((len(r.steps) for r in good), default=0)
    window = 1 if measure == "validation NLL" else max(1, longest // 15)
    line: list[CurvePoint] = []
    held_out: list[HeldOutPoint] = []
    for arm in spec.arms:
        ours = [r for r in good if r.planned.arm == arm]
        series = [_curve_of(r, measure, window) for r in ours]
        line += [CurvePoint(arm, *row) for row in thin(over_seeds(series), CURVE_POINTS)]
        for split in ("validation", "test"):
            if (split, measure) != ("validation", "validation NLL"):
                rows = over_seeds([_evaluation_curve(r, split) for r in ours])
                held_out += [HeldOutPoint(arm, split, *row) for row in rows]
    return Curves(
        measure=measure,
        metric="nll" if spec.task == "sft" else "reward",
        window_steps=window,
        line=tuple(line),
        held_out=tuple(held_out),
        left_out=tuple(_left_out(r) for r in runs if not is_ok(r)),
    )


def smooth(values: Sequence[float | None], window: int) -> list[float | None]:
    """Average each value with those before it, over `window` places; None counts as absent."""
    out: list[float | None] = []
    for i in range(len(values)):
        known = [v for v in values[max(0, i - window + 1) : i + 1] if v is not None]
        out.append(sum(known) / len(known) if known else None)
    return out


def over_seeds(
    series: Iterable[dict[int, float]],
) -> list[tuple[int, float, float, float, int]]:
    """Combine one curve per seed into rows of (step, mean, lowest, highest, seeds)."""
    by_step: dict[int, list[float]] = {}
    for one in series:
        for step, value in one.items():
            by_step.setdefault(step, []).append(value)
    return [(step, sum(v) / len(v), min(v), max(v), len(v)) for step, v in sorted(by_step.items())]


def thin(rows: Sequence[Row], limit: int) -> list[Row]:
    """Keep every n-th row and the last, at most `limit` + 1 of them."""
    stride = max(1, -(-len(rows) // limit))
    kept = list(rows[::stride])
    if rows and (len(rows) - 1) % stride:
        kept.append(rows[-1])
    return kept


def is_ok(run: RunView) -> bool:
    """Whether a run's record says that it ended ok."""
    return run.record is not None and run.record.status is Status.OK


def _left_out(run: RunView) -> str:
    word = run.record.status.value if run.record else "not run"
    return f"{run.planned.arm}.s{run.planned.seed}: {word}"


def _evaluations(run: RunView) -> tuple[EvaluationPoint, ...]:
    return run.record.result.evaluations if run.record and run.record.result else ()


def _evaluation_curve(run: RunView, split: str) -> dict[int, float]:
    return {p.step: p.value for p in _evaluations(run) if p.split == split and p.value is not None}


def _curve_of(run: RunView, measure: Measure, window: int) -> dict[int, float]:
    if measure == "validation NLL":
        return _evaluation_curve(run, "validation")
    key = "reward" if measure == "train reward" else "loss"
    smoothed = smooth([row.logs.get(key) for row in run.steps], window)
    return {
        row.step: value for row, value in zip(run.steps, smoothed, strict=True) if value is not None
    }
