"""One side of a comparison: what a study says, or what a baseline kept of one.

A study is read into it (`reading`); a baseline is one that was written down. Only what a comparison asks
for is here, so a baseline is small and can be reviewed. Values are raw; missing is null.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from harness.frozen import Count, Frozen, absent
from harness.grade import MeasurementGrade
from harness.probe import Probe, Value
from harness.record import EvaluationPoint, Status
from harness.spec import Method, Task

FORMAT = 1
Series = tuple[float | None, ...]


class RunSide(Frozen):
    """One run."""

    cell: str = Field(description="pair.arm.sSEED: what the other side's run is found by")
    pair: str
    arm: str
    seed: int
    task: Task
    method: Method
    spec_sha256: str = Field(description="of the run's resolved spec: what was asked for")
    status: Status | None = Field(description="null: planned and not run")
    reason: str | None = None
    started_utc: str | None = None
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="resolved_config.json: every trainer argument, defaults included",
    )
    series: dict[str, Series] = Field(
        default_factory=dict,
        description="what TRL logged, by TRL's names → one value a step, from step 1",
    )
    tokens: Series = Field((), description="trained tokens of each step")
    step_wall_s: Series = ()
    probe: Probe | None = None
    evaluations: tuple[EvaluationPoint, ...] = ()
    peak_bytes: dict[str, dict[str, int | None]] = Field(
        default_factory=dict, description="lens → phase → highest value"
    )
    growth_bytes: dict[str, int | None] = Field(
        default_factory=dict, description="lens → peak in training minus the value before loading"
    )
    grades: dict[str, MeasurementGrade] = Field(
        default_factory=dict,
        exclude_if=absent({}),
        description="lens → how far its memory can be trusted; empty: not graded",
    )
    adapter_sha256: str | None = None
    translations: tuple[str, ...] = Field(
        (), description="arguments that were passed in another way"
    )


class Side(Frozen):
    """A study, or a baseline that was kept of one."""

    format: int = FORMAT
    label: str = Field(description="how texts call it, e.g. 'TRL 1.16.0'")
    matrix_name: str
    matrix_hash: str
    harness_version: str
    created_utc: str
    packages: dict[str, str | None] = Field(description="the packages that can change training")
    installed_sha256: str | None = Field(
        None, description="of the list of all installed distributions"
    )
    platform: dict[str, Any] = Field(default_factory=dict, description="machine fingerprint")
    variables: dict[str, str] = Field(default_factory=dict)
    runs: tuple[RunSide, ...]
    replay: dict[str, Value] = Field(
        default_factory=dict,
        description="what rewards, chat templates and tokenizers make of a frozen corpus, item → value",
    )
    margins: dict[str, float] = Field(
        default_factory=dict, description="pair → margin of its metric"
    )
    unreadable: tuple[str, ...] = Field((), description="what of the study could not be read")
    repeats: dict[str, str] = Field(
        default_factory=dict,
        description="pair.arm → pair.arm that it trains once more, for the A/A comparison",
    )
    runs_count: Count = 0
