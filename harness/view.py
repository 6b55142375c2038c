"""A study read back whole: what the report, the verdicts and the CLI look at.

A record that can't be read is named in `problems`; the rest of the study is still there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from harness.claims import Finding, judge
from harness.compute import ComputeRatio
from harness.counted import read_counted
from harness.errors import StudyError
from harness.forecasts import Forecasts, read_forecasts
from harness.matrix import Choices, margins_hash, matrix_hash, parse_matrix
from harness.measure.sealing import read_samples
from harness.parity import Resolved, undeclared_in_study
from harness.record import PlannedRun, Record, Status, StepRow, Study
from harness.rehearsal import adapt
from harness.repeats import Repeat, read_repeats
from harness.rule import Cells
from harness.samples import FORMAT, MEMORY_COLUMNS, PhaseRow
from harness.selection import GridPoint, at_an_edge, choose, grid_points, rate_key, waiting
from harness.spec import Matrix, RunSpec, rate_text
from harness.store import Store
from harness.summary import RunSummary, summarise
from harness.verdicts.evidence import Evidence
from harness.verdicts.judge import judge_claims
from harness.verdicts.model import ClaimVerdict

T = TypeVar("T")


@dataclass(frozen=True)
class RunView:
    """One planned run with everything that is known of it; None where there is nothing yet."""

    planned: PlannedRun
    spec: RunSpec | None
    record: Record | None
    summary: RunSummary | None
    steps: tuple[StepRow, ...] = ()
    phases: tuple[PhaseRow, ...] = ()
    memory: pd.DataFrame = field(default_factory=pd.DataFrame)  # columns of samples.MEMORY_COLUMNS
    environment: dict[str, Any] = field(default_factory=dict)  # environment.json
    resolved_config: dict[str, Any] = field(default_factory=dict)  # every trainer argument


@dataclass(frozen=True)
class StudyView:
    """A study: its matrix, its runs in planned order, and what is wrong with its files."""

    name: str
    study: Study
    matrix: Matrix
    runs: tuple[RunView, ...]  # those that arms are judged by
    grid: tuple[RunView, ...] = ()  # those that tried the rates of a grid
    left_out: tuple[RunView, ...] = ()  # those at a rate that their arm's grid no longer says
    problems: tuple[str, ...] = ()
    post_hoc: bool = False  # the margins are not the ones that were hashed before the first run
    undeclared: tuple[str, ...] = ()  # differences between arms that the matrix did not declare
    undeclared_pairs: frozenset[str] = frozenset()  # the pairs they are in
    repeats: tuple[Repeat, ...] = ()  # what studies of the same matrix say on other seeds
    flops: tuple[ComputeRatio, ...] = ()  # what a claim on compute had counted
    forecasts: Forecasts | None = None  # what its arms were forecast to hold

    @property
    def every_run(self) -> tuple[RunView, ...]:
        """All runs, those of the grid first, as they ran; those left out last."""
        return (*self.grid, *self.runs, *self.left_out)

    @property
    def points(self) -> list[GridPoint]:
        """What each rate of a grid came to."""
        return grid_points((r.planned, r.record) for r in self.grid)

    @property
    def choices(self) -> Choices:
        """The rate chosen for each arm with a grid."""
        return choose(self.matrix, self.points)

    @property
    def cells(self) -> Cells:
        """The judged runs by pair, arm and seed."""
        return {
            (r.planned.pair, r.planned.arm, r.planned.seed): (
                r.record.status if r.record else None,
                r.summary,
            )
            for r in self.runs
        }

    @property
    def findings(self) -> list[Finding]:
        """Every arm judged against its baseline."""
        return judge(self.matrix, self.cells, self.undeclared_pairs)

    @property
    def evidence(self) -> Evidence:
        """The study as the rules of its claims see it."""
        return Evidence(
            matrix=self.matrix,
            cells=self.cells,
            points=self.points,
            curves={
                (r.planned.pair, r.planned.arm, r.planned.seed): _curve(r)
                for r in self.runs
                if r.record is not None and r.record.status is Status.OK
            },
            waiting=waiting(self.matrix, self.points),
            edges=at_an_edge(self.matrix, self.choices),
            flops=self.flops,
            undeclared_pairs=self.undeclared_pairs,
            looks=self.study.looks,
        )

    @cached_property
    def verdicts(self) -> list[ClaimVerdict]:
        """Every claim judged."""
        return judge_claims(self.evidence)


def verdicts_data(view: StudyView) -> dict[str, Any]:
    """Return a study's verdicts as `verdict.json` holds them."""
    return {
        "format": FORMAT,
        "is_post_hoc": view.post_hoc,
        "margins_hash": view.study.margins_hash,
        "claims": [verdict.model_dump(mode="json") for verdict in view.verdicts],
    }


