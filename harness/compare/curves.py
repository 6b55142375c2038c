"""The series of both sides that a figure of a cell shows: what is always looked at, and what differs."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.grouping import CellRuns
from harness.compare.memory import LEAK
from harness.compare.model import Curve, Difference
from harness.compare.side import RunSide, Series
from harness.compare.speed import STEPS
from harness.compare.tracks import Track, tracks_of
from harness.spec import Task

MOST = 6
_ALWAYS: dict[Task, tuple[str, ...]] = {
    "sft": ("log/loss", "log/grad_norm"),
    "grpo": ("log/reward", "log/loss", "log/grad_norm"),
}


def curves_of(cell: CellRuns, found: Sequence[Difference]) -> tuple[Curve, ...]:
    """Return the curves of a cell's first seed that ended ok on both sides."""
    pair = next(iter(cell.ok_pairs.values()), None)
    if pair is None:
        return ()
    ours, theirs = _series_of(pair[0]), _series_of(pair[1])
    wanted = dict.fromkeys((*(d.what for d in found if d.word != "same"), *_ALWAYS[cell.task]))
    return tuple(
        Curve(what=what, base=ours[what], candidate=theirs[what])
        for what in wanted
        if what in ours and what in theirs
    )[:MOST]


def _series_of(run: RunSide) -> dict[str, Series]:
    tracks: dict[str, Track] = tracks_of(run)
    found: dict[str, Series] = {
        name: tuple(row[0] if row else None for row in track.rows)
        for name, track in tracks.items()
        if all(len(row) <= 1 for row in track.rows)
    }
    if run.probe is not None:
        found[LEAK] = tuple(step.rss_bytes for step in run.probe.steps)
        found[STEPS] = tuple(step.cpu_s for step in run.probe.steps)
    return found
