"""What a study runs next: first the grids, then the arms at the rates they chose, then more seeds.

Each round is planned from what the rounds before it left on disk, so that a command that was killed goes
on where it was. What a study comes to know between rounds stands here too, counted FLOPs included. What
this leaves out: running a round (`bench`), and how a rate is chosen (`selection`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.compute import ComputeRatio, StepFlops
from harness.counted import FILE, TOKENS, read_counted, to_count, write_counted
from harness.counting import count_steps
from harness.errors import HarnessError, MachineError, NewerFormatError, StudyError
from harness.looks import seeds_of_look
from harness.plan import Plan, Request, runs_with
from harness.progress import Display, Event
from harness.record import Record
from harness.selection import GridPoint, choose, grid_points, rate_key, waiting
from harness.spec import Matrix
from harness.store import Store
from harness.study_forecast import keep_forecasts
from harness.view import load_view

# Models, ranks and tokens → their steps, and each rank's beside the full one.
Count = Callable[[Sequence[str], Sequence[int], int], tuple[list[StepFlops], list[ComputeRatio]]]


@dataclass(frozen=True)
class Round:
    """A plan with the runs that are known by now, and why it goes on."""

    plan: Plan
    note: str


def known_runs(store: Store, plan: Plan, request: Request, look: int | None = None) -> Plan:
    """Return the plan as far as the rates are chosen that its runs train with.

    look: the number of seeds, with --until-decided; the one that the study has come to if None.
    """
    matrix = plan.loaded.matrix
    looks = request.looks(matrix)
    if not store.exists() or (matrix.selection is None and not looks):
        return plan
    seeds = seeds_of_look(matrix, look or _reached(store, looks)) if looks else None
    specs, later = runs_with(matrix, request, choose(matrix, _points(store)), seeds)
    return replace(plan, specs=specs, later=later)


def next_round(store: Store, plan: Plan, request: Request) -> Round | None:
    """Return what is to run once a plan's runs are done; None if nothing is."""
    known = known_runs(store, plan, request)
    if known.specs != plan.specs:
        more = len(known.specs) - len(plan.specs)
        return Round(known, f"rates are chosen: {more} more runs at them")
    looks = request.looks(plan.loaded.matrix)
    if not looks or plan.later:
        return None
    reached = _reached(store, looks)
    further = [look for look in looks if look > reached]
    open_claims = [v.claim for v in load_view(store).verdicts if v.word == "inconclusive"]
    if not further or not open_claims:
        return None
    named = ", ".join(open_claims[:5]) + (" …" if len(open_claims) > 5 else "")
    note = f"{reached} seeds leave {named} open: on to {further[0]}"
    return Round(known_runs(store, plan, request, further[0]), note)


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


def forecast_study(
    store: Store, matrix: Matrix, display: Display, is_wanted: Callable[[], bool]
) -> None:
    """Have the memory of the study's arms forecast, as far as it was not; ends once it is unwanted.

    What was kept and can't be read is said and left as it is: the report is rendered all the same.
    """

    def tell(arms: int) -> None:
        text = f"forecasting the memory of {arms} arm{'' if arms == 1 else 's'}"
        display.emit(Event("note", text, {}))

    try:
        keep_forecasts(store, matrix, tell=tell, is_wanted=is_wanted)
    except HarnessError as error:
        display.emit(Event("problem", f"memory was not forecast: {error}", {}))


def _reached(store: Store, looks: tuple[int, ...]) -> int:
    """The look that a study's planned runs have come to."""
    planned = store.read_study().planned
    seeds = {run.seed for run in planned if run.grid_rate is None}
    return next((look for look in looks if look >= len(seeds)), looks[-1])


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
