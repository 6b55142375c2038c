"""Two figures for a series that changed: both sides over steps, and how far apart they are.

The residual is (candidate − base) over the larger of the two, on a symlog axis: rounding at 1e-8 and a
factor of two fit in one picture. What this leaves out: choosing words (`page`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import altair as alt

from harness import text
from harness.chart_parts import Figure, arm_color, arm_dash, finish, hover, inline, make_figure
from harness.compare.factors import SAME
from harness.compare.model import Cell, Comparison, Curve, Difference
from harness.compare.outline import GRAVE, rows_of, show
from harness.palette import FAINT

SERIES_MAX = 4  # of which a page has figures; the rest is listed
FLOOR = 1e-8  # where the symlog axis turns linear
RESIDUAL = "residual"


@dataclass(frozen=True)
class SeriesPoint:
    """One step of one side."""

    arm: str  # the side; so called since colours go by it
    step: int
    value: float


@dataclass(frozen=True)
class Drawn:
    """A series with its cell and where it first differs."""

    cell: Cell
    curve: Curve
    difference: Difference | None


def series_figures(comparison: Comparison) -> tuple[list[Figure], list[str]]:
    """Draw the first differing series of some changed cells; name the ones that have no figure."""
    found = [d for row in rows_of(comparison) if (d := _chosen(row.cell)) is not None]
    drawn = _spread(found)[:SERIES_MAX]
    left = [d for d in found if d not in drawn]
    figures = [
        figure
        for number, each in enumerate(drawn, 1)
        for figure in _figures(each, sides_of(comparison), number)
    ]
    names = [f"{d.cell.pair}.{d.cell.arm}: {d.curve.what}" for d in left]
    return figures, [text.clean(name) for name in names]


def sides_of(comparison: Comparison) -> tuple[str, str]:
    """Name the two sides, apart even where they are called the same."""
    base, candidate = text.clean(comparison.base, 40), text.clean(comparison.candidate, 40)
    return (
        (base, candidate) if base != candidate else (f"{base} (base)", f"{candidate} (candidate)")
    )


def residuals(curve: Curve) -> list[SeriesPoint]:
    """Return (candidate − base) / max(|base|, |candidate|) of every step that both sides have."""
    found = []
    for step, (base, candidate) in enumerate(zip(curve.base, curve.candidate, strict=False), 1):
        if base is None or candidate is None:
            continue
        scale = max(abs(base), abs(candidate))
        value = (candidate - base) / scale if scale else 0.0
        if math.isfinite(value):
            found.append(SeriesPoint(RESIDUAL, step, value))
    return found


def _chosen(cell: Cell) -> Drawn | None:
    """The curve of the first grave difference that has one."""
    if cell.word not in GRAVE:
        return None
    curves = {curve.what: curve for curve in cell.curves if residuals(curve)}
    grave = [d for d in cell.differences if d.word == cell.word]
    for difference in sorted(grave, key=lambda d: (d.step is None, d.step or 0)):
        if difference.what in curves:
            return Drawn(cell, curves[difference.what], difference)
    for curve in curves.values():
        if any(point.value for point in residuals(curve)):
            return Drawn(cell, curve, None)
    return None


def _spread(found: list[Drawn]) -> list[Drawn]:
    """One of each task and series first, then the others."""
    first = {(d.cell.task, d.curve.what): d for d in reversed(found)}
    ahead = [d for d in found if d in first.values()]
    return ahead + [d for d in found if d not in ahead]


def _figures(drawn: Drawn, sides: tuple[str, str], number: int) -> list[Figure]:
    what = text.clean(drawn.curve.what, 60)
    name = text.clean(f"{drawn.cell.pair}.{drawn.cell.arm}", 60)
    caption = "Both sides, step by step."
    if drawn.difference and drawn.difference.step is not None:
        d = drawn.difference
        caption = f"First difference at step {d.step}: {show(d.base)} → {show(d.candidate)}."
    curves = [_curve_spec(drawn.curve, sides, has_hover=h) for h in (False, True)]
    differences = [_residual_spec(drawn.curve, has_hover=h) for h in (False, True)]
    return [
        make_figure(f"series-{number}", f"{what}, {name}", caption, *curves),
        make_figure(
            f"residual-{number}",
            f"Residual of {what}, {name}",
            f"(candidate − base) / the larger of the two, symlog; dashed: ±{SAME:g}, what "
            "rounding stays under.",
            *differences,
        ),
    ]


def _curve_spec(curve: Curve, sides: tuple[str, str], *, has_hover: bool) -> dict[str, Any]:
    points = [
        SeriesPoint(side, step, value)
        for side, values in zip(sides, (curve.base, curve.candidate), strict=True)
        for step, value in enumerate(values, 1)
        if value is not None and math.isfinite(value)
    ]
    base = alt.Chart(inline(points))
    color = arm_color(sides)
    y = alt.Y("value:Q", title=text.clean(curve.what, 40), scale=alt.Scale(zero=False))
    line = base.mark_line(strokeWidth=2).encode(
        x=_step(), y=y, color=color, strokeDash=arm_dash(sides)
    )
    dots = base.mark_point(filled=True, size=22).encode(x=_step(), y=y, color=color)
    tips = [alt.Tooltip("arm:N", title="side"), *_tips(".9g")]
    return finish(
        [line, dots, *(hover(base, _step(), y, color, "step", tips) if has_hover else [])]
    )


def _residual_spec(curve: Curve, *, has_hover: bool) -> dict[str, Any]:
    points = residuals(curve)
    top = _top(max((abs(p.value) for p in points), default=0.0))
    y = alt.Y(
        "value:Q",
        title="residual",
        scale=alt.Scale(type="symlog", constant=FLOOR, domain=[-top, top], nice=False),
        axis=alt.Axis(
            values=_ticks(top),
            labelExpr="datum.value == 0 ? '0' : format(datum.value, '~e')",
            labelOverlap=False,
        ),
    )
    base = alt.Chart(inline(points))
    color = arm_color((RESIDUAL,), has_legend=False)
    bounds = [alt.Chart(alt.InlineData(values=[{"value": v}])) for v in (-SAME, SAME)]
    layers = [b.mark_rule(strokeDash=[3, 3], color=FAINT).encode(y=y) for b in bounds]
    layers += [
        base.mark_line(strokeWidth=1.5).encode(x=_step(), y=y, color=color),
        base.mark_point(filled=True, size=26, opacity=1).encode(x=_step(), y=y, color=color),
    ]
    return finish(
        [*layers, *(hover(base, _step(), y, color, "step", _tips(".3g")) if has_hover else [])]
    )


def _step() -> alt.X:
    return alt.X(
        "step:Q",
        title="optimizer step",
        axis=alt.Axis(tickMinStep=1),
        scale=alt.Scale(nice=False, zero=False),
    )


def _tips(digits: str) -> list[alt.Tooltip]:
    return [alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=digits)]


def _top(largest: float) -> float:
    """The next power of ten, so that the tolerance is always in the picture."""
    least = 10 * SAME
    return max(least, 10.0 ** math.ceil(math.log10(largest))) if largest > 0 else least


def _ticks(top: float) -> list[float]:
    powers = range(round(math.log10(top)), round(math.log10(FLOOR)), -2)
    ticks = [10.0**power for power in powers]
    return [*(-t for t in ticks), 0.0, *reversed(ticks)]
