"""What a comparison came to: differences, a word for each cell and overall, causes, and the A/A count."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.compare.side import Series
from harness.frozen import Count, Frozen
from harness.spec import Method, Task

FORMAT = 1

# From the mildest to the gravest; a cell has the gravest word of its differences.
Word = Literal["same", "rounding", "not comparable", "unsupported here", "undecided", "changed"]
Layer = Literal[
    "asked", "exact", "replay", "trajectory", "statistics", "memory", "speed", "missing"
]
Kind = Literal[
    "configuration", "dependency", "machine", "data", "sampling", "reward", "loss", "gradient",
    "weights", "metric", "evaluation", "checkpoint", "memory", "speed", "missing",
]  # fmt: skip


class Difference(Frozen):
    """One thing in which the two sides differ."""

    layer: Layer
    kind: Kind
    what: str = Field(
        description="what was looked at, e.g. 'gradient/attention.lora_A', 'log/loss'"
    )
    word: Word
    step: int | None = Field(None, description="the first step that differs")
    base: Any = Field(None, description="the value there, of the base")
    candidate: Any = None
    relative: float | None = Field(
        None,
        description="largest |candidate − base| / max(|base|, |candidate|) over the steps looked at",
    )
    sentence: str = Field(description="what differs, for a reader, with both values")
    seed: int | None = Field(None, description="of the run that shows it")
    accepted: str | None = Field(None, description="why someone acknowledged it; null if nobody")


class Curve(Frozen):
    """A series of both sides, for a figure."""

    what: str
    base: Series
    candidate: Series


class Cell(Frozen):
    """One pair and arm, all its seeds."""

    pair: str
    arm: str
    task: Task
    method: Method
    seeds: tuple[int, ...]
    word: Word
    sentence: str
    differences: tuple[Difference, ...] = Field((), description="gravest first, then by step")
    curves: tuple[Curve, ...] = ()


class Control(Frozen):
    """The A/A comparison: runs of one side set against runs of the same side that must be the same."""

    compared: Count
    alarms: Count
    sentences: tuple[str, ...] = ()
    side: str = Field("", description="its label")
    kinds: tuple[Kind, ...] = Field((), description="of the alarms")


class Cause(Frozen):
    """A likely cause, ranked."""

    kind: Literal["default", "dependency", "release", "machine", "configuration", "code"]
    what: str
    sentence: str
    score: float = Field(ge=0, le=1, description="how well it goes with what was seen; 1 is best")


class Place(Frozen):
    """Where training changed."""

    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]
    kinds: tuple[Kind, ...]
    sentence: str = Field(description="e.g. 'GRPO, full and LoRA: gradients from step 1'")


class Acknowledged(Frozen):
    """A change that someone accepted; shown, never hidden."""

    what: str = Field(description="pair.arm or a selector over them, and the kind: 'sft-*:loss'")
    reason: str
    version: str = Field(description="the release from which on it is accepted, e.g. 'trl 1.16.0'")
    by: str = ""
    utc: str = ""


class Comparison(Frozen):
    """Two sides held against each other."""

    format: int = FORMAT
    base: str = Field(description="its label")
    candidate: str
    matrix_name: str
    word: Word
    sentence: str = Field(description="the answer in a sentence")
    place: Place | None = None
    cells: tuple[Cell, ...]
    asked: tuple[Difference, ...] = Field((), description="configuration, packages, machine")
    replay: tuple[Difference, ...] = ()
    controls: tuple[Control, ...] = ()
    causes: tuple[Cause, ...] = ()
    notices: tuple[str, ...] = Field(
        (), description="what a user of TRL will notice, a sentence each"
    )
    acknowledged: tuple[Acknowledged, ...] = ()
    packages: tuple[tuple[str, str | None, str | None], ...] = Field(
        (), description="packages that differ: name, base, candidate"
    )
    notes: tuple[str, ...] = ()
    suspected: tuple[str, ...] = Field(
        (), description="pair.arm that only statistics speak against: to run again before an alarm"
    )
