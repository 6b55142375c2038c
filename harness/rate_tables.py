"""The learning rates that arms tried, and the runs that tried them.

What this leaves out: what optima say of a claim (`verdicts`), and their figure (`finding_charts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import text
from harness.report_tables import Table, make_table
from harness.selection import GridPoint, grid_of, waiting
from harness.spec import rate_text
from harness.view import StudyView

LONGEST = 24  # rows that are not folded away


@dataclass(frozen=True)
class _Grid:
    """One arm's grid: what each rate came to, and which was chosen."""

    pair: str
    arm: str
    seeds: Sequence[int]
    points: Mapping[tuple[float, int], GridPoint]
    rates: Sequence[float]
    chosen: float | None
    waits: str | None


def rates_tables(view: StudyView) -> tuple[Table, ...]:
    """List every rate of every grid with what it came to; nothing where no arm has a grid."""
    matrix = view.matrix
    points, choices = view.points, view.choices
    waits = waiting(matrix, points)
    seeds = matrix.selection.seeds if matrix.selection else ()
    rows = []
    for name, pair in matrix.pairs.items():
        for arm, spec in pair.arms.items():
            key = (name, arm)
            grid = _Grid(
                *key, seeds, grid_of(points, *key), spec.rates, choices.get(key), waits.get(key)
            )
            rows += [_rate_row(grid, rate) for rate in spec.rates]
            if spec.rate_of:
                rows.append(_borrowed_row(view, name, arm, spec.rate_of, len(seeds)))
    if not rows:
        return ()
    columns = (
        "Pair", "Arm", "Learning rate", "Validation metric, mean",
        *(f"Seed {seed}" for seed in seeds), "Status", "Chosen",
    )  # fmt: skip
    numeric = set(range(2, 4 + len(seeds)))
    caption = "Learning rates tried, on selection seeds and validation rows"
    return (make_table(caption, columns, rows, numeric, is_long=len(rows) > LONGEST),)


def _rate_row(grid: _Grid, rate: float) -> tuple[str, ...]:
    found = [grid.points.get((rate, seed)) for seed in grid.seeds]
    values = [point.value if point and point.is_ok else None for point in found]
    known = [value for value in values if value is not None]
    whole = len(known) == len(grid.seeds) and bool(known)
    words = [point.status.value if point and point.status else "not run" for point in found]
    return (
        grid.pair,
        grid.arm,
        rate_text(rate),
        text.number(sum(known) / len(known)) if whole else "\u2013",
        *(
            text.number(value) if value is not None else word
            for value, word in zip(values, words, strict=True)
        ),
        ", ".join(dict.fromkeys(words)) or "not run",
        _chosen(grid, rate),
    )


def _chosen(grid: _Grid, rate: float) -> str:
    if grid.chosen == rate:
        end = {grid.rates[0]: "lowest", grid.rates[-1]: "highest"}.get(rate)
        return f"chosen, the {end} of the grid: a better one may lie beyond" if end else "chosen"
    return f"open: {grid.waits}" if grid.waits else ""


def _borrowed_row(view: StudyView, pair: str, arm: str, lender: str, seeds: int) -> tuple[str, ...]:
    rate = view.choices.get((pair, lender))
    shown = rate_text(rate) if rate is not None else "not chosen yet"
    return (pair, arm, shown, *("\u2013",) * (seeds + 1), "\u2013", f"takes the rate of {lender}")


def grid_runs_tables(view: StudyView) -> tuple[Table, ...]:
    """List the runs that tried rates, in short; nothing where there are none."""
    rows = []
    for run in view.grid:
        record, summary = run.record, run.summary
        rows.append(
            (
                run.planned.run_id,
                record.status.value if record else "not run",
                text.number(summary.final_value if summary else None),
                text.duration(summary.wall_s if summary else None),
                (record.reason if record else None) or "",
            )
        )
    columns = ("Run", "Status", "Validation metric", "Wall time", "Reason")
    caption = f"Runs that tried learning rates: {len(rows)}"
    return (make_table(caption, columns, rows, {2, 3}, is_long=True),) if rows else ()
