"""Runs a plan on a few slots: start, watch, seal, next.

A slot is a place where one process trains: a pinned CPU core, or a GPU. A run takes as many as it
has processes, and runs start in the plan's order: one that waits for its slots is not overtaken. The
loop polls; it never waits on one run, and it sleeps between looks so that it does not work beside the
measurement. Whatever happens to a run becomes an attempt with a status; the others go on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import ValidationError

from harness.errors import MachineError
from harness.exclusive import Guard, find_stranger
from harness.files import disk_errors
from harness.launch import Handle, Launch, Launcher
from harness.launch.ending import Ending, Stop
from harness.launch.watch import Limits, Watched
from harness.measure.sampler import Sampler
from harness.progress import Active, Display, Event, EventKind
from harness.record import Attempt, Container, Record, Status, StepRow
from harness.recovery import attempt_number, note_process, seal, utc_text
from harness.slots import Slot, processes
from harness.spec import RunSpec
from harness.store import Store

POLL_S = 0.1
TICK_S = 0.5


@dataclass(frozen=True)
class Conditions:
    """What every run of this command runs under."""

    launch: Launch
    limits: Limits
    harness_version: str


@dataclass
class Running:
    """A run under way on a slot."""

    spec: RunSpec
    slots: tuple[Slot, ...]
    attempt: Path
    handle: Handle
    watched: Watched
    sampler: Sampler | None
    started: datetime
    began_s: float
    container: Container | None
    tail: StepTail = field(init=False)

    def __post_init__(self) -> None:
        self.tail = StepTail(self.attempt / "steps.jsonl")


@dataclass
class Schedule:
    """The runs of a plan that are still to do, on the slots they may use."""

    store: Store
    launcher: Launcher
    display: Display
    conditions: Conditions
    slots: Sequence[Slot]
    jobs: int  # runs side by side at most
    on_sealed: Callable[[RunSpec, Record | None], None]
    urgency: Callable[[], int]  # 0 go on; 1 end the runs; 2 or more: at once
    total: int
    done: int = 0
    guard: Guard | None = None  # --exclusive
    _durations: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _refusal: MachineError | None = field(default=None, init=False)

    def run(self, pending: Sequence[RunSpec]) -> None:
        """Run everything that is pending, or until asked to stop; every attempt is sealed.

        Raises: MachineError if a run could not be started, once those that were running have ended.
        """
        queue, free, running = deque(pending), list(self.slots), list[Running]()
        next_tick = 0.0
        try:
            while queue or running:
                urgency = self.urgency()
                if urgency:
                    queue.clear()
                    for run in running:
                        run.watched.cancel() if urgency == 1 else run.watched.kill()
                self._start_next(queue, free, running)
                for run in list(running):
                    ending = run.watched.poll()
                    if ending is not None:
                        running.remove(run)
                        free.extend(run.slots)
                        self._finish(run, ending)
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    self._end_shared(running)
                    self._show(running, queue)
                time.sleep(POLL_S)
        finally:
            for run in running:  # an error of ours: leave no process behind
                run.handle.close()
                if run.sampler:
                    run.sampler.stop()
        if self._refusal is not None:
            raise self._refusal

    def _start_next(self, queue: deque[RunSpec], free: list[Slot], running: list[Running]) -> None:
        """Start what has its places; what could not be started is the last that was tried."""
        while queue and self.launcher.is_ready and len(running) < self.jobs:
            if processes(queue[0]) > len(free):
                return
            spec = queue[0]
            taken = tuple(free[: processes(spec)])
            try:
                if not self._may_use(taken):
                    return
                queue.popleft()
                del free[: len(taken)]
                running.append(self._start(spec, taken))
            except MachineError as error:
                self._refusal = error
                queue.clear()
                if running:
                    cells = ", ".join(run.spec.cell for run in running)
                    text = f"{spec.cell} could not be started; waiting for {cells} to end"
                    self.display.emit(Event("problem", text, {"run_id": spec.run_id}))

    def _may_use(self, slots: Sequence[Slot]) -> bool:
        return self.guard is None or self.guard.is_clear([s.gpu for s in slots if s.gpu])

    def _end_shared(self, running: Sequence[Running]) -> None:
        """End runs whose GPU another program came to, under --exclusive."""
        for run in running if self.guard else ():
            stranger = find_stranger(run.attempt)
            if stranger is not None:
                run.watched.end(Stop(Status.CONTAMINATED, stranger))

    def _start(self, spec: RunSpec, slots: tuple[Slot, ...]) -> Running:
        store, launch = self.store, self.conditions.launch
        store.write_spec(spec)
        attempt = store.new_attempt(spec.run_id)
        cores = tuple(s.core for s in slots if s.core is not None)
        gpus = tuple(s.gpu for s in slots if s.gpu is not None)
        places = {"parallel": spec.parallel, "cores": cores, "gpus": gpus}
        launch = self.launcher.prepare(attempt, launch.model_copy(update=places))
        store.write_attempt(attempt, launch, "launch.json")
        started, began_s = datetime.now(UTC), time.monotonic()
        sampler = None
        with disk_errors(attempt):
            handle = self.launcher.start(attempt, launch)
            try:
                if handle.pid is not None:
                    note_process(store, attempt, handle.pid)
                    sampler = Sampler.start(handle.pid, attempt, launch.sampler_hz, gpus)
            except BaseException:
                handle.close()
                raise
        watched = Watched(handle, attempt, self.conditions.limits)
        number = attempt_number(attempt)
        again = f" (attempt {number})" if number > 1 else ""
        self.display.emit(
            Event(
                "start",
                f"start  {spec.cell}{again}",
                {"run_id": spec.run_id, "cores": cores, "gpus": gpus},
            )
        )
        return Running(
            spec, slots, attempt, handle, watched, sampler, started, began_s, launch.container
        )

    def _finish(self, run: Running, ending: Ending) -> None:
        wall_s = time.monotonic() - run.began_s
        run.handle.close()
        if run.sampler:
            run.sampler.stop()
        if self.guard and ending.status is not Status.CANCELLED:
            ending = _unless_shared(ending, run.attempt)
        attempt = Attempt(
            number=attempt_number(run.attempt),
            status=ending.status,
            reason=ending.reason,
            launcher=self.launcher.name,
            started_utc=utc_text(run.started),
            ended_utc=utc_text(datetime.now(UTC)),
            wall_s=wall_s,
            exit=ending.exit,
            container=run.container,
        )
        self.store.write_attempt(run.attempt, attempt, "attempt.json")
        record = seal(self.store, run.spec, self.conditions.harness_version)
        self.done += ending.status is not Status.CANCELLED
        self._durations.setdefault((run.spec.pair, run.spec.arm), []).append(wall_s)
        reason = f": {ending.reason}" if ending.reason and ending.status is not Status.OK else ""
        kind: EventKind = "end" if ending.status is Status.OK else "problem"
        self.display.emit(
            Event(
                kind,
                f"{ending.status.value:6} {run.spec.cell} in {wall_s:.0f} s{reason}",
                {
                    "run_id": run.spec.run_id,
                    "status": ending.status.value,
                    "wall_s": round(wall_s, 3),
                },
            )
        )
        self.on_sealed(run.spec, record)

    def _show(self, running: Sequence[Running], queue: Sequence[RunSpec]) -> None:
        active = [run.tail.look(run) for run in running]
        self.display.tick(active, self.done, self.total, self._seconds_left(running, queue))

    def _seconds_left(self, running: Sequence[Running], queue: Sequence[RunSpec]) -> float | None:
        """Time left for the matrix: the mean of finished runs of an arm, or of all, per slot."""
        known = [s for times in self._durations.values() for s in times]
        if not known:
            return None
        overall = sum(known) / len(known)

        def expected(spec: RunSpec) -> float:
            times = self._durations.get((spec.pair, spec.arm))
            return sum(times) / len(times) if times else overall

        def left(run: Running) -> float:
            return max(0.0, expected(run.spec) - (time.monotonic() - run.began_s))

        slot_s = sum(left(r) * processes(r.spec) for r in running)
        slot_s += sum(expected(s) * processes(s) for s in queue)
        return slot_s / len(self.slots)


def _unless_shared(ending: Ending, attempt: Path) -> Ending:
    """Call an attempt contaminated, whatever it came to, if another program came to its GPU."""
    stranger = find_stranger(attempt)
    if stranger is None:
        return ending
    return replace(ending, status=Status.CONTAMINATED, reason=stranger)


class StepTail:
    """Reads the last line of a growing steps.jsonl."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def look(self, run: Running) -> Active:
        """Say how far a run is."""
        row = self._last_row()
        metric = "reward" if run.spec.task == "grpo" else "loss"
        asked = run.spec.trainer.get("max_steps")
        max_steps = asked if isinstance(asked, int) and asked > 0 else None
        seconds = (row.end_ns - row.begin_ns) / 1e9 if row else None
        step = row.step if row else 0
        return Active(
            cell=run.spec.cell,
            attempt=attempt_number(run.attempt),
            step=step,
            max_steps=max_steps,
            metric=metric,
            value=row.logs.get(metric) if row else None,
            tokens_per_s=row.tokens / seconds if row and row.tokens and seconds else None,
            rss_bytes=_rss(run.handle.pid, run.spec.parallel or run.container),
            seconds_left=seconds * (max_steps - step) if seconds and max_steps else None,
        )

    def _last_row(self) -> StepRow | None:
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
                lines = file.read().split(b"\n")
        except OSError:
            return None
        for line in reversed(lines):
            try:
                return StepRow.model_validate_json(line)
            except ValidationError:
                continue  # empty, or still being written
        return None


def _rss(pid: int | None, around: object) -> int | None:
    """A worker's RSS; with ranks or a container around it, theirs too: that process only starts them."""
    if pid is None:
        return None
    try:
        worker = psutil.Process(pid)
        members = [worker, *worker.children(recursive=True)] if around else [worker]
        return sum(member.memory_info().rss for member in members)
    except psutil.Error:
        return None
