"""Sealing a run, and bringing its folder in order after a supervisor that was killed.

Nothing that finished is lost or run again: an attempt whose worker left a last word is adopted, and
an attempt that nobody saw end gets an end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import ValidationError

from harness.errors import NewerFormatError, StudyError
from harness.files import disk_errors
from harness.launch.ending import read_result
from harness.measure.pace import HZ
from harness.measure.sealing import seal_samples, seal_summary
from harness.measure.spool import SPOOL
from harness.record import Attempt, Container, Exit, Record, Status
from harness.spec import RunSpec
from harness.store import Store


def seal(store: Store, spec: RunSpec, version: str) -> Record | None:
    """Write a run's record from its attempts, or nothing if the last was cancelled."""
    folders = store.attempts(spec.run_id)
    attempts = [a for f in folders if (a := store.read_attempt(f)) is not None]
    if not attempts or attempts[-1].status is Status.CANCELLED:
        return None
    last, folder = attempts[-1], folders[-1]
    _seal_samples(store, folder)
    record = Record(
        run_id=spec.run_id,
        harness_version=version,
        status=last.status,
        reason=last.reason,
        attempt=last.number,
        attempts=tuple(attempts),
        result=read_result(folder)[0],
        sampler=store.read_sampler(folder),
    )
    store.seal(record)
    return store.read_record(spec.run_id)


def recover(store: Store, spec: RunSpec, version: str) -> Record | None:
    """Bring a run's folder in order after a supervisor that was killed, and return its record.

    An attempt that nobody saw end is ended now: with the worker's own last word if it left one, else
    as cancelled. A worker that is somehow still alive is killed first. A run whose folder is in order
    already is left as it is.
    """
    record = store.read_record(spec.run_id)
    folders = store.attempts(spec.run_id)
    unseen = [f for f in folders if not _has_ended(store, f)]
    for folder in unseen:
        container = _container_of(store, folder)
        _kill_left_over(store, folder)
        if container is not None:
            from harness.launch.docker import end_left_over

            end_left_over(container, folder)
        store.write_attempt(folder, _adopted(folder, container), "attempt.json")
    newest = attempt_number(folders[-1]) if folders else 0
    if record is not None and newest == record.attempt:
        return record
    return seal(store, spec, version) or record


def _has_ended(store: Store, folder: Path) -> bool:
    """Whether an attempt's end is on record; one that can't be read is set aside."""
    try:
        return store.read_attempt(folder) is not None
    except NewerFormatError:
        raise
    except StudyError:
        store.set_aside(folder / "attempt.json")
        return False


def _seal_samples(store: Store, folder: Path) -> None:
    """Seal the memory samples; a spool that can't be read is set aside, and the run keeps the rest."""
    try:
        with disk_errors(folder / SPOOL):
            seal_samples(folder)
            hz = store.read_plain(folder, "launch.json").get("sampler_hz", HZ)
            seal_summary(folder, float(hz))
    except (ValueError, TypeError):
        store.set_aside(folder / SPOOL)


def attempt_number(folder: Path) -> int:
    """The number of an attempt's folder."""
    return int(folder.name.removeprefix("attempt-"))


def utc_text(moment: datetime) -> str:
    """A moment as ISO 8601 with seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _container_of(store: Store, folder: Path) -> Container | None:
    noted = store.read_plain(folder, "launch.json").get("container")
    try:
        return Container.model_validate(noted) if noted else None
    except ValidationError:
        return None


def _adopted(folder: Path, container: Container | None) -> Attempt:
    """Say how an attempt ended that no supervisor saw end; its files' times stand for the clock."""
    result, problem = read_result(folder)
    if result is not None:
        status, reason = result.status, result.reason
    elif problem is not None:
        status, reason = Status.CRASHED, problem
    else:
        status, reason = Status.CANCELLED, "the harness was ended before this attempt was"
    launched = folder / "launch.json"
    end = max((p.stat().st_mtime for p in folder.iterdir()), default=folder.stat().st_mtime)
    begin = launched.stat().st_mtime if launched.exists() else end
    return Attempt(
        number=attempt_number(folder),
        status=status,
        reason=reason,
        launcher="docker" if container else "local",
        started_utc=utc_text(datetime.fromtimestamp(begin, UTC)),
        ended_utc=utc_text(datetime.fromtimestamp(end, UTC)),
        wall_s=max(0.0, end - begin),
        exit=Exit(ended_by="itself" if result else "outside"),
        container=container,
    )


def note_process(store: Store, attempt: Path, pid: int) -> None:
    """Write down which process works on an attempt, for whoever has to end it later."""
    try:
        created = psutil.Process(pid).create_time()
    except psutil.Error:
        return  # it ended already
    store.write_json(attempt / "process.json", {"format": 1, "pid": pid, "create_time": created})


def _kill_left_over(store: Store, attempt: Path) -> None:
    noted = store.read_plain(attempt, "process.json")
    try:
        process = psutil.Process(noted["pid"])
        if process.create_time() != noted["create_time"]:
            return  # another process has the number now
        for each in (*process.children(recursive=True), process):
            each.kill()
        process.wait(10)
    except (KeyError, psutil.Error):
        return
