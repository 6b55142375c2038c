"""What a study comes to know between its rounds: the rates that its grids say, and counted FLOPs.

A grid's runs come first; once an arm's is complete, the arm is judged at the rate that it says. What
this leaves out: running a round (`bench`), and how a rate is chosen (`selection`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.compute import ComputeRatio, StepFlops
from harness.counted import FILE, TOKENS, read_counted, to_count, write_counted
from harness.counting import count_steps
from harness.errors import MachineError, NewerFormatError, StudyError
from harness.plan import Plan, Request, runs_with
from harness.progress import Display, Event
from harness.record import Record
from harness.selection import GridPoint, choose, grid_points, rate_key, waiting
from harness.store import Store

# Models, ranks and tokens → their steps, and each rank's beside the full one.
Count = Callable[[Sequence[str], Sequence[int], int], tuple[list[StepFlops], list[ComputeRatio]]]


def known_runs(store: Store, plan: Plan, request: Request) -> dict[str, Any]:
    """Return a plan's runs as far as the rates are chosen that they train with, as its fields."""
    matrix = plan.loaded.matrix
    if matrix.selection is None or not store.exists():
        return {"specs": plan.specs, "later": plan.later}
    specs, later = runs_with(matrix, request, choose(matrix, _points(store)))
    return {"specs": specs, "later": later}


def tell_waiting(store: Store, plan: Plan, display: Display) -> None:
    """Say of every arm that was asked for and has no rate which runs it waits for."""
    if not plan.later:
        return
    matrix = plan.loaded.matrix
    why = waiting(matrix, _points(store))
    arms = dict.fromkeys((spec.pair, spec.arm) for spec in plan.later)
    for pair, arm in arms:
        text = f"{pair}.{arm} was not judged: {why[rate_key(matrix, pair, arm)]}"
        display.emit(Event("problem", text, {"pair": pair, "arm": arm}))


def count_flops(store: Store, plan: Plan, display: Display, count: Count = count_steps) -> None:
    """Have the FLOPs counted that claims on compute are about, unless the study has them.

    A count that fails is said, and leaves its claim untested: what was trained is reported all the same.
    """
    try:
        counted = read_counted(store)
    except NewerFormatError:
        raise
    except StudyError as error:
        name = store.set_aside(store.root / FILE)
        display.emit(Event("problem", f"{error}; set aside as {name}", {"file": name}))
        counted = ()
    models, ranks = to_count(plan.loaded.matrix, counted)
    if not models:
        return
    text = f"counting the FLOPs of {len(models)} models at {len(ranks)} ranks"
    display.emit(Event("note", text, {}))
    try:
        write_counted(store, count(models, ranks, TOKENS)[1])
    except MachineError as error:
        display.emit(Event("problem", f"FLOPs were not counted: {error}", {}))


def _points(store: Store) -> list[GridPoint]:
    planned = [run for run in store.read_study().planned if run.grid_rate is not None]
    return grid_points((run, _readable(store, run.run_id)) for run in planned)


def _readable(store: Store, run_id: str) -> Record | None:
    """A run's record; None if there is none, or none that can be read: it will run again."""
    try:
        return store.read_record(run_id)
    except NewerFormatError:
        raise
    except StudyError:
        return None