def load_view(store: Store) -> StudyView:
    """Read a study whole.

    Raises: ConfigError if the folder holds none; StudyError if study.json itself can't be read.
    """
    study = store.read_study()
    written = parse_matrix(study.matrix_text, f"{study.matrix_name}.yaml", asks_trl=False)
    matrix = adapt(written, study.budget, rehearses=study.is_rehearsal, seed_block=study.seed_block)
    problems: list[str] = []
    if matrix_hash(matrix, study.overrides) != study.matrix_hash:
        problems.append(
            "study.json: its matrix is not the one that was hashed before the first run"
        )
    counted = _read_beside(lambda: read_counted(store), problems)
    repeats = _read_beside(lambda: read_repeats(store), problems)
    forecasts = _read_beside(lambda: read_forecasts(store), problems)
    runs = tuple(_load_run(store, matrix, planned, problems) for planned in study.planned)
    grid = tuple(run for run in runs if run.planned.grid_rate is not None)
    chosen = choose(matrix, grid_points((r.planned, r.record) for r in grid))
    judged = [run for run in runs if run.planned.grid_rate is None]
    left_out = tuple(run for run in judged if not _is_current(matrix, run.planned, chosen))
    problems += _left_out_notes(matrix, left_out, chosen)
    resolved = [Resolved(r.planned.pair, r.planned.arm, r.resolved_config) for r in runs]
    undeclared = undeclared_in_study(matrix, resolved)
    return StudyView(
        name=store.root.resolve().name,
        study=study,
        matrix=matrix,
        runs=tuple(run for run in judged if _is_current(matrix, run.planned, chosen)),
        grid=grid,
        left_out=left_out,
        problems=tuple(problems),
        post_hoc=margins_hash(matrix) != study.margins_hash,
        undeclared=tuple(problem for found in undeclared.values() for problem in found),
        undeclared_pairs=frozenset(undeclared),
        flops=counted,
        repeats=repeats,
        forecasts=forecasts[0] if forecasts else None,
    )


def _is_current(matrix: Matrix, planned: PlannedRun, chosen: Choices) -> bool:
    """Whether a run trained at the rate that its arm's grid says, if there is a grid."""
    rate = planned.chosen_rate
    return rate is None or rate == chosen.get(rate_key(matrix, planned.pair, planned.arm))


def _left_out_notes(matrix: Matrix, runs: Sequence[RunView], chosen: Choices) -> list[str]:
    counts = Counter((r.planned.pair, r.planned.arm, r.planned.chosen_rate) for r in runs)
    notes = []
    for (pair, arm, rate), n in counts.items():
        now = chosen.get(rate_key(matrix, pair, arm))
        says = "no rate yet" if now is None else rate_text(now)
        shown = "" if rate is None else rate_text(rate)
        notes.append(
            f"{pair}.{arm}: {n} run{'' if n == 1 else 's'} at learning rate {shown} left out; its grid "
            f"was tried again and now says {says}"
        )
    return notes


def _read_beside(read: Callable[[], tuple[T, ...]], problems: list[str]) -> tuple[T, ...]:
    """Read a file beside the records; what can't be read is named in `problems` and left out."""
    try:
        return read()
    except StudyError as error:
        problems.append(str(error))
        return ()


def _curve(run: RunView) -> tuple[tuple[int, float], ...]:
    """A run's held-out metric by step, on the validation rows."""
    result = run.record.result if run.record else None
    points = result.evaluations if result else ()
    return tuple(
        (p.step, p.value) for p in points if p.split == "validation" and p.value is not None
    )


def _load_run(store: Store, matrix: Matrix, planned: PlannedRun, problems: list[str]) -> RunView:
    """Read one run; what can't be read is named in `problems` and left out."""
    empty = RunView(planned, None, None, None)
    try:
        spec, record = store.read_spec(planned.run_id), store.read_record(planned.run_id)
        if spec is None or record is None:
            return RunView(planned, spec, record, None)
        attempt = store.run_dir(planned.run_id) / f"attempt-{record.attempt}"
        steps, phases = store.read_steps(attempt), store.read_phases(attempt)
        memory = _read_memory(attempt, problems)
        problems += store.verify(planned.run_id)
    except StudyError as error:
        problems.append(str(error))
        return empty
    return RunView(
        planned=planned,
        spec=spec,
        record=record,
        summary=summarise(spec, record, steps, phases, memory, matrix.warmup_steps_excluded),
        steps=steps,
        phases=phases,
        memory=memory,
        environment=store.read_plain(attempt, "environment.json"),
        resolved_config=store.read_plain(attempt, "resolved_config.json"),
    )


def _read_memory(attempt: Path, problems: list[str]) -> pd.DataFrame:
    try:
        return read_samples(attempt)
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        problems.append(f"{attempt.parent.name}/{attempt.name}: its memory samples can't be read")
        return pd.DataFrame(columns=list(MEMORY_COLUMNS))
