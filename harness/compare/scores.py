"""How well a cause goes with where a change was seen: a number from 0 to 1.

Cells that it foretells against cells that changed, what it touches against what differed first, a factor
that it gives against the one that was found. What this leaves out: which causes there are (`suspects`).
"""

from __future__ import annotations

from collections.abc import Collection

from harness.compare.boundary import Boundary
from harness.compare.evidence import CellEvidence, Evidence
from harness.compare.factors import find_factors
from harness.compare.model import Kind

OFF_KIND = 0.3  # what is left of a score when what differed first is not what the cause touches
NO_FACTOR, OTHER_FACTOR = 0.85, 0.6

Cells = frozenset[tuple[str, str]]


def key_of(cell: CellEvidence) -> tuple[str, str]:
    """The pair and the arm of a cell."""
    return cell.cell.pair, cell.cell.arm


def all_cells(evidence: Evidence) -> Cells:
    """Every cell of a comparison."""
    return frozenset(key_of(cell) for cell in evidence.cells)


def as_score(value: float) -> float:
    """Bring a product of weights into a score's range."""
    return round(min(1.0, max(0.0, value)), 3)


def overlap(evidence: Evidence, cells: Cells) -> float:
    """Shared over all: cells that a cause foretells against cells that changed."""
    seen = frozenset(key_of(c) for c in evidence.seen)
    return len(cells & seen) / len(cells | seen) if cells | seen else 0.0


def kind_share(
    evidence: Evidence, cells: Cells, kinds: Collection[Kind], series: Collection[str] = ()
) -> float:
    """How many of the changed cells began to differ in what the cause touches."""
    touched = [c for c in evidence.seen if key_of(c) in cells]
    if not touched:
        return 0.0
    fitting = sum(c.root in kinds and _names_series(c, series) for c in touched)
    return OFF_KIND + (1 - OFF_KIND) * fitting / len(touched)


def _names_series(cell: CellEvidence, series: Collection[str]) -> bool:
    return not series or any(name in d.what for d in cell.grave for name in series)


def factor_share(evidence: Evidence, cells: Cells, boundary: Boundary) -> float:
    """Whether gradients are scaled by what the boundary says; it doesn't count where it says nothing."""
    if boundary.factor is None:
        return 1.0
    touched = [c for c in evidence.seen if key_of(c) in cells]
    names = [n for c in touched for f in find_factors(c) for n in f.names]
    return 1.0 if boundary.factor in names else OTHER_FACTOR if names else NO_FACTOR
