"""The scorecard's figure: what was measured over what was forecast, a point a run, on equal axes.

A point on the diagonal was forecast exactly; the line through it is the forecast's interval, and it
crosses the diagonal where the run lies inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from harness import text
from harness.chart_parts import HEIGHT, Figure, finish, make_figure
from harness.lenses import ABOVE_IDLE, DEVICE, LENS_ORDER
from harness.palette import ARM_COLORS, FAINT, PAPER
from harness.scorecard import Score
from harness.scorecard_tables import lens_name, scores
from harness.view import StudyView

INSIDE, OUTSIDE = "inside its interval", "outside"
TALL = HEIGHT + 60


def scorecard_figures(view: StudyView) -> list[Figure]:
    """Draw a study's scorecard; nothing unless several runs have both values."""
    rows = drawn_scores(scores(view))
    if not rows:
        return []
    specs = (scorecard_spec(rows, has_hover=h) for h in (False, True))
    return [make_figure("forecast", scorecard_title(rows), scorecard_caption(rows), *specs)]


def drawn_scores(rows: Sequence[Score]) -> list[Score]:
    """Choose the rows of the one lens that memory is judged by, but those of grade D; none if one is left.

    Of NVML's device figure what is above idle: that is what is forecast.
    """
    judged = [row for row in rows if row.is_judged]
    order = [ABOVE_IDLE if lens == DEVICE else lens for lens in LENS_ORDER]
    lens = next((lens for lens in order if any(r.lens == lens for r in judged)), None)
    chosen = [row for row in judged if row.lens == lens]
    return chosen if len(chosen) > 1 else []


def scorecard_title(rows: Sequence[Score]) -> str:
    """Name what the figure is of."""
    return f"Forecast against measured: {lens_name(rows[0].lens)}"


def scorecard_caption(rows: Sequence[Score]) -> str:
    """Say what point, line and diagonal are."""
    inside = sum(row.is_inside for row in rows)
    return (
        f"{lens_name(rows[0].lens)[0].upper()}{lens_name(rows[0].lens)[1:]}, highest in training, "
        f"a point a run ({inside} of {len(rows)} inside). Line: the forecast's interval. On the diagonal "
        "the forecast was exact; a point above it held more than was forecast."
    )


def scorecard_spec(rows: Sequence[Score], *, has_hover: bool) -> dict[str, Any]:
    """Draw the points, their intervals and the diagonal."""
    highest = max(max(row.high_bytes, row.measured_bytes) for row in rows)
    unit, size = ("GiB", 2**30) if highest >= 2**30 else ("MiB", 2**20)
    top = 1.05 * highest / size
    scale = alt.Scale(domain=[0, top], nice=False)
    x_title = f"forecast, {unit}"
    y = alt.Y("measured:Q", title=f"measured, {unit}", scale=scale)
    color = alt.Color(
        "where:N",
        title=None,
        scale=alt.Scale(domain=[INSIDE, OUTSIDE], range=[ARM_COLORS[1], ARM_COLORS[0]]),
    )
    shapes = alt.Scale(domain=[INSIDE, OUTSIDE], range=["circle", "diamond"])
    base = alt.Chart(alt.InlineData(values=[_point(row, size) for row in rows]))
    corners = alt.InlineData(values=[{"forecast": at, "measured": at} for at in (0.0, top)])
    tooltip = [alt.Tooltip("run:N"), alt.Tooltip("said:N", title="measured of forecast")]
    x = alt.X("forecast:Q", title=x_title, scale=scale)
    layers = [
        alt.Chart(corners).mark_line(strokeDash=[4, 4], color=FAINT).encode(x=x, y=y),
        base.mark_rule(strokeWidth=1.4, opacity=0.4).encode(
            x=alt.X("low:Q", title=x_title, scale=scale), x2="high:Q", y=y, color=color
        ),
        base.mark_point(filled=True, size=60, opacity=1, stroke=PAPER).encode(
            x=x,
            y=y,
            color=color,
            shape=alt.Shape("where:N", title=None, scale=shapes),
            **({"tooltip": tooltip} if has_hover else {}),
        ),
    ]
    return finish(layers, TALL)


def _point(row: Score, size: int) -> dict[str, Any]:
    return {
        "run": row.cell,
        "forecast": row.forecast_bytes / size,
        "low": row.low_bytes / size,
        "high": row.high_bytes / size,
        "measured": row.measured_bytes / size,
        "where": INSIDE if row.is_inside else OUTSIDE,
        "said": f"{text.memory(row.measured_bytes)} of {text.memory(row.forecast_bytes)}",
    }
