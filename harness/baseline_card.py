"""What is said of a baseline: what it was made of, a line a run, checksums; and what was accepted of it.

These are the small files that a reviewer reads. What this leaves out: reading and writing them
(`baselines`), and the numbers themselves (`compare/side`).

Format history of baseline.json and acknowledged.json:
  1  first format
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from harness.compare.model import Acknowledged
from harness.compare.side import RunSide
from harness.frozen import Count, Frozen
from harness.record import MetricName, Status

FORMAT = 1


class Provenance(Frozen):
    """What a baseline was made of."""

    study: str = Field(description="the study's name")
    commits: tuple[str, ...] = Field(
        (), description="of the harness's tree when the runs were recorded; several if it moved on"
    )
    is_dirty: bool | None = Field(
        None, description="whether tracked files differed from the commit; null: not known"
    )


class RunLine(Frozen):
    """One run in a few numbers, for whoever reviews a baseline."""

    status: Status | None
    metric: MetricName | None = None
    final_value: float | None = Field(None, description="held-out, after training")
    first_loss: float | None = Field(None, description="the first that TRL logged")
    last_loss: float | None = None
    steps: Count = 0
    sha256: str | None = Field(
        None, description="of the trainable parameters after the last probed step"
    )
    growth_bytes: dict[str, int | None] = Field(default_factory=dict)


class Baseline(Frozen):
    """`baseline.json`."""

    format: int = FORMAT
    name: str
    label: str
    matrix_name: str
    matrix_hash: str
    harness_version: str
    created_utc: str = Field(description="when the study began")
    made_of: Provenance
    packages: dict[str, str | None]
    platform: dict[str, Any] = Field(description="machine fingerprint")
    runs: dict[str, RunLine]
    files: dict[str, str] = Field(description="file → SHA-256 of its bytes")
    sha256: str | None = Field(None, description="of this file's content, this field null")


class Acknowledgements(Frozen):
    """`acknowledged.json`."""

    format: int = FORMAT
    acknowledged: tuple[Acknowledged, ...] = ()
    retired: tuple[Acknowledged, ...] = Field(
        (), description="what a later promotion took in: they excuse nothing any more"
    )


def summarise_run(run: RunSide) -> RunLine:
    """Say a run in a few numbers."""
    losses = [loss for loss in run.series.get("loss", ()) if loss is not None]
    after = [point for point in run.evaluations if point.step > 0]
    judged = [point for point in after if point.split == "test"] or after
    last = judged[-1] if judged else None
    probed = run.probe.steps if run.probe else ()
    return RunLine(
        status=run.status,
        metric=last.metric if last else None,
        final_value=last.value if last else None,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        steps=max((len(values) for values in run.series.values()), default=0),
        sha256=probed[-1].sha256 if probed else None,
        growth_bytes=run.growth_bytes,
    )
