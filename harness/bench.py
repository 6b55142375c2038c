"""The main job, stage by stage: plan, run, analyse, report. The same command again resumes.

A run whose training came to something (ok, nan, diverged, out of memory) is done and left alone; one
that an accident ended (crashed, timeout, stalled, a worker killed) is tried again, and every attempt
is kept. Ctrl-C ends the workers, seals what they left and exits with 130.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harness import __version__
from harness.errors import ConfigError, NewerFormatError, RunsFailed, StudyError
from harness.exclusive import Guard
from harness.hub import Obtained, obtain
from harness.launch import Launch, Launcher
from harness.launch.watch import Limits
from harness.mapping import check_maps
from harness.parity import Resolved, undeclared_in_study
from harness.plan import Plan, Request, make_plan
from harness.preflight import COMMAND as PREFLIGHT
from harness.preflight import check_sources
from harness.progress import Display, Event
from harness.record import Record, Status
from harness.recovery import recover, utc_text
from harness.replaying import replay_study
from harness.report import render_report
from harness.rounds import count_flops, forecast_study, known_runs, next_round, tell_waiting
from harness.schedule import Conditions, Schedule
from harness.slots import Slot, hold, processes
from harness.sources import needs, read_sources, write_sources
from harness.spec import RunSpec
from harness.store import VERDICTS, Store
from harness.study_plan import study_of
from harness.surroundings import collected_signals, trackio_in
from harness.text import plural
from harness.view import StudyView, load_view, verdicts_data


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    store: Store
    statuses: dict[str, Status | None]  # run id → status; None is not run
    interrupted_by: int | None
    view: StudyView | None  # the study as its report shows it; None if none was rendered
    waits: int = 0  # runs asked for whose learning rate is still not chosen

    @property
    def exit_code(self) -> int:
        """0 if everything asked for is ok, 3 if some runs failed or wait, 128 + signal if interrupted."""
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        is_ok = not self.waits and all(s is Status.OK for s in self.statuses.values())
        return 0 if is_ok else RunsFailed.exit_code


def bench(
    request: Request,
    launcher: Launcher,
    display: Display,
    preflight: Sequence[str] = PREFLIGHT,
) -> Outcome:
    """Run a matrix to the end, or on from where it stopped.

    `preflight` is the program that looks at models and datasets. Raises: ConfigError, MachineError
    or StudyError before anything is trained; ConfigError too if finished arms turn out to differ in
    what the matrix did not declare.
    """
    plan = make_plan(request)
    store = Store(plan.output_dir)
    store.prepare()
    with store.lock():
        store.sweep()
        plan = known_runs(store, plan, request)
        study = study_of(store, plan, request)
        # Before signals are caught: Ctrl-C ends a download at once.
        obtained = _obtain(store, plan, request, launcher, display, preflight)
        store.write_study(study)
        if obtained.snapshots:
            write_sources(store, obtained.sources)
        return _bench(request, launcher, display, store, plan, obtained)


def _bench(
    request: Request,
    launcher: Launcher,
    display: Display,
    store: Store,
    plan: Plan,
    obtained: Obtained,
) -> Outcome:
    with collected_signals() as signals, display:
        guard = _guard(request, plan, display)
        desk = Desk(store, launcher, display, plan, signals, obtained, guard)
        while True:
            _round(request, desk)
            following = None if signals else next_round(store, desk.plan, request)
            if following is None:
                break
            desk.plan = following.plan
            store.write_study(study_of(store, desk.plan, request))
            display.emit(Event("note", following.note, {}))
        if not signals:
            tell_waiting(store, desk.plan, display)
            count_flops(store, desk.plan, display)
            replay_study(store, desk.plan.loaded.matrix, launcher, display)
            if request.renders_report and request.forecasts_memory:
                forecast_study(store, desk.plan.loaded.matrix, display, lambda: not signals)
        view = _finish(desk, request)
    records = {spec.run_id: desk.records.get(spec.run_id) for spec in desk.plan.specs}
    return Outcome(
        store,
        {run_id: record.status if record else None for run_id, record in records.items()},
        signals[0] if signals else None,
        view,
        waits=len(desk.plan.later),
    )


def _round(request: Request, desk: Desk) -> None:
    """Run what is planned and not done: the runs that are known so far."""
    plan, display = desk.plan, desk.display
    for spec in plan.specs:
        if spec.run_id not in desk.records:
            desk.note(spec, _known_record(desk.store, spec, display))
    desk.refuse_undeclared()
    # A failed run is tried once more by a command, and not in each of its rounds.
    pending = [
        s
        for s in plan.specs
        if s.run_id not in desk.tried and not _is_done(desk.records[s.run_id], request)
    ]
    needed = max(1, sum(processes(spec) for spec in pending))
    with hold(plan.slots, min(plan.places, needed)) as (slots, shared):
        display.emit(_plan_event(plan, slots, len(plan.specs) - len(pending)))
        for name in shared if pending else ():
            text = f"{name} is used by another study too: times and memory will be disturbed"
            display.emit(Event("problem", text, {"slot": name}))
        if pending:
            _run(request, desk, pending, slots)


def _obtain(
    store: Store,
    plan: Plan,
    request: Request,
    launcher: Launcher,
    display: Display,
    preflight: Sequence[str],
) -> Obtained:
    """Put what the runs read on this machine and look at it, unless every run is done."""

    def tell(text: str) -> None:
        display.emit(Event("note", text, {}))

    known = read_sources(store)
    pending = unfinished(store, plan.foreseen, request)
    if not pending:
        check_maps(request.maps, needs(plan.specs), known)
        return Obtained()
    launcher.check(pending, store.root)
    is_quiet = not display.has_bars
    obtained = obtain(plan.foreseen, request.maps, known, tell, is_quiet=is_quiet)
    for note in check_sources(plan.foreseen, obtained.places, preflight):
        tell(note)
    return obtained


def unfinished(store: Store, specs: Sequence[RunSpec], request: Request) -> list[RunSpec]:
    """List the runs that a command would still train; a study that is not there has them all."""
    return [spec for spec in specs if not _is_finished(store, spec, request)]


def _is_finished(store: Store, spec: RunSpec, request: Request) -> bool:
    try:
        return _is_done(store.read_record(spec.run_id), request)
    except StudyError:  # set aside and sealed again later on
        return False


def write_report(store: Store) -> StudyView:
    """Render a study's report into its folder, and return the study as it was read."""
    view = load_view(store)
    store.write_report(render_report(view, generated_utc=utc_text(datetime.now(UTC))))
    store.write_json(store.root / VERDICTS, verdicts_data(view))
    return view


