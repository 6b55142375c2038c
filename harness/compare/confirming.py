"""Suspicions that rest on statistics alone, and how running their cells again settles them.

A difference at a step is confirmed at once: where runs repeat, there is nothing to wait for. One over seeds
may be luck, and with many cells some of it always is, so the cells that it is in are trained again on other
seeds; a change is what shows there too. What this leaves out: training (`harness.comparing` passes it in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.compare.accepting import accept
from harness.compare.concluding import conclude
from harness.compare.model import Acknowledged, Cell, Comparison, Difference
from harness.compare.side import Side

# Trains some cells (pair.arm) again on both sides, on seeds of their own.
Rerun = Callable[[Sequence[str]], tuple[Side, Side]]
WAITS = "; not confirmed: `harness compare --rerun` trains these cells again on other seeds"


@dataclass(frozen=True)
class Suspected:
    """Cells in which nothing but statistics speaks for a change, left undecided."""

    cells: list[Cell]
    names: tuple[str, ...]


def suspected_cells(cells: Sequence[Cell]) -> Suspected:
    """Leave undecided what rests on statistics alone."""
    settled = []
    names = []
    for cell in cells:
        grave = [d for d in cell.differences if d.word == "changed"]
        if not grave or any(d.layer != "statistics" for d in grave):
            settled.append(cell)
            continue
        names.append(f"{cell.pair}.{cell.arm}")
        differences = tuple(_waiting(d) for d in cell.differences)
        sentence = next(d.sentence for d in differences if d.word == "undecided")
        settled.append(
            cell.model_copy(
                update={"word": "undecided", "sentence": sentence, "differences": differences}
            )
        )
    return Suspected(settled, tuple(names))


def confirm(
    comparison: Comparison,
    again: Comparison,
    acknowledged: Sequence[Acknowledged] = (),
    packages: Mapping[str, str | None] | None = None,
) -> Comparison:
    """Settle the suspicions of a comparison by that of the cells trained again.

    What is suspected again in the same direction is a change; what is not was luck. `packages` are the
    candidate's, by which an acknowledgement holds.
    """
    seen = {(cell.pair, cell.arm): cell for cell in again.cells}
    cells = tuple(
        _settled(cell, seen.get((cell.pair, cell.arm)))
        if f"{cell.pair}.{cell.arm}" in comparison.suspected
        else cell
        for cell in comparison.cells
    )
    settled = comparison.model_copy(update={"cells": cells, "suspected": ()})
    return conclude(accept(settled, acknowledged, packages or {}))


def _waiting(found: Difference) -> Difference:
    if found.word != "changed":
        return found
    return found.model_copy(update={"word": "undecided", "sentence": found.sentence + WAITS})


def _settled(cell: Cell, again: Cell | None) -> Cell:
    differences = tuple(_settle(d, again) for d in cell.differences)
    words = {d.word for d in differences}
    word = next((w for w in ("changed", "undecided", "rounding") if w in words), "same")
    first = next((d.sentence for d in differences if d.word == word), cell.sentence)
    return cell.model_copy(update={"word": word, "sentence": first, "differences": differences})


def _settle(found: Difference, again: Cell | None) -> Difference:
    if found.layer != "statistics" or not found.sentence.endswith(WAITS):
        return found
    text = found.sentence.removesuffix(WAITS)
    if again is None or _is_unmeasured(found, again):
        return found
    same = [
        d
        for d in again.differences
        if d.what == found.what and d.word in ("changed", "undecided") and _same_way(d, found)
    ]
    if any(d.word == "changed" or d.sentence.endswith(WAITS) for d in same):
        return found.model_copy(
            update={"word": "changed", "sentence": f"{text}; confirmed on other seeds"}
        )
    return found.model_copy(
        update={"word": "same", "sentence": f"{text}; not seen again on other seeds"}
    )


def _is_unmeasured(found: Difference, again: Cell) -> bool:
    """Whether the lens that a suspicion rests on could not be trusted when it was measured again."""
    unmeasured = {d.what.removeprefix("memory/") for d in again.differences if d.kind == "missing"}
    return found.kind == "memory" and found.what.split("/")[1] in unmeasured


def _same_way(one: Difference, other: Difference) -> bool:
    values = (one.base, one.candidate, other.base, other.candidate)
    if not all(isinstance(v, int | float) for v in values):
        return True
    return bool((one.candidate - one.base) * (other.candidate - other.base) > 0)
