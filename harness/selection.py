"""The learning rate of an arm that gives several: tried on selection seeds, chosen on validation rows.

Arms are judged afterwards on other seeds and on test rows, so that the luck of the chosen rate is not
counted as the arm's own. What this leaves out: running the grid (`bench`), and what optima say of a
claim (`verdicts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.matrix import Choices
from harness.record import PlannedRun, Record, Status
from harness.spec import Matrix, Task, cell_name, rate_text


@dataclass(frozen=True)
class GridPoint:
    """One run of a grid: an arm at a rate, with a selection seed."""

    pair: str
    arm: str
    rate: float
    seed: int
    status: Status | None  # None: not run yet, or an accident that will be tried again
    value: float | None  # held-out metric of the validation rows after training

    @property
    def is_ok(self) -> bool:
        """Whether it has a number."""
        return self.status is Status.OK and self.value is not None


def grid_points(runs: Iterable[tuple[PlannedRun, Record | None]]) -> list[GridPoint]:
    """Read the grid's points from the runs that tried them."""
    return [
        GridPoint(
            pair=planned.pair,
            arm=planned.arm,
            rate=planned.grid_rate,
            seed=planned.seed,
            status=record.status if record is not None and record.is_done else None,
            value=_validated(record),
        )
        for planned, record in runs
        if planned.grid_rate is not None
    ]


def choose(matrix: Matrix, points: Sequence[GridPoint]) -> Choices:
    """Choose a rate for every arm whose grid is complete: the best mean over the selection seeds.

    A rate that failed with any seed is not chosen. If every rate did, the lowest is: the arm's failure
    has to show in runs that are judged.
    """
    chosen: dict[tuple[str, str], float] = {}
    seeds = matrix.selection.seeds if matrix.selection else ()
    for name, pair in matrix.pairs.items():
        for arm, each in pair.arms.items():
            found = grid_of(points, name, arm)
            cells = [(rate, seed) for rate in each.rates for seed in seeds]
            if not cells or any(cell not in found or found[cell].status is None for cell in cells):
                continue
            means = {
                rate: sum(_score(pair.task, found[rate, seed]) for seed in seeds) / len(seeds)
                for rate in each.rates
            }
            chosen[name, arm] = min(each.rates, key=lambda rate: (means[rate], rate))
    return chosen


def rate_key(matrix: Matrix, pair: str, arm: str) -> tuple[str, str]:
    """Return the arm whose grid another's rate is chosen from, as choices name it: mostly itself."""
    return pair, matrix.pairs[pair].arms[arm].rate_of or arm


def at_an_edge(matrix: Matrix, chosen: Choices) -> dict[tuple[str, str], str]:
    """Say for each arm whose rate is the lowest or highest of its grid that a better one may lie beyond."""
    found = {}
    for (name, arm), rate in chosen.items():
        rates = matrix.pairs[name].arms[arm].rates
        ends = {rates[0]: "lowest", rates[-1]: "highest"} if rates else {}
        if rate in ends:
            found[name, arm] = (
                f"{name}.{arm} was judged at the {ends[rate]} rate of its grid, {rate_text(rate)}: a "
                "better one may lie beyond."
            )
    return found


def waiting(matrix: Matrix, points: Sequence[GridPoint]) -> dict[tuple[str, str], str]:
    """Say for each arm that has no rate yet which runs it waits for."""
    chosen, found = choose(matrix, points), {}
    seeds = matrix.selection.seeds if matrix.selection else ()
    for name, pair in matrix.pairs.items():
        for arm, each in pair.arms.items():
            if each.rates and (name, arm) not in chosen:
                grid = grid_of(points, name, arm)
                cells = [(rate, seed) for rate in each.rates for seed in seeds]
                lacking = [c for c in cells if c not in grid or grid[c].status is None]
                first = cell_name(name, arm, lacking[0][1], lacking[0][0])
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                found[name, arm] = f"no rate is chosen yet: {first}{more} of its grid did not end"
    return found


def grid_of(
    points: Iterable[GridPoint], pair: str, arm: str
) -> Mapping[tuple[float, int], GridPoint]:
    """Return one arm's points by rate and seed."""
    return {(p.rate, p.seed): p for p in points if (p.pair, p.arm) == (pair, arm)}


def _score(task: Task, point: GridPoint) -> float:
    """Turn a point into a number of which less is better; a failed run is worse than any."""
    if not point.is_ok or point.value is None:
        return float("inf")
    return point.value if task == "sft" else -point.value


def _validated(record: Record | None) -> float | None:
    if record is None or record.result is None:
        return None
    found = [p.value for p in record.result.evaluations if p.split == "validation" and p.step > 0]
    return found[-1] if found else None