@dataclass
class Desk:
    """What the run stage works with, what it has found, and why it would stop."""

    store: Store
    launcher: Launcher
    display: Display
    plan: Plan
    signals: Sequence[int]
    obtained: Obtained = field(default_factory=Obtained)
    guard: Guard | None = None  # --exclusive
    records: dict[str, Record | None] = field(default_factory=dict)
    undeclared: list[str] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    _resolved: list[Resolved] = field(default_factory=list)

    def note(self, spec: RunSpec, record: Record | None) -> None:
        """Take in a run's record, and compare what it resolved to with the runs before it."""
        self.records[spec.run_id] = record
        if record is None:
            return
        attempt = self.store.run_dir(spec.run_id) / f"attempt-{record.attempt}"
        config = self.store.read_plain(attempt, "resolved_config.json")
        self._resolved.append(Resolved(spec.pair, spec.arm, config))
        found = undeclared_in_study(self.plan.loaded.matrix, self._resolved)
        self.undeclared = [problem for problems in found.values() for problem in problems]

    def sealed(self, spec: RunSpec, record: Record | None) -> None:
        """Take in what a run of this command came to."""
        self.tried.add(spec.run_id)
        self.note(spec, record)

    def refuse_undeclared(self) -> None:
        """Raise: ConfigError if arms differ in what was not declared."""
        if self.undeclared:
            raise ConfigError(*self.undeclared)

    def urgency(self) -> int:
        """Say how much there is to stop for: 0 nothing, 1 end the runs, 2 at once."""
        return min(2, len(self.signals)) or int(bool(self.undeclared))


