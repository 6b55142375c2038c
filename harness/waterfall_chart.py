"""The figure of what each arm's highest memory in training is made of: a bar an arm, parts in order.

One seed an arm, the one of the memory figure. A size is written where its part is wide enough for it;
the total stands behind the bar. What this leaves out: the parts themselves (`waterfall`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from harness import text
from harness.chart_parts import finish
from harness.lenses import LENS_NAMES, RSS
from harness.palette import INK, PART_COLORS
from harness.view import StudyView
from harness.waterfall import OTHERS, PARTS, Waterfall, waterfall_of

BAR, ROW = 22, 34  # height of a bar and of its row, pixels
WIDE_ENOUGH = 0.11  # share of the longest bar that a size needs to stand inside its part
ROOM = 1.2  # to the right of the longest bar, for its total

Shown = Mapping[str, Waterfall]  # arm → its peak taken apart


def peaks_of(view: StudyView, pair: str, seeds: Sequence[tuple[str, int]]) -> dict[str, Waterfall]:
    """Take the peaks of one run an arm apart; arms whose run has none, or another lens, are left out.

    seeds: arm and seed, as the memory figure shows them.
    """
    found = {}
    for arm, seed in seeds:
        for run in view.runs:
            if (run.planned.pair, run.planned.arm, run.planned.seed) == (pair, arm, seed):
                parts = waterfall_of(run, view.forecasts)
                if parts is not None:
                    found[arm] = parts
    lens = next((parts.lens for parts in found.values()), None)
    return {arm: parts for arm, parts in found.items() if parts.lens == lens}


def is_worth_drawing(shown: Shown) -> bool:
    """Whether some peak has more than one part: an undivided bar says nothing."""
    return any(len(parts.parts) > 1 for parts in shown.values())


def peak_title(shown: Shown) -> str:
    """Name the lens and statistic that the bars are of."""
    first = next(iter(shown.values()))
    name = next((name for lens, name in LENS_NAMES.items() if lens == first.lens), first.lens)
    return f"peak growth of {name}" if first.lens == RSS else f"peak {name}"


def peak_caption(shown: Shown, seeds: Sequence[tuple[str, int]]) -> str:
    """Say what was counted, what was read, and what can't be told apart."""
    first = next(iter(shown.values()))
    title = peak_title(shown)
    which = {seed for arm, seed in seeds if arm in shown}
    seed = f"seed {which.pop()}" if len(which) == 1 else "one seed an arm"
    counted = "Weights, gradients and optimizer state: parameters times bytes of their dtype"
    read = "" if first.lens == RSS else _how_read(shown)
    where = " of the first process's GPU" if any(s.device for s in shown.values()) else ""
    rest = "activations, logits and temporaries follow one another within a step: no lens tells them apart"
    if any(part.name == OTHERS for parts in shown.values() for part in parts.parts):
        rest += (
            "; they are split in the proportions of the arm's traced forecast at its highest moment"
        )
    return f"{title[0].upper()}{title[1:]}{where} in training, {seed}. {counted}{read}. The rest: {rest}."


def _how_read(shown: Shown) -> str:
    """Say where the parts come from that are read off lenses and of an engine, and what is missing."""
    present = {part.name for parts in shown.values() for part in parts.parts}
    said = "; vLLM pool: what the engine reserves" if "vLLM pool" in present else ""
    if "context and libraries" in present:
        return said + (
            "; context and libraries: NVML above idle minus torch reserved; fragmentation: torch reserved "
            "minus allocated, a peak each"
        )
    return f"{said}; without torch's counters context, libraries and fragmentation are part of the rest"


def peak_spec(shown: Shown, *, has_hover: bool) -> dict[str, Any]:
    """Draw a bar an arm whose parts lie end to end."""
    arms = list(shown)
    highest = max(parts.total_bytes for parts in shown.values())
    unit, size = ("GiB", 2**30) if highest >= 2**30 else ("MiB", 2**20)
    rows, totals = [], []
    for arm, parts in shown.items():
        begin = 0
        for part in parts.parts:
            is_wide = part.bytes >= WIDE_ENOUGH * highest
            rows.append(
                {
                    "arm": arm,
                    "part": part.name,
                    "begin": begin / size,
                    "end": (begin + part.bytes) / size,
                    "middle": (begin + part.bytes / 2) / size,
                    "words": text.memory(part.bytes) if is_wide else "",
                    "said": text.memory(part.bytes),
                }
            )
            begin += part.bytes
        totals.append({"arm": arm, "end": begin / size, "words": text.memory(begin), "part": ""})
    present = [name for name in PARTS if any(row["part"] == name for row in rows)]
    return finish(
        _layers(
            arms, present, rows, totals, f"{peak_title(shown)}, {unit}", highest / size, has_hover
        ),
        max(60, ROW * len(arms)),
    )


def _layers(
    arms: Sequence[str],
    present: Sequence[str],
    rows: list[dict[str, Any]],
    totals: list[dict[str, Any]],
    title: str,
    highest: float,
    has_hover: bool,
) -> list[alt.Chart]:
    y = alt.Y("arm:N", title=None, sort=list(arms), axis=alt.Axis(labelLimit=120, grid=False))
    scale = alt.Scale(domain=[0, highest * ROOM], nice=False)
    fill = alt.Fill(
        "part:N",
        title=None,
        scale=alt.Scale(domain=list(present), range=[PART_COLORS[name] for name in present]),
        legend=alt.Legend(orient="bottom", symbolType="square", columns=2, labelLimit=250),
    )
    tooltip = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("part:N"),
        alt.Tooltip("said:N", title="bytes"),
    ]
    bars = alt.Chart(alt.InlineData(values=rows))
    drawn = bars.mark_bar(height=BAR).encode(
        x=alt.X("begin:Q", title=title, scale=scale),
        x2="end:Q",
        y=y,
        fill=fill,
        **({"tooltip": tooltip} if has_hover else {}),
    )
    sizes = bars.mark_text(fontSize=10.5, baseline="middle", color="#1d2127").encode(
        x=alt.X("middle:Q", title=title), y=y, text="words:N"
    )
    whole = (
        alt.Chart(alt.InlineData(values=totals))
        .mark_text(align="left", baseline="middle", fontSize=11, fontWeight=600, dx=6, color=INK)
        .encode(x=alt.X("end:Q", title=title), y=y, text="words:N")
    )
    return [drawn, sizes, whole]
