"""The page's two figures as altair charts: learning curves and memory over time, arms overlaid.

One definition gives two things: a static SVG by vl-convert, which stands in the page and in the
Markdown, and a Vega-Lite spec with hovering added, which a browser with scripts draws in its place.
Colours are few and named, so that a style sheet can swap them by attribute in the dark. What this
leaves out: the numbers (`series`, `traces`) and the words around them (`report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from harness import text
from harness.chart_parts import HEIGHT, arm_color, arm_dash, finish, hover, inline
from harness.lenses import LENS_NAMES
from harness.palette import FAINT, PAPER, PHASE_COLORS
from harness.pool_band import pool_layers
from harness.series import Curves
from harness.traces import MemoryTrace

TIME_TITLE = "seconds since the model began to load"
STRIP, STRIP_GAP = 9, 5  # height of a phase strip and the space below it, pixels
FEW = 4  # strips that need no taller figure


def curves_spec(curves: Curves, arms: Sequence[str], *, has_hover: bool) -> dict[str, Any]:
    """Draw learning curves: a line and a band per arm, held-out evaluations as points."""
    line = inline(curves.line)
    x = alt.X(
        "step:Q",
        title="optimizer step",
        axis=alt.Axis(tickMinStep=1),
        scale=alt.Scale(nice=False, zero=True),
    )
    color = arm_color(arms)
    base = alt.Chart(line)
    layers: list[alt.Chart] = [
        base.mark_area(opacity=0.16).encode(
            x=x, y=_curve_y(curves, "low"), y2="high:Q", color=color
        ),
        base.mark_line(strokeWidth=2).encode(
            x=x, y=_curve_y(curves, "mean"), color=color, strokeDash=arm_dash(arms)
        ),
    ]
    if curves.held_out:
        layers += _held_out_layers(curves, x, color)
    if has_hover and curves.line:
        layers += hover(base, x, _curve_y(curves, "mean"), color, "step", _curve_tooltips())
    return finish(layers)


def memory_spec(trace: MemoryTrace, arms: Sequence[str], *, has_hover: bool) -> dict[str, Any]:
    """Draw memory over time: a line per arm, its peak in training, its phases as a strip on top."""
    shown = [a for a, _ in trace.seeds]
    top = len(shown) * (STRIP + STRIP_GAP) + 16
    height = HEIGHT + (STRIP + STRIP_GAP) * max(0, len(shown) - FEW)
    in_gib = max((p.high_bytes for p in trace.slices), default=0) >= 2**30
    unit, size = ("GiB", 2**30) if in_gib else ("MiB", 2**20)
    last = max((p.t_s for p in trace.slices), default=1.0)
    # Room on the right for the peak that is written at the end of each strip.
    x = alt.X("t_s:Q", title=TIME_TITLE, scale=alt.Scale(domain=[0, last * 1.24], nice=False))
    y = alt.Y(
        "amount:Q",
        title=memory_title(trace) + f", {unit}",
        scale=alt.Scale(zero=True, range=[height, top]),
    )
    color = arm_color(arms, has_legend=False)  # the strips carry the names
    base = alt.Chart(
        inline(
            trace.slices,
            lambda p: {"amount": p["high_bytes"] / size, "low": p["low_bytes"] / size},
        )
    )
    peaks = alt.Chart(inline(trace.peaks, lambda p: {"amount": p["bytes"] / size}))
    layers: list[alt.Chart] = [
        *pool_layers(trace, TIME_TITLE, y, color, size),
        base.mark_area(opacity=0.18).encode(x=x, y=y, y2="low:Q", color=color),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=color),
        peaks.mark_point(filled=True, size=46, opacity=1, stroke=PAPER).encode(
            x=x, y=y, color=color
        ),
        *_strips(trace, shown, color),
    ]
    if has_hover:
        layers += hover(base, x, y, color, "t_s", _memory_tooltips(unit))
    return finish(layers, height)


def memory_title(trace: MemoryTrace) -> str:
    """Name the lens, and the statistic if it is not the plain reading."""
    name = LENS_NAMES[trace.lens]
    return f"growth of {name}" if trace.is_growth else name


def _held_out_layers(curves: Curves, x: alt.X, color: alt.Color) -> list[alt.Chart]:
    base = alt.Chart(inline(curves.held_out))
    present = {p.split for p in curves.held_out}
    splits = [s for s in ("validation", "test") if s in present]
    shapes = {"validation": "circle", "test": "diamond"}
    shape = alt.Shape(
        "split:N",
        title=None,
        scale=alt.Scale(domain=splits, range=[shapes[s] for s in splits]),
        legend=alt.Legend(
            labelExpr="'held-out ' + datum.label", symbolFillColor=FAINT, symbolStrokeColor=FAINT
        ),
    )
    y = _curve_y(curves, "mean")
    return [
        base.mark_rule(strokeWidth=1.5).encode(
            x=x, y=_curve_y(curves, "low"), y2="high:Q", color=color
        ),
        base.mark_point(filled=True, size=70, opacity=1, stroke=PAPER, strokeWidth=1).encode(
            x=x,
            y=y,
            color=color,
            shape=shape,
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("split:N", title="held-out"),
                *_curve_tooltips()[1:],
            ],
        ),
    ]


def _strips(trace: MemoryTrace, shown: Sequence[str], color: alt.Color) -> list[alt.Chart]:
    present = [p for p in PHASE_COLORS if any(s.phase == p for s in trace.spans)]
    fill = alt.Fill(
        "phase:N",
        title="phase:",
        scale=alt.Scale(domain=present, range=[PHASE_COLORS[p] for p in present]),
        legend=alt.Legend(
            orient="bottom", symbolType="square", columns=6, symbolStrokeWidth=0, titleOrient="left"
        ),
    )
    layers: list[alt.Chart] = []
    for row, arm in enumerate(shown):
        top = row * (STRIP + STRIP_GAP)
        spans = [s for s in trace.spans if s.arm == arm]
        layers.append(
            alt.Chart(inline(spans))
            .mark_rect()
            .encode(
                x=alt.X("begin_s:Q", title=TIME_TITLE),
                x2="end_s:Q",
                y=alt.value(top),
                y2=alt.value(top + STRIP),
                fill=fill,
                tooltip=[
                    alt.Tooltip("arm:N"),
                    alt.Tooltip("phase:N"),
                    alt.Tooltip("begin_s:Q", title="from (s)", format=".1f"),
                    alt.Tooltip("end_s:Q", title="to (s)", format=".1f"),
                ],
            )
        )
        layers += _strip_labels(trace, arm, top + STRIP / 2, color)
    return layers


def _strip_labels(trace: MemoryTrace, arm: str, y: float, color: alt.Color) -> list[alt.Chart]:
    """Write the arm's name before its strip and its peak in training behind it."""
    end = max((s.end_s for s in trace.spans if s.arm == arm), default=0.0)
    peak = next((p.bytes for p in trace.peaks if p.arm == arm), None)
    row = {"arm": arm, "t_s": end, "peak": f"peak {text.memory(peak)}" if peak else ""}
    base = alt.Chart(alt.InlineData(values=[row]))
    return [
        base.mark_text(align="right", baseline="middle", fontSize=11, dx=-6, limit=120).encode(
            x=alt.value(0), y=alt.value(y), text="arm:N", color=color
        ),
        base.mark_text(align="left", baseline="middle", fontSize=11, fontWeight=600, dx=6).encode(
            x=alt.X("t_s:Q", title=TIME_TITLE), y=alt.value(y), text="peak:N", color=color
        ),
    ]


def _curve_tooltips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("mean:Q", title="mean over seeds", format=".4f"),
        alt.Tooltip("low:Q", title="lowest seed", format=".4f"),
        alt.Tooltip("high:Q", title="highest seed", format=".4f"),
        alt.Tooltip("seeds:Q"),
    ]


def _memory_tooltips(unit: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("t_s:Q", title="seconds", format=".2f"),
        alt.Tooltip("amount:Q", title=f"highest, {unit}", format=",.1f"),
        alt.Tooltip("low:Q", title=f"lowest, {unit}", format=",.1f"),
    ]


def _curve_y(curves: Curves, field: str) -> alt.Y:
    unit = ", nats per completion token" if curves.metric == "nll" else ""
    return alt.Y(f"{field}:Q", title=curves.measure + unit, scale=alt.Scale(zero=False))
