"""The page's two figures as altair charts: learning curves and memory over time, arms overlaid.

One definition gives two things: a static SVG by vl-convert, which stands in the page and in the
Markdown, and a Vega-Lite spec with hovering added, which a browser with scripts draws in its place.
Colours are few and named, so that a style sheet can swap them by attribute in the dark. What this
leaves out: the numbers (`series`, `traces`) and the words around them (`report`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import altair as alt
import vl_convert
from markupsafe import escape

from harness import text
from harness.palette import ARM_COLORS, ARM_DASHES, FAINT, GRID, INK, PAPER, PHASE_COLORS
from harness.pool_band import pool_layers
from harness.series import Curves
from harness.summary import LENS_NAMES
from harness.traces import MemoryTrace

WIDTH, HEIGHT = 470, 230
TIME_TITLE = "seconds since the model began to load"
STRIP, STRIP_GAP = 9, 5  # height of a phase strip and the space below it, pixels


def curves_spec(curves: Curves, arms: Sequence[str], *, has_hover: bool) -> dict[str, Any]:
    """Draw learning curves: a line and a band per arm, held-out evaluations as points."""
    line = _data(curves.line)
    x = alt.X(
        "step:Q",
        title="optimizer step",
        axis=alt.Axis(tickMinStep=1),
        scale=alt.Scale(nice=False, zero=True),
    )
    color = _arm_color(arms)
    base = alt.Chart(line)
    layers: list[alt.Chart] = [
        base.mark_area(opacity=0.16).encode(
            x=x, y=_curve_y(curves, "low"), y2="high:Q", color=color
        ),
        base.mark_line(strokeWidth=2).encode(
            x=x, y=_curve_y(curves, "mean"), color=color, strokeDash=_arm_dash(arms)
        ),
    ]
    if curves.held_out:
        layers += _held_out_layers(curves, x, color)
    if has_hover and curves.line:
        layers += _hover(base, x, _curve_y(curves, "mean"), color, "step", _curve_tooltips())
    return _finish(layers)


def memory_spec(trace: MemoryTrace, arms: Sequence[str], *, has_hover: bool) -> dict[str, Any]:
    """Draw memory over time: a line per arm, its peak in training, its phases as a strip on top."""
    shown = [a for a, _ in trace.seeds]
    top = len(shown) * (STRIP + STRIP_GAP) + 16
    in_gib = max((p.high_bytes for p in trace.slices), default=0) >= 2**30
    unit, size = ("GiB", 2**30) if in_gib else ("MiB", 2**20)
    last = max((p.t_s for p in trace.slices), default=1.0)
    # Room on the right for the peak that is written at the end of each strip.
    x = alt.X("t_s:Q", title=TIME_TITLE, scale=alt.Scale(domain=[0, last * 1.24], nice=False))
    y = alt.Y(
        "amount:Q",
        title=memory_title(trace) + f", {unit}",
        scale=alt.Scale(zero=True, range=[HEIGHT, top]),
    )
    color = _arm_color(arms, has_legend=False)  # the strips carry the names
    base = alt.Chart(
        _data(
            trace.slices,
            lambda p: {"amount": p["high_bytes"] / size, "low": p["low_bytes"] / size},
        )
    )
    peaks = alt.Chart(_data(trace.peaks, lambda p: {"amount": p["bytes"] / size}))
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
        layers += _hover(base, x, y, color, "t_s", _memory_tooltips(unit))
    return _finish(layers)


def memory_title(trace: MemoryTrace) -> str:
    """Name the lens, and the statistic if it is not the plain reading."""
    name = LENS_NAMES[trace.lens]
    return f"growth of {name}" if trace.is_growth else name


def to_svg(spec: dict[str, Any], label: str, identity: str) -> str:
    """Render a spec as an SVG to stand inside a page, with a name for screen readers.

    identity: a prefix for ids; several SVGs in one page must not share them.
    """
    svg = str(vl_convert.vegalite_to_svg(spec))
    svg = re.sub(r'\bid="(clip|gradient)', rf'id="{identity}-\1', svg)
    svg = re.sub(r"url\(#(clip|gradient)", rf"url(#{identity}-\1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def on_paper(svg: str) -> str:
    """Give an SVG a light background, for readers whose page may be dark."""
    background = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    return re.sub(r"(<svg [^>]*>)", rf"\1{background}", svg, count=1)


def _held_out_layers(curves: Curves, x: alt.X, color: alt.Color) -> list[alt.Chart]:
    base = alt.Chart(_data(curves.held_out))
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
            alt.Chart(_data(spans))
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


def _hover(
    base: alt.Chart,
    x: alt.X,
    y: alt.Y,
    color: alt.Color,
    field: str,
    tooltips: list[alt.Tooltip],
) -> list[alt.Chart]:
    """Add points that are invisible until the pointer is nearest to them."""
    nearest = alt.selection_point(
        name="nearest", nearest=True, on="pointerover", fields=[field, "arm"], empty=False,
        clear="pointerout",
    )  # fmt: skip
    points = base.mark_point(filled=True, size=60, stroke=PAPER).encode(
        x=x,
        y=y,
        color=color,
        opacity=alt.condition(nearest, alt.value(1), alt.value(0)),
        tooltip=tooltips,
    )
    return [points.add_params(nearest)]


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


def _arm_color(arms: Sequence[str], *, has_legend: bool = True) -> alt.Color:
    legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=2.5, symbolSize=260, labelLimit=220)
    colors = [ARM_COLORS[i % len(ARM_COLORS)] for i in range(len(arms))]
    return alt.Color(
        "arm:N",
        title=None,
        scale=alt.Scale(domain=list(arms), range=colors),
        legend=legend if has_legend else None,
    )


def _arm_dash(arms: Sequence[str]) -> alt.StrokeDash:
    dashes = [ARM_DASHES[i % len(ARM_DASHES)] for i in range(len(arms))]
    return alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=list(arms), range=dashes))


def _data(rows: Sequence[Any], more: Any = None) -> alt.InlineData:
    values = [asdict(row) for row in rows]
    values = [{**v, **more(v)} for v in values] if more else values
    return alt.InlineData(values=[{k: _short(v) for k, v in row.items()} for row in values])


def _short(value: Any) -> Any:
    """Round to what a pixel can show: digits are most of a spec's size."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _finish(layers: list[alt.Chart]) -> dict[str, Any]:
    quiet: dict[str, Any] = {"labelColor": INK, "titleColor": INK, "titleFontWeight": 500}
    # In one call: each chained `configure_…` would copy and check every layer again.
    chart = alt.layer(
        *layers,
        width=WIDTH,
        height=HEIGHT,
        background="transparent",
        padding=4,
        autosize=alt.AutoSizeParams(type="pad", contains="padding"),
        config=alt.Config(
            font="system-ui, -apple-system, 'Segoe UI', sans-serif",
            aria=False,
            view=alt.ViewConfig(stroke=None),
            axis=alt.AxisConfig(
                **quiet, gridColor=GRID, domainColor=GRID, tickColor=GRID, labelFontSize=11,
                titleFontSize=11.5, titlePadding=8,
            ),
            axisX=alt.AxisConfig(grid=False, tickCount=6),
            axisY=alt.AxisConfig(domain=False, ticks=False, tickCount=5),
            legend=alt.LegendConfig(
                **quiet, orient="top", labelFontSize=11.5, titleFontSize=11.5, offset=6,
                symbolOpacity=1, columnPadding=18, titleAnchor="middle",
            ),
        ),
    )  # fmt: skip
    spec: dict[str, Any] = chart.to_dict()
    return spec
