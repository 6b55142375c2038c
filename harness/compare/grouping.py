"""The runs of two sides by cell: pair and arm, all seeds of both sides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.compare.side import RunSide, Side
from harness.record import Status
from harness.spec import Method, Task


@dataclass(frozen=True)
class CellRuns:
    """One pair and arm with its runs, by seed."""

    pair: str
    arm: str
    task: Task
    method: Method
    base: dict[int, RunSide] = field(default_factory=dict)
    candidate: dict[int, RunSide] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How texts and selectors call it."""
        return f"{self.pair}.{self.arm}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of either side."""
        return tuple(sorted(self.base.keys() | self.candidate.keys()))

    @property
    def ok_pairs(self) -> dict[int, tuple[RunSide, RunSide]]:
        """The seeds that ended ok on both sides, with both runs."""
        return {
            seed: (self.base[seed], self.candidate[seed])
            for seed in self.seeds
            if is_ok(self.base.get(seed)) and is_ok(self.candidate.get(seed))
        }


def is_ok(run: RunSide | None) -> bool:
    """Whether a run is there and ended ok."""
    return run is not None and run.status is Status.OK


def group(base: Side, candidate: Side) -> list[CellRuns]:
    """Return the cells of both sides, the base's first, without those that only repeat another one.

    A repeat that did not end ok is a cell too: nothing else would say so.
    """
    cells: dict[tuple[str, str], CellRuns] = {}
    repeats = base.repeats.keys() | candidate.repeats.keys()
    failed = {(r.pair, r.arm) for _, r in _runs(base, candidate) if not is_ok(r)}
    for is_base, run in _runs(base, candidate):
        if f"{run.pair}.{run.arm}" in repeats and (run.pair, run.arm) not in failed:
            continue
        fresh = CellRuns(run.pair, run.arm, run.task, run.method)
        cell = cells.setdefault((run.pair, run.arm), fresh)
        (cell.base if is_base else cell.candidate)[run.seed] = run
    return list(cells.values())


def repeated(side: Side) -> list[CellRuns]:
    """Return what a side trained twice: the first time as the base, the repeat as the candidate."""
    by_name: dict[str, list[RunSide]] = {}
    for run in side.runs:
        by_name.setdefault(f"{run.pair}.{run.arm}", []).append(run)
    cells = []
    for again, first in side.repeats.items():
        ours, theirs = by_name.get(first, []), by_name.get(again, [])
        if ours and theirs:
            one = ours[0]
            cells.append(
                CellRuns(
                    one.pair,
                    one.arm,
                    one.task,
                    one.method,
                    {run.seed: run for run in ours},
                    {run.seed: run for run in theirs},
                )
            )
    return cells


def _runs(base: Side, candidate: Side) -> Iterable[tuple[bool, RunSide]]:
    yield from ((True, run) for run in base.runs)
    yield from ((False, run) for run in candidate.runs)
