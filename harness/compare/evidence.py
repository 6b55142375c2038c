"""What an explanation rests on: in which cells something changed, where it began, what they ran with.

A cell is seen if its word is `changed`; where no cell is, those that are `undecided` are. What this
leaves out: naming causes (`suspects`) and sentences for a user (`notices`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compare.model import Cell, Comparison, Difference, Kind
from harness.compare.side import RunSide, Side

# In this order a change runs through a step: what differs first in it is where to look.
CHAIN: tuple[Kind, ...] = (
    "configuration", "data", "sampling", "reward", "loss", "gradient", "weights", "checkpoint",
    "metric", "evaluation", "memory", "speed", "missing", "dependency", "machine",
)  # fmt: skip
NAMED_MAX = 4


@dataclass(frozen=True)
class CellEvidence:
    """A cell, and the run of its lowest seed on both sides."""

    cell: Cell
    base: RunSide | None
    candidate: RunSide | None
    is_seen: bool

    @property
    def grave(self) -> tuple[Difference, ...]:
        """The differences that give the cell its word; arguments only where nothing else does."""
        found = [d for d in self.cell.differences if d.word == self.cell.word]
        return tuple([d for d in found if d.layer != "asked"] or found)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of those differences."""
        return frozenset(d.kind for d in self.grave)

    @property
    def root(self) -> Kind | None:
        """Of the kinds that differ at the first step that does, the one that comes first in a step.

        What has no step is looked at after training, and counts where no step differs.
        """
        first = min((d.step for d in self.grave if d.step is not None), default=None)
        return min((d.kind for d in self.grave if d.step == first), key=CHAIN.index, default=None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The base's trainer arguments; the candidate's where the base has no run."""
        run = self.base if self.base and self.base.config else self.candidate
        return arguments_of(run)


@dataclass(frozen=True)
class Evidence:
    """All cells of a comparison with their runs."""

    comparison: Comparison
    base: Side
    candidate: Side
    cells: tuple[CellEvidence, ...]

    @property
    def seen(self) -> tuple[CellEvidence, ...]:
        """The cells in which something changed."""
        return tuple(each for each in self.cells if each.is_seen)


def gather(comparison: Comparison, base: Side, candidate: Side) -> Evidence:
    """Set each cell beside its runs."""
    words = {cell.word for cell in comparison.cells}
    seen = next((w for w in ("changed", "undecided", "unsupported here") if w in words), None)
    return Evidence(
        comparison,
        base,
        candidate,
        tuple(
            CellEvidence(cell, _run(base, cell), _run(candidate, cell), cell.word == seen)
            for cell in comparison.cells
        ),
    )


def where(touched: Sequence[CellEvidence], cells: Sequence[CellEvidence]) -> str:
    """Name the cells, unless they are all."""
    if len(touched) == len(cells):
        return ""
    names = [f"{c.cell.pair}.{c.cell.arm}" for c in touched]
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f" in {', '.join(names[:NAMED_MAX])}{more}"


def arguments_of(run: RunSide | None) -> dict[str, Any]:
    """What a run's trainer was given, defaults included, and what its adapter is, as one mapping."""
    if run is None:
        return {}
    lora = run.config.get("lora")
    default = lora.get("default", lora) if isinstance(lora, dict) else {}
    found = run.config.get("arguments", run.config)
    return {
        **(default if isinstance(default, dict) else {}),
        **(found if isinstance(found, dict) else {}),
        **{name: run.config[name] for name in ("dtypes", "trainable_dtypes") if name in run.config},
    }


def _run(side: Side, cell: Cell) -> RunSide | None:
    runs = [run for run in side.runs if (run.pair, run.arm) == (cell.pair, cell.arm)]
    return min(runs, key=lambda run: (run.probe is None and not run.series, run.seed), default=None)
