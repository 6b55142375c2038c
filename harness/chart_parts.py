"""What every figure is made of: a frame, colours and dashes of arms, rows as data, hovering, an SVG.

What this leaves out: the figures themselves (`charts`, `finding_charts`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import altair as alt
import vl_convert
from altair.utils import schemapi
from markupsafe import Markup, escape

from harness.palette import ARM_COLORS, ARM_DASHES, GRID, INK, PAPER

WIDTH, HEIGHT = 470, 230
# Of a legend's entries, pixels: a letter, the mark with its padding, and a line beside another legend.
LETTER, LEGEND_MARK, LEGEND_ROOM = 6.3, 46.0, 370.0


@dataclass(frozen=True)
class Figure:
    """One figure: the words, the static picture, the spec for the living one."""

    identity: str
    title: str
    caption: str
    svg: Markup
    file: str
    spec: dict[str, Any]


def make_figure(
    identity: str, title: str, caption: str, still: dict[str, Any], living: dict[str, Any]
) -> Figure:
    """Draw a figure's static picture and keep the spec of its living one."""
    # to_svg escapes the title; vl-convert escapes what the chart writes.
    svg = Markup(to_svg(still, title, identity))  # noqa: S704
    return Figure(identity, title, caption, svg, f"figures/{identity}.svg", living)


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


def hover(
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


def arm_color(arms: Sequence[str], *, has_legend: bool = True) -> alt.Color:
    """Give each arm its colour, the baseline first."""
    wrapped: dict[str, Any] = {}
    widest = max((len(arm) for arm in arms), default=0) * LETTER + LEGEND_MARK
    if len(arms) * widest > WIDTH:  # one line would squeeze the chart beneath it
        wrapped["columns"] = max(1, int(LEGEND_ROOM // widest))
    legend = alt.Legend(
        symbolType="stroke", symbolStrokeWidth=2.5, symbolSize=260, labelLimit=220, **wrapped
    )
    colors = [ARM_COLORS[i % len(ARM_COLORS)] for i in range(len(arms))]
    return alt.Color(
        "arm:N",
        title=None,
        scale=alt.Scale(domain=list(arms), range=colors),
        legend=legend if has_legend else None,
    )


def arm_dash(arms: Sequence[str]) -> alt.StrokeDash:
    """Give each arm a dash, another one where its colour comes round again."""
    n = len(ARM_DASHES)
    dashes = [ARM_DASHES[(i + i // n) % n] for i in range(len(arms))]
    return alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=list(arms), range=dashes))


def inline(rows: Sequence[Any], more: Any = None) -> alt.InlineData:
    """Write rows (dataclasses) as a chart's data; `more` adds fields to a row."""
    values = [asdict(row) for row in rows]
    values = [{**v, **more(v)} for v in values] if more else values
    return alt.InlineData(values=[{k: _short(v) for k, v in row.items()} for row in values])


def _short(value: Any) -> Any:
    """Round to what a pixel can show: digits are most of a spec's size."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def finish(layers: list[alt.Chart], height: int = HEIGHT) -> dict[str, Any]:
    """Lay charts over one another in the frame that all figures share."""
    quiet: dict[str, Any] = {"labelColor": INK, "titleColor": INK, "titleFontWeight": 500}
    # In one call: each chained `configure_…` would copy and check every layer again.
    chart = alt.layer(
        *layers,
        width=WIDTH,
        height=height,
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
    spec: dict[str, Any] = chart.to_dict(validate=schemapi.DEBUG_MODE)
    return spec


def unchecked() -> AbstractContextManager[None]:
    """Draw without altair checking every part against its schema, which takes half of a report's time.

    The charts are the same; tests draw them checked.
    """
    return schemapi.debug_mode(False)
