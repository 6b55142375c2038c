"""What a study runs next: first the grids, then the arms at the rates they chose, then more seeds.

Each round is planned from what the rounds before it left on disk, so that a command that was killed
goes on where it was. What this leaves out: running a round (`bench`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.errors import NewerFormatError, StudyError
from harness.plan import Plan, Request, looks_of, runs_with, seeds_of_look
from harness.record import Record, Study
from harness.selection import choose, grid_points
from harness.store import Store
from harness.view import load_view


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
    looks = looks_of(matrix, request)
    if not store.exists() or (matrix.selection is None and not looks):
        return plan
    study = store.read_study()
    if looks:
        reached = look or _reached(study, looks)
        request = replace(request, seeds=seeds_of_look(matrix, reached))
    grid = [run for run in study.planned if run.grid_rate is not None]
    points = grid_points((run, _readable(store, run.run_id)) for run in grid)
    specs, later = runs_with(matrix, request, choose(matrix, points))
    return replace(plan, specs=specs, later=later)


def next_round(store: Store, plan: Plan, request: Request) -> Round | None:
    """Return what is to run once a plan's runs are done; None if nothing is."""
    known = known_runs(store, plan, request)
    if known.specs != plan.specs:
        chosen = len(known.specs) - len(plan.specs)
        return Round(known, f"rates are chosen: {chosen} more runs at them")
    looks = looks_of(plan.loaded.matrix, request)
    if not looks or plan.later:
        return None
    reached = _reached(store.read_study(), looks)
    further = [look for look in looks if look > reached]
    open_claims = [v.claim for v in load_view(store).verdicts if v.word == "inconclusive"]
    if not further or not open_claims:
        return None
    more = known_runs(store, plan, request, further[0])
    named = ", ".join(open_claims[:5]) + (" …" if len(open_claims) > 5 else "")
    return Round(more, f"{reached} seeds leave {named} open: on to {further[0]}")


def _reached(study: Study, looks: tuple[int, ...]) -> int:
    """The look that a study's planned runs have come to."""
    seeds = {run.seed for run in study.planned if run.grid_rate is None}
    return next((look for look in looks if look >= len(seeds)), looks[-1])


def _readable(store: Store, run_id: str) -> Record | None:
    """A run's record; None if there is none, or none that can be read: it will run again."""
    try:
        return store.read_record(run_id)
    except NewerFormatError:
        raise
    except StudyError:
        return None
