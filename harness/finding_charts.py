"""The findings' figures: means with their ends over ranks, rates, batches or arms, seeds beneath.

As in `charts`, one definition gives the static picture and the living one. What this leaves out: the
numbers (`finding_series`) and the words around them (`finding_sections`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from harness.chart_parts import HEIGHT, arm_color, arm_dash, finish, hover, inline
from harness.finding_series import Dots, MeanPoint, Optimum
from harness.palette import FAINT, INK, PAPER
from harness.series import CurvePoint

STRIP = 9  # pixels between two arms' best rates
AT_ARM = "arm"


@dataclass(frozen=True)
class Axes:
    """What a figure's axes are."""

    x_title: str
    y_title: str  # a bar begins a new line
    x: Literal["log", "category"] = "log"
    x_format: str = "d"  # of a number on a logarithmic axis, as d3 writes it
    is_y_log: bool = False
    y_domain: tuple[float, float] | None = None
    top: int = 0  # pixels kept free above the plot


@dataclass(frozen=True)
class Reference:
    """A level that a figure is read against."""

    y: float
    words: str = ""
    arm: str | None = None  # drawn in its colour


def dots_spec(
    dots: Dots,
    arms: Sequence[str],
    axes: Axes,
    *,
    references: Sequence[Reference] = (),
    has_hover: bool,
) -> dict[str, Any]:
    """Draw means with their ends, joined along a numeric axis, each seed beside them."""
    return finish(_dots_layers(dots, arms, axes, references, has_hover=has_hover))


def rates_spec(
    dots: Dots, best: Sequence[Optimum], arms: Sequence[str], axes: Axes, *, has_hover: bool
) -> dict[str, Any]:
    """Draw the metric over learning rates; above it each arm's best rate and its interval."""
    layers = _dots_layers(dots, arms, axes, (), has_hover=has_hover)
    color = arm_color(arms)
    for each in best:
        height = alt.value(4 + STRIP * list(arms).index(each.arm))
        base = alt.Chart(inline([each]))
        if each.low is not None and each.high is not None:
            layers.append(
                base.mark_rule(strokeWidth=2).encode(
                    x=_x(axes, "low"), x2="high:Q", y=height, color=color
                )
            )
        layers.append(
            base.mark_point(filled=True, shape="diamond", size=70, opacity=1).encode(
                x=_x(axes, "rate"),
                y=height,
                color=color,
                tooltip=[
                    alt.Tooltip(f"{AT_ARM}:N"),
                    alt.Tooltip("rate:Q", title="best rate", format=".2e"),
                    alt.Tooltip("low:Q", title="interval from", format=".2e"),
                    alt.Tooltip("high:Q", title="to", format=".2e"),
                    alt.Tooltip("seeds:Q"),
                ],
            )
        )
    return finish(layers)


def capacity_spec(
    line: Sequence[CurvePoint],
    departures: Sequence[MeanPoint],
    arms: Sequence[str],
    y_title: str,
    *,
    has_hover: bool,
) -> dict[str, Any]:
    """Draw held-out curves over the logarithm of steps; diamonds where an arm leaves the baseline."""
    color = arm_color(arms)
    base = alt.Chart(inline(line))
    x = alt.X("step:Q", title="optimizer step, logarithmic", scale=_log_scale())
    y = _y(Axes("", y_title), "mean")
    layers: list[alt.Chart] = [
        base.mark_area(opacity=0.14).encode(
            x=x, y=_y(Axes("", y_title), "low"), y2="high:Q", color=color
        ),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=arm_dash(arms)),
    ]
    if departures:
        layers.append(
            alt.Chart(inline(departures))
            .mark_point(filled=True, shape="diamond", size=110, opacity=1, stroke=PAPER)
            .encode(
                x=alt.X("x:Q", title="optimizer step, logarithmic", scale=_log_scale()),
                y=y,
                color=color,
                tooltip=[
                    alt.Tooltip(f"{AT_ARM}:N"),
                    alt.Tooltip("x:Q", title="departs at step, median"),
                    alt.Tooltip("seeds:Q", title="seeds that depart"),
                ],
            )
        )
    if has_hover and line:
        layers += hover(base, x, y, color, "step", _tooltips("step"))
    return finish(layers)