def _run(request: Request, desk: Desk, pending: Sequence[RunSpec], slots: Sequence[Slot]) -> None:
    matrix = desk.plan.loaded.matrix
    conditions = Conditions(
        launch=Launch(
            sampler_hz=request.sampler_hz,
            memory_limit_bytes=request.memory_limit_bytes,
            places=desk.obtained.places,
            sources=desk.obtained.read,
        ),
        limits=Limits(
            timeout_s=request.timeout_s or matrix.timeout_s,
            stall_s=request.stall_s or matrix.stall_s,
            grace_s=request.grace_s,
        ),
        harness_version=__version__,
    )
    with trackio_in(desk.store.root), desk.launcher as launcher:
        Schedule(
            store=desk.store,
            launcher=launcher,
            display=desk.display,
            conditions=conditions,
            slots=slots,
            jobs=desk.plan.jobs,
            on_sealed=desk.sealed,
            urgency=desk.urgency,
            total=len(desk.plan.specs),
            done=len(desk.plan.specs) - len(pending),
            guard=desk.guard,
        ).run(pending)
    desk.refuse_undeclared()


def _guard(request: Request, plan: Plan, display: Display) -> Guard | None:
    def tell(text: str) -> None:
        display.emit(Event("note", text, {}))

    if request.exclusive_wait_s is None:
        return None
    if not plan.slots[0].gpu:
        tell("no run uses a GPU: --exclusive has nothing to guard")
        return None
    return Guard(request.exclusive_wait_s, tell)


def _finish(desk: Desk, request: Request) -> StudyView | None:
    """Read the records once more and render the report, unless interrupted or not wanted."""
    for spec in desk.plan.specs:
        desk.records[spec.run_id] = desk.store.read_record(spec.run_id)
    if desk.signals:
        text = "interrupted: what finished is kept; the same command goes on from here"
        desk.display.emit(Event("interrupt", text, {"signal": desk.signals[0]}))
        return None
    if not request.renders_report:
        return None
    view = write_report(desk.store)
    page = desk.store.report_dir / "index.html"
    desk.display.emit(Event("report", f"report {page}", {"path": str(page)}))
    return view


def _is_done(record: Record | None, request: Request) -> bool:
    if record is None:
        return False
    return record.status is Status.OK or (record.is_done and not request.retries_failed)


def _known_record(store: Store, spec: RunSpec, display: Display) -> Record | None:
    try:
        store.read_record(spec.run_id)
    except NewerFormatError:
        raise
    except StudyError as error:
        name = store.set_aside(store.run_dir(spec.run_id) / "record.json")
        display.emit(
            Event("problem", f"{error}; set aside as {name}", {"run_id": spec.run_id, "file": name})
        )
    return recover(store, spec, __version__)


def _plan_event(plan: Plan, slots: Sequence[Slot], done: int) -> Event:
    kept = f", {done} finished before and kept" if done else ""
    waits = len(plan.later)
    later = f", {waits} more once their rates are chosen" if waits else ""
    places, jobs = ", ".join(s.name for s in slots), min(plan.jobs, len(slots))
    text = (
        f"matrix {plan.loaded.matrix.name}: {plural(len(plan.specs), 'run')}{kept}{later}, {jobs} side by "
        f"side ({places}); study folder {plan.output_dir}"
    )
    data = {"study": str(plan.output_dir), "runs": [s.run_id for s in plan.specs], "done": done}
    return Event("plan", text, data)
