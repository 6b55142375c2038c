"""The band under a memory figure: what a vLLM beside the trainer reserves for its key-value cache.

The lens reads the pool as part of the arm's line; the band says how much of that line it is. Bands
reach from zero to the pool's size, from the end of building on; one label names them all, since
pools of two arms often differ by less than a line of text. A pool that sleeps has the same band, as
generations are too many and too short to be drawn apart; the caption says when it is there. What this
leaves out: the figure around it (`charts`).
"""

from __future__ import annotations

from dataclasses import asdict

import altair as alt

from harness import text
from harness.palette import INK
from harness.traces import MemoryTrace

# A band lower than this share of the highest sample has no room for words inside.
ROOM_FOR_WORDS = 0.15


def pool_layers(
    trace: MemoryTrace, x_title: str, y: alt.Y, color: alt.Color, unit_bytes: int
) -> list[alt.Chart]:
    """Draw a band per arm whose engine has a pool, and their label."""
    if not trace.pools:
        return []
    rows = [{**asdict(p), "amount": p.bytes / unit_bytes, "zero": 0} for p in trace.pools]
    bands = alt.Chart(alt.InlineData(values=rows))
    begin = alt.X("begin_s:Q", title=x_title)
    lowest = min(trace.pools, key=lambda p: p.bytes)
    highest = max((p.high_bytes for p in trace.slices), default=0)
    has_room = lowest.bytes >= ROOM_FOR_WORDS * highest
    # In the middle, which the lines of its own arms can't cross.
    middle = lowest.bytes / 2 if has_room else lowest.bytes
    label = {
        "words": pool_label(trace),
        "amount": middle / unit_bytes,
        "begin_s": min(p.begin_s for p in trace.pools),
    }
    return [
        bands.mark_rect(opacity=0.1).encode(
            x=begin, x2="end_s:Q", y=y, y2="zero:Q", color=color, tooltip=_tooltips()
        ),
        bands.mark_rule(strokeDash=[2, 3], strokeWidth=1.2).encode(
            x=begin, x2="end_s:Q", y=y, color=color
        ),
        alt.Chart(alt.InlineData(values=[label]))
        .mark_text(
            align="left",
            baseline="middle" if has_room else "bottom",
            fontSize=11,
            dx=5,
            dy=0 if has_room else -4,
            color=INK,
        )
        .encode(x=begin, y=y, text="words:N"),
    ]


def pool_label(trace: MemoryTrace) -> str:
    """Name a figure's pools: whose they are, unless everybody's, and how much is reserved."""
    if len({text.memory(p.bytes) for p in trace.pools}) > 1:
        each = ", ".join(f"{p.arm} {text.memory(p.bytes)}" for p in trace.pools)
        return f"vLLM pools reserved: {each}"
    is_everybodys = len(trace.pools) == len(trace.seeds)
    whose = "" if is_everybodys else f" of {', '.join(p.arm for p in trace.pools)}"
    return f"vLLM pool{whose}, {text.memory(trace.pools[0].bytes)} reserved"


def pool_sentence(trace: MemoryTrace) -> str:
    """Say in a caption what the bands are; empty without any."""
    if not trace.pools:
        return ""
    what = f"Band: {pool_label(trace)} for its key-value cache, {_when_held(trace)}"
    asked = {p.arm: p.asked for p in trace.pools if p.asked is not None}
    if len(set(asked.values())) == 1 and len(asked) == len(trace.pools):
        what += f" (vllm_gpu_memory_utilization {next(iter(asked.values())):g})"
    elif asked:
        each = ", ".join(f"{arm} {value:g}" for arm, value in asked.items())
        what += f" (vllm_gpu_memory_utilization: {each})"
    return f" {what}."


def _when_held(trace: MemoryTrace) -> str:
    """Say when pools are part of their arms' lines: always, or while an engine that sleeps generates."""
    asleep = [p.arm for p in trace.pools if p.sleeps]
    if not asleep:
        return "part of the arm's line"
    whose = "" if len(asleep) == len(trace.pools) else f", for {', '.join(asleep)}"
    return (
        f"part of the arm's line{whose} only while it generates: in sleep mode it is freed between "
        "generations"
    )


def _tooltips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("arm:N"),
        alt.Tooltip("bytes:Q", title="vLLM pool, bytes", format=","),
        alt.Tooltip("asked:Q", title="vllm_gpu_memory_utilization"),
    ]
