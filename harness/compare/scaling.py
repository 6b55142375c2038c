"""What a user notices of a constant factor: gradients or losses that are k times as large.

What this leaves out: finding the factor (`factors`), and everything else that is noticed (`notices`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from harness.compare.evidence import CellEvidence, Evidence, where
from harness.compare.factors import (
    REWARD_STD,
    Factor,
    find_factors,
    is_divided_by_group,
    measured,
    settings_values,
)
from harness.spec import Task

TIMES = {2.0: "twice", 0.5: "half"}


@dataclass(frozen=True)
class Scaled:
    """One cell in which a measure is scaled."""

    cell: CellEvidence
    factor: Factor
    moved_ratio: float | None  # how much further its weights moved; None: not measured, or as far

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """What cells have to share to be told in one sentence."""
        exact = "" if self.factor.exact is None else f"{self.factor.exact:.6g}"
        return self.factor.measure, exact, ", ".join(self.factor.names), self.factor.ratio > 1


def scaled(task: Task, cells: Sequence[CellEvidence], evidence: Evidence) -> Iterable[str]:
    """Say which measure is scaled, once for all cells in which it is scaled by the same."""
    told = []
    names = fitting_names(task, evidence)
    for cell in cells:
        factors = {f.measure: _fitting(f, names) for f in find_factors(cell)}
        first, moved = factors.get("gradient norm"), factors.get("distance moved")
        first = first or factors.get("loss")
        if first and (first.exact is not None or first.names):
            told.append(Scaled(cell, first, moved.ratio if moved else None))
    told.sort(key=lambda each: each.key)
    for _, group in groupby(told, key=lambda each: each.key):
        yield _sentence(task, [*group], cells)


def _sentence(task: Task, told: Sequence[Scaled], cells: Sequence[CellEvidence]) -> str:
    first = told[0]
    subject = "gradients are" if first.factor.measure == "gradient norm" else "losses are"
    step = min(each.factor.step for each in told)
    steps = f"from step {step}"
    if all(each.factor.is_steady for each in told):
        steps = "at every step" if step == 1 else f"{steps} on"
    sentence = (
        f"{task.upper()} {subject} {_times(told)} as large {steps}{_because(first)}"
        f"{where([each.cell for each in told], cells)}"
    )
    if first.factor.measure == "loss":
        return sentence + ": losses of the two releases can't be compared."
    return sentence + _consequence(first.factor.ratio, first.moved_ratio, first.cell)


def _consequence(ratio: float, moved_ratio: float | None, cell: CellEvidence) -> str:
    """What larger or smaller gradients do to the weights, as far as that was measured."""
    if moved_ratio is not None and not 0.98 < moved_ratio < 1.02:
        return f": the same learning rate trains {_pace(moved_ratio)}."
    is_measured = cell.base is not None and any(measured(cell.base, "distance moved"))
    evened = (
        "Adam evens it out, and weights have moved as far as before"
        if is_measured
        else "Adam evens it out"
    )
    when = "earlier" if ratio > 1 else "later"
    return (
        f": {evened}; max_grad_norm clips {when}, and other optimizers train {_pace(ratio)} at the "
        "same learning rate."
    )


def _pace(ratio: float) -> str:
    return "faster and less stably" if ratio > 1 else "more slowly"


def _times(told: Sequence[Scaled]) -> str:
    """How many times as large, in words where it is a number of its own."""
    value = told[0].factor.exact
    if value is None:
        shown = sorted({f"{each.factor.ratio:.2g}" for each in told}, key=float)
        return f"about {' to '.join(dict.fromkeys((shown[0], shown[-1])))} times"
    if value in TIMES:
        return f"exactly {TIMES[value]}"
    whole = round(1 / value)
    if value < 1 and abs(value * whole - 1) < 1e-9:
        return f"exactly 1/{whole}"
    return f"exactly {value:.4g} times" if value == round(value) else f"{value:.4g} times"


def _because(told: Scaled) -> str:
    if told.factor.names == (REWARD_STD,):
        way = "no longer divided" if _shrinks(told.factor, told.cell) else "divided"
        return f", about as much as if advantages were {way} by the rewards' deviation"
    return f" ({', '.join(told.factor.names)})" if told.factor.names else ""


def _shrinks(factor: Factor, cell: CellEvidence) -> bool:
    """Whether a ratio is the rewards' deviation, and not one over it."""
    for run in (cell.base, cell.candidate):
        values = run.series.get(REWARD_STD, ()) if run else ()
        value = values[factor.step - 1] if len(values) >= factor.step else None
        if value:
            return abs(factor.ratio - value) < abs(factor.ratio - 1 / value)
    return factor.ratio < 1


def advantages(task: Task, cells: Sequence[CellEvidence]) -> Iterable[str]:
    """Say whether GRPO's advantages began or ceased to be divided by their group's deviation."""
    if task != "grpo":
        return
    for before, words, effect in (
        (
            True,
            "no longer divided by their group's deviation",
            "prompts with varied rewards weigh more",
        ),
        (
            False,
            "divided by their group's deviation, as they were not before",
            "every prompt weighs the same",
        ),
    ):
        touched = [
            c
            for c in cells
            if c.base
            and c.candidate
            and (is_divided_by_group(c.base), is_divided_by_group(c.candidate))
            == (before, not before)
        ]
        if touched:
            yield f"GRPO's advantages are {words}{where(touched, cells)}: {effect}."


def fitting_names(task: Task, evidence: Evidence) -> frozenset[str]:
    """Name the settings that scale each cell in which they could, and no other one.

    A setting of 3 that left another cell's gradients alone is not what scales this one's by 3.
    """
    cells = [c for c in evidence.cells if c.cell.task == task and c.base and c.candidate]
    found = [
        ({*settings_values(c.settings)}, {n for f in find_factors(c) for n in f.names})
        for c in cells
    ]
    every = {name for could, _ in found for name in could}
    return frozenset(n for n in every if all((n in could) == (n in does) for could, does in found))


def _fitting(factor: Factor, names: Collection[str]) -> Factor:
    """Keep of the settings that have a factor's value those that fit, unless none does."""
    kept = tuple(name for name in factor.names if name in names)
    return replace(factor, names=kept) if kept else factor
