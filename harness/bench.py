"""The main job, stage by stage: plan, run, analyse, report. The same command again resumes.

A run whose training came to something (ok, nan, diverged, out of memory) is done and left alone; one
that an accident ended (crashed, timeout, stalled, a worker killed) is tried again, and every attempt
is kept. Ctrl-C ends the workers, seals what they left and exits with 130.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import psutil

from harness import __version__
from harness.errors import ConfigError, MachineError, StudyError
from harness.launch import Launch, Launcher
from harness.launch.watch import Limits
from harness.matrix import (
    LoadedMatrix,
    expand,
    load_matrix,
    margins_hash,
    matrix_hash,
    select,
    with_overrides,
)
from harness.measure.gpus import Gpu, list_gpus, visible_gpus
from harness.parity import undeclared_differences
from harness.progress import Display, Event
from harness.record import PlannedRun, Record, Status, Study
from harness.report import render_report
from harness.schedule import Conditions, Schedule, Slot, recover, utc_text
from harness.spec import RunSpec
from harness.store import Store
from harness.view import load_view

MEMORY_PER_WORKER = 4 * 2**30  # bytes; a worker of the CPU matrices stays below it


@dataclass(frozen=True)
class Request:
    """What `harness bench` was asked for."""

    matrix: str
    output_dir: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    jobs: int | None = None
    device: Literal["auto", "cpu", "gpu"] = "auto"
    retries_failed: bool = False
    sampler_hz: float = 20.0
    memory_limit_bytes: int | None = None
    timeout_s: int | None = None
    stall_s: int | None = None
    grace_s: float = 10.0
    renders_report: bool = True
    command: str = "harness bench"


@dataclass(frozen=True)
class Plan:
    """A matrix resolved to the runs of this command."""

    loaded: LoadedMatrix
    specs: tuple[RunSpec, ...]
    output_dir: Path
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    store: Store
    statuses: dict[str, Status | None]  # run id → status; None is not run
    interrupted_by: int | None
    report: Path | None

    @property
    def exit_code(self) -> int:
        """0 if everything asked for is ok, 3 if some runs failed, 128 + signal if interrupted."""
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        return 0 if all(s is Status.OK for s in self.statuses.values()) else 3


def make_plan(request: Request) -> Plan:
    """Resolve a request without touching a study.

    Raises: ConfigError listing what is wrong with it; MachineError if the device is missing.
    """
    loaded = load_matrix(request.matrix)
    with_overrides(loaded.matrix, request.overrides)
    seeds = request.seeds
    if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
        raise ConfigError(f"--seeds gives {list(seeds)}; expected one or more distinct seeds")
    specs = select(expand(loaded.matrix, request.overrides, seeds), request.filters)
    output_dir = request.output_dir or Path("results") / loaded.matrix.name
    return Plan(loaded, tuple(specs), output_dir, _slots(request, loaded))


def bench(request: Request, launcher: Launcher, display: Display) -> Outcome:
    """Run a matrix to the end, or on from where it stopped.

    Raises: ConfigError, MachineError or StudyError before anything is trained.
    """
    plan = make_plan(request)
    store = Store(plan.output_dir)
    store.prepare()
    with store.lock(), _signals() as signals, display:
        store.write_study(_study(store, plan, request))
        records = {s.run_id: _known_record(store, s, display) for s in plan.specs}
        pending = [s for s in plan.specs if not _is_done(records[s.run_id], request)]
        done = len(plan.specs) - len(pending)
        display.emit(_plan_event(plan, done))
        _run(request, plan, pending, Desk(store, launcher, display, records), signals)
        for spec in plan.specs:
            records[spec.run_id] = store.read_record(spec.run_id)
        folder = None
        if not signals and request.renders_report:
            folder = write_report(store)
            display.emit(Event("report", f"report {folder / 'index.html'}", {"path": str(folder)}))
        elif signals:
            text = "interrupted: what finished is kept; the same command goes on from here"
            display.emit(Event("interrupt", text, {"signal": signals[0]}))
    statuses = {k: r.status if r else None for k, r in records.items()}
    return Outcome(store, statuses, signals[0] if signals else None, folder)


def write_report(store: Store) -> Path:
    """Render a study's report into its folder."""
    files = render_report(load_view(store), generated_utc=utc_text(datetime.now(UTC)))
    return store.write_report(files)


@dataclass
class Desk:
    """What the run stage works with, and what it stops on."""

    store: Store
    launcher: Launcher
    display: Display
    records: dict[str, Record | None]
    undeclared: list[str] = field(default_factory=list)


def _run(
    request: Request, plan: Plan, pending: Sequence[RunSpec], desk: Desk, signals: Sequence[int]
) -> None:
    if not pending:
        return
    matrix = plan.loaded.matrix

    def check_parity(spec: RunSpec, record: Record | None) -> None:
        desk.records[spec.run_id] = record
        desk.undeclared += _parity_problems(
            desk, plan, spec, matrix.pairs[spec.pair].declared_differences
        )

    conditions = Conditions(
        launch=Launch(
            sampler_hz=request.sampler_hz,
            memory_limit_bytes=request.memory_limit_bytes,
        ),
        limits=Limits(
            timeout_s=request.timeout_s or matrix.timeout_s,
            stall_s=request.stall_s or matrix.stall_s,
            grace_s=request.grace_s,
        ),
        harness_version=__version__,
    )
    with _trackio_in(desk.store.root), desk.launcher as launcher:
        Schedule(
            store=desk.store,
            launcher=launcher,
            display=desk.display,
            conditions=conditions,
            slots=plan.slots[: len(pending)],
            on_sealed=check_parity,
            is_stopping=lambda: bool(signals or desk.undeclared),
            total=len(plan.specs),
            done=len(plan.specs) - len(pending),
        ).run(pending)
    if desk.undeclared:
        raise ConfigError(*dict.fromkeys(desk.undeclared))


