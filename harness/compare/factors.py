"""Constant factors: a gradient norm or a loss that is k times as large, and which setting k is.

A fault of scale multiplies: by the accumulated micro-batches, by the completions of a group, by what an
adapter's output is scaled with. Where the first differing step has such a ratio to within a fifth of a
percent, the setting is named. Rewards' deviation is told from a log that averages over groups, so only
roughly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from harness.compare.evidence import CellEvidence, arguments_of
from harness.compare.side import RunSide, Series

Measure = Literal["gradient norm", "loss", "advantages", "distance moved"]
MEASURES: tuple[Measure, ...] = ("gradient norm", "loss", "advantages", "distance moved")

SAME = 1e-5  # a ratio closer to 1 is no change
EXACT = 2e-3  # how near a ratio has to be to a setting
LOGGED = 6e-5  # transformers 4 rounds a logged loss to four decimals
ROUGH = 0.2  # how near to the rewards' deviation
TINY = 1e-6  # an on-policy GRPO loss is about 0: its ratio says nothing
STEADY, STEADY_SHARE = 0.01, 0.8  # a factor that most steps have
WHOLE_MAX = 64
REWARD_STD = "reward_std"
SETTINGS = (
    "gradient_accumulation_steps", "num_generations", "steps_per_generation", "num_iterations",
    "per_device_train_batch_size", "temperature",
)  # fmt: skip


@dataclass(frozen=True)
class Factor:
    """By how much one measure of a cell is multiplied."""

    measure: Measure
    step: int
    ratio: float  # candidate over base
    exact: float | None  # the whole number, or one over it, or the setting, that the ratio is
    names: tuple[str, ...]  # settings, or ratios of two, that have this value or one over it
    is_steady: bool  # most later steps have it too


def find_factors(evidence: CellEvidence) -> tuple[Factor, ...]:
    """Find the measures of a cell that differ, each with its ratio at the first step that does."""
    if evidence.base is None or evidence.candidate is None:
        return ()
    found = []
    for measure in MEASURES:
        pairs = list(
            zip(
                measured(evidence.base, measure),
                measured(evidence.candidate, measure),
                strict=False,
            )
        )
        if measure == "loss":
            pairs = [
                pair for pair in pairs if not any(v is not None and abs(v) < TINY for v in pair)
            ]
        ratios = [(step, _ratio(*pair), pair) for step, pair in enumerate(pairs, 1)]
        known = [(step, r, pair) for step, r, pair in ratios if r is not None]
        first = next(((s, r, p) for s, r, p in known if abs(r - 1) > SAME), None)
        if first is not None:
            later = [ratio for step, ratio, _ in known if step >= first[0]]
            found.append(_factor(evidence, measure, first, later))
    return tuple(found)


def measured(run: RunSide, measure: Measure) -> Series:
    """One value a step; before clipping where that was logged. A probe's losses are not rounded."""
    steps = run.probe.steps if run.probe else ()
    if measure == "gradient norm":
        return run.series.get("grad_norm") or tuple(_norm(step.gradient) for step in steps)
    if measure == "distance moved":
        return tuple(_norm(step.update) for step in steps)
    if measure == "advantages":
        return tuple(step.numbers.get("advantages/l2") for step in steps)
    if any(step.losses for step in steps):
        return tuple(_sum(step.losses) for step in steps)
    return run.series.get("loss", ())


def settings_values(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return what a factor may be, by name: settings above or below 1, and ratios of two."""
    found = {name: settings[name] for name in SETTINGS if _is_positive(settings.get(name))}
    accumulated, generation = found.get(SETTINGS[0]), found.get("steps_per_generation")
    if accumulated and generation:
        found["steps_per_generation / gradient_accumulation_steps"] = generation / accumulated
    alpha, rank = settings.get("lora_alpha"), settings.get("r")
    if _is_positive(alpha) and _is_positive(rank):
        if settings.get("use_rslora"):
            found["lora_alpha / sqrt(r)"] = alpha / math.sqrt(rank)
        else:
            found["lora_alpha / r"] = alpha / rank
    return {name: float(value) for name, value in found.items() if value != 1}


def is_divided_by_group(run: RunSide) -> bool | None:
    """Whether a run's advantages are divided by the deviation of their group; None: can't be told.

    Divided, the squares of a group's advantages sum to one less than its completions, whatever the rewards
    were; so a step's sum is a whole multiple of that. Groups without variance add nothing.
    """
    size = arguments_of(run).get("num_generations")
    values = [v for v in measured(run, "advantages") if v]
    if not isinstance(size, int) or size < 2 or len(values) < 3:
        return None
    multiples = [value**2 / (size - 1) for value in values]
    whole = [abs(m - round(m)) < 0.03 and round(m) >= 1 for m in multiples]
    return True if all(whole) else False if sum(whole) * 2 < len(whole) else None


def _factor(
    evidence: CellEvidence,
    measure: Measure,
    first: tuple[int, float, tuple[float | None, float | None]],
    later: Sequence[float],
) -> Factor:
    step, ratio, (base, _) = first
    tolerance = EXACT
    if measure == "loss" and evidence.base and not evidence.base.probe and base:
        tolerance = max(EXACT, LOGGED / abs(base))
    values = settings_values(evidence.settings)
    names = tuple(n for n, v in values.items() if _is_near(ratio, v, tolerance))
    exact = _whole(ratio, tolerance)
    if exact is None and names:
        value = values[names[0]]
        exact = value if abs(ratio / value - 1) <= tolerance else 1 / value
    if exact is None and evidence.cell.task == "grpo":
        deviations = [_at(run, REWARD_STD, step) for run in (evidence.base, evidence.candidate)]
        if any(d and _is_near(ratio, d, ROUGH) and abs(d - 1) > ROUGH for d in deviations):
            names = (REWARD_STD,)
    steady = [abs(r / ratio - 1) <= STEADY for r in later]
    is_steady = len(steady) > 1 and sum(steady) >= STEADY_SHARE * len(steady)
    return Factor(measure, step, ratio, exact, names, is_steady)


def _is_near(ratio: float, value: float, tolerance: float) -> bool:
    """Whether a ratio is a value, or one over it."""
    return any(abs(ratio / each - 1) <= tolerance for each in (value, 1 / value))


def _whole(ratio: float, tolerance: float) -> float | None:
    if ratio <= 0:
        return None
    size = max(ratio, 1 / ratio)
    whole = round(size)
    if not 2 <= whole <= WHOLE_MAX or abs(size / whole - 1) > tolerance:
        return None
    return float(whole) if ratio > 1 else 1 / whole


def _ratio(base: float | None, candidate: float | None) -> float | None:
    """Candidate over base, where both are there and not 0."""
    if not base or not candidate or not (math.isfinite(base) and math.isfinite(candidate)):
        return None
    return candidate / base


def _norm(groups: Mapping[str, float | None]) -> float | None:
    values = list(groups.values())
    if not values or any(value is None for value in values):
        return None
    return math.sqrt(sum(value**2 for value in values if value is not None))


def _sum(values: Sequence[float | None]) -> float | None:
    return None if any(v is None for v in values) else math.fsum(v for v in values if v is not None)


def _at(run: RunSide | None, name: str, step: int) -> float | None:
    values = run.series.get(name, ()) if run else ()
    return values[step - 1] if len(values) >= step else None


def _is_positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