def _dots_layers(
    dots: Dots,
    arms: Sequence[str],
    axes: Axes,
    references: Sequence[Reference],
    *,
    has_hover: bool,
) -> list[alt.Chart]:
    color = arm_color(arms)
    ticks = sorted({point.x for point in dots.means if isinstance(point.x, float)})
    x, y = _x(axes, ticks=ticks), _y(axes, "mean")
    means = alt.Chart(inline(dots.means))
    layers = [layer for each in references for layer in _reference(each, axes, color)]
    if dots.seeds:
        seeds = alt.Chart(inline(dots.seeds))
        layers.append(
            seeds.mark_point(filled=True, size=22, opacity=0.45).encode(
                x=x, y=_y(axes, "value"), color=color
            )
        )
    if axes.x == "log":
        layers.append(
            means.mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=arm_dash(arms))
        )
    whole = [point for point in dots.means if point.low is not None and point.high is not None]
    if whole:
        layers.append(
            alt.Chart(inline(whole))
            .mark_rule(strokeWidth=1.5)
            .encode(x=x, y=_y(axes, "low"), y2="high:Q", color=color)
        )
    layers.append(
        means.mark_point(filled=True, size=60, opacity=1, stroke=PAPER, strokeWidth=1).encode(
            x=x, y=y, color=color
        )
    )
    if has_hover and dots.means:
        layers += hover(means, x, y, color, "x", _tooltips("x"))
    return layers


def _reference(reference: Reference, axes: Axes, color: alt.Color) -> list[alt.Chart]:
    """Draw a level as a line: an arm's in its colour, any other faint and with its name."""
    row = {"mean": reference.y, "words": reference.words, "arm": reference.arm}
    base = alt.Chart(alt.InlineData(values=[row]))
    y = _y(axes, "mean")
    if reference.arm is not None:
        return [base.mark_rule(strokeWidth=1.5, strokeDash=[1, 0]).encode(y=y, color=color)]
    return [
        base.mark_rule(strokeWidth=1, strokeDash=[3, 3], color=FAINT).encode(y=y),
        base.mark_text(align="left", baseline="bottom", dx=4, dy=-2, fontSize=11, color=INK).encode(
            x=alt.value(0), y=y, text="words:N"
        ),
    ]


def _x(axes: Axes, field: str = "x", ticks: Sequence[float] = ()) -> alt.X:
    if axes.x == "category":
        # A bar in a name begins a new line.
        axis = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '|')", labelLimit=200)
        return alt.X(f"{field}:N", title=axes.x_title, sort=None, axis=axis)
    shown: dict[str, Any] = {"values": list(ticks)} if ticks else {}
    axis = alt.Axis(format=axes.x_format, labelOverlap=True, **shown)
    return alt.X(f"{field}:Q", title=axes.x_title, scale=_log_scale(), axis=axis)


def _y(axes: Axes, field: str) -> alt.Y:
    span: dict[str, Any] = {"range": [HEIGHT, axes.top]} if axes.top else {}
    if axes.y_domain:
        span |= {"domain": list(axes.y_domain), "clamp": True, "nice": False}
    if axes.is_y_log:
        span |= {"type": "log"}
    else:
        span |= {"zero": False}
    return alt.Y(f"{field}:Q", title=axes.y_title.split("|"), scale=alt.Scale(**span))


def _log_scale() -> alt.Scale:
    return alt.Scale(type="log", nice=False, padding=14)


def _tooltips(place: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(f"{AT_ARM}:N"),
        alt.Tooltip(f"{place}:N", title="at" if place == "x" else place),
        alt.Tooltip("mean:Q", title="mean over seeds", format=".4g"),
        alt.Tooltip("low:Q", title="lower end", format=".4g"),
        alt.Tooltip("high:Q", title="upper end", format=".4g"),
        alt.Tooltip("seeds:Q"),
    ]