def _parity_problems(desk: Desk, plan: Plan, spec: RunSpec, declared: Sequence[str]) -> list[str]:
    """Compare a finished run's resolved configuration with one run of every other arm."""
    ours = _resolved(desk, spec)
    problems: list[str] = []
    seen = {spec.arm}
    for other in plan.specs:
        if other.pair != spec.pair or other.arm in seen or not ours:
            continue
        theirs = _resolved(desk, other)
        if theirs:
            seen.add(other.arm)
            problems += [
                f"arms {spec.arm!r} and {other.arm!r} of pair {spec.pair!r} differ in {difference}; "
                "declare it in declared_differences or make it equal"
                for difference in undeclared_differences(ours, theirs, (*declared, "seed"))
            ]
    return problems


def _resolved(desk: Desk, spec: RunSpec) -> dict[str, Any]:
    record = desk.records.get(spec.run_id)
    if record is None:
        return {}
    attempt = desk.store.run_dir(spec.run_id) / f"attempt-{record.attempt}"
    return desk.store.read_plain(attempt, "resolved_config.json")


def _is_done(record: Record | None, request: Request) -> bool:
    if record is None:
        return False
    return record.status is Status.OK or (record.is_done and not request.retries_failed)


def _known_record(store: Store, spec: RunSpec, display: Display) -> Record | None:
    try:
        record = store.read_record(spec.run_id)
    except StudyError as error:
        name = store.set_aside(spec.run_id)
        display.emit(
            Event("problem", f"{error}; set aside as {name}", {"run_id": spec.run_id, "file": name})
        )
        record = None
    return record or recover(store, spec, __version__)


def _study(store: Store, plan: Plan, request: Request) -> Study:
    """The study as it is from now on: new, or the one that is there with more runs planned.

    Raises: ConfigError if the folder holds a study of another matrix.
    """
    matrix = plan.loaded.matrix
    planned = [PlannedRun(run_id=s.run_id, pair=s.pair, arm=s.arm, seed=s.seed) for s in plan.specs]
    hashed = matrix_hash(matrix, request.overrides)
    if store.exists():
        study = store.read_study()
        if study.matrix_hash != hashed:
            what = (
                f"was made by matrix {study.matrix_name!r}"
                if study.matrix_name != matrix.name
                else f"was made by another version of matrix {matrix.name!r}, or with other --set values"
            )
            raise ConfigError(
                f"study folder {str(store.root)!r} {what}; name another folder with --output-dir"
            )
        have = {p.run_id for p in study.planned}
        more = [p for p in planned if p.run_id not in have]
        return study.model_copy(update={"planned": (*study.planned, *more)})
    return Study(
        matrix_name=matrix.name,
        matrix_text=plan.loaded.text,
        matrix_hash=hashed,
        margins_hash=margins_hash(matrix),
        overrides=request.overrides,
        planned=tuple(planned),
        created_utc=utc_text(datetime.now(UTC)),
        harness_version=__version__,
        command=request.command,
    )


def _plan_event(plan: Plan, done: int) -> Event:
    matrix = plan.loaded.matrix
    kept = f", {done} finished before and kept" if done else ""
    where = "GPU" if plan.slots[0].gpu else "CPU core"
    text = (
        f"matrix {matrix.name}: {len(plan.specs)} runs{kept}, {len(plan.slots)} side by side, "
        f"one {where} each; study folder {plan.output_dir}"
    )
    return Event("plan", text, {"runs": [s.run_id for s in plan.specs], "done": done})


def _slots(request: Request, loaded: LoadedMatrix) -> tuple[Slot, ...]:
    """Choose where runs execute.

    Raises: MachineError if a GPU was asked for and there is none.
    """
    wanted = loaded.matrix.device if request.device == "auto" else request.device
    gpus: tuple[Gpu, ...] = ()
    if wanted != "cpu":
        found = list_gpus()
        gpus = visible_gpus(found.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if not gpus and wanted == "gpu":
            raise MachineError(
                f"matrix {loaded.matrix.name!r} needs a CUDA GPU and none can be used here "
                f"({found.note or 'CUDA_VISIBLE_DEVICES hides them'}); run it on a machine with one, "
                "or try `harness bench --matrix cpu`"
            )
    if gpus:
        return tuple(Slot(None, g.uuid) for g in gpus[: request.jobs or len(gpus)])
    cores = sorted(os.sched_getaffinity(0))
    fit = max(1, int(psutil.virtual_memory().available // MEMORY_PER_WORKER))
    jobs = request.jobs or min(len(cores), fit)
    if jobs > len(cores):
        raise ConfigError(
            f"--jobs {jobs} asks for more workers than the {len(cores)} usable CPU cores; each worker "
            "has a core of its own, or they would disturb each other's measurement"
        )
    return tuple(Slot(core, None) for core in cores[:jobs])


@contextmanager
def _trackio_in(study: Path) -> Iterator[None]:
    """Have `report_to: trackio` write into the study, unless the user chose another place.

    By environment variable, because trackio reads it when it is imported, and TRL imports trackio:
    a fork server has done so before it knows of any run.
    """
    name = "TRACKIO_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str((study / "trackio").resolve())
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
