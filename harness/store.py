"""The only reader and writer of a study folder: atomic, resumable, locked.

A file that matters is written to a temporary name, synced and renamed, so it is whole or absent. The
lock is the kernel's (released when its holder dies, however it dies). `record.json` is written last:
a run is done when it is valid. An attempt is never deleted or reused.

    <study>/study.json
    <study>/runs/<run_id>/spec.json, record.json, attempt-1/ …
    <study>/report/
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness.errors import ConfigError, MachineError, StudyError
from harness.record import FORMAT, Attempt, PhaseRow, Record, Result, SamplerSummary, StepRow, Study
from harness.spec import Frozen, RunSpec, content_hash

M = TypeVar("M", bound=Frozen)
_RAW = frozenset(
    {
        "launch.json",
        "steps.jsonl",
        "phases.jsonl",
        "memory.parquet",
        "result.json",
        "sampler.json",
        "resolved_config.json",
        "environment.json",
    }
)
_ATTEMPT = re.compile(r"^attempt-([1-9]\d*)$")


class Store:
    """A study folder.

    Raises (all methods that write): MachineError if the disk is full or the folder not writable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder.

        Raises: ConfigError if it is a file; MachineError if it can't be made or written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(
                f"output folder {str(self.root)!r} is a file; expected a folder: name another with "
                "--output-dir"
            )
        with _disk_errors(self.root):
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.touch()
            probe.unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for writing.

        Raises: StudyError if another process holds it.
        """
        with _disk_errors(self.root):
            lock = FileLock(self.root / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StudyError(
                    f"study {self.root.name!r} is in use by another harness; wait for it, or use "
                    "another --output-dir"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        """Whether this folder holds a study."""
        return (self.root / "study.json").is_file()

    def write_study(self, study: Study) -> None:
        """Write study.json."""
        self._write_model(self.root / "study.json", study)

    def read_study(self) -> Study:
        """Read study.json.

        Raises: ConfigError if there is none; StudyError if it can't be read.
        """
        path = self.root / "study.json"
        if not path.is_file():
            raise ConfigError(
                f"{str(self.root)!r} holds no study (no study.json); expected a folder that "
                "`harness bench` made"
            )
        return _read_model(path, Study)

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.root / "runs" / run_id

    def write_spec(self, spec: RunSpec) -> None:
        """Write a run's spec.json if it is not there."""
        path = self.run_dir(spec.run_id) / "spec.json"
        if not path.is_file():
            with _disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._write_model(path, spec)

    def read_spec(self, run_id: str) -> RunSpec | None:
        """Read a run's spec, or None before its first attempt."""
        path = self.run_dir(run_id) / "spec.json"
        return _read_model(path, RunSpec) if path.is_file() else None

    def attempts(self, run_id: str) -> list[Path]:
        """The folders of a run's attempts, oldest first."""
        folder = self.run_dir(run_id)
        if not folder.is_dir():
            return []
        found = [(int(m[1]), p) for p in folder.iterdir() if (m := _ATTEMPT.match(p.name))]
        return [path for _, path in sorted(found)]

    def new_attempt(self, run_id: str) -> Path:
        """Make the folder of a run's next attempt."""
        number = len(self.attempts(run_id)) + 1
        path = self.run_dir(run_id) / f"attempt-{number}"
        with _disk_errors(path):
            path.mkdir(parents=True)
        return path

    def write_attempt(self, attempt: Path, model: Frozen, name: str) -> None:
        """Write one file of an attempt."""
        self._write_model(attempt / name, model)

    def write_json(self, path: Path, data: object) -> None:
        """Write plain data as JSON; NaN is refused."""
        self._write_bytes(path, json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")

    def read_attempt(self, attempt: Path) -> Attempt | None:
        """Read how an attempt ended, or None if no supervisor saw it end."""
        path = attempt / "attempt.json"
        return _read_model(path, Attempt) if path.is_file() else None

    def read_result(self, attempt: Path) -> Result | None:
        """Read the worker's last word, or None if it never spoke."""
        path = attempt / "result.json"
        return _read_model(path, Result) if path.is_file() else None

    def read_sampler(self, attempt: Path) -> SamplerSummary | None:
        """Read the sampler's summary, or None if it left none that can be read."""
        path = attempt / "sampler.json"
        try:
            return _read_model(path, SamplerSummary) if path.is_file() else None
        except StudyError:
            return None

    def read_steps(self, attempt: Path) -> tuple[StepRow, ...]:
        """Read the steps of an attempt; a torn last line is left out."""
        return tuple(_read_lines(attempt / "steps.jsonl", StepRow))

    def read_phases(self, attempt: Path) -> tuple[PhaseRow, ...]:
        """Read the phases of an attempt; a torn last line is left out."""
        return tuple(_read_lines(attempt / "phases.jsonl", PhaseRow))

    def read_plain(self, attempt: Path, name: str) -> dict[str, Any]:
        """Read environment.json or resolved_config.json; empty if absent or torn."""
        try:
            data = json.loads((attempt / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def seal(self, record: Record) -> None:
        """Write a run's record, with the hashes of its raw files: from now on the run is done."""
        folder = self.run_dir(record.run_id)
        files = _hashes(folder / f"attempt-{record.attempt}")
        sealed = record.model_copy(update={"files": files, "sha256": None})
        sealed = sealed.model_copy(update={"sha256": content_hash(sealed)})
        self._write_model(folder / "record.json", sealed)

    def read_record(self, run_id: str) -> Record | None:
        """Read a run's record, or None before there is one.

        Raises: StudyError if it is there and can't be trusted.
        """
        path = self.run_dir(run_id) / "record.json"
        if not path.is_file():
            return None
        record = _read_model(path, Record)
        if record.run_id != run_id:
            raise StudyError(
                f"{_short(path)}: names run {record.run_id!r}, expected {run_id!r}; it was moved or "
                "changed"
            )
        if content_hash(record.model_copy(update={"sha256": None})) != record.sha256:
            raise StudyError(
                f"{_short(path)}: its content does not match its checksum; it was changed after it "
                "was written"
            )
        return record

    def verify(self, run_id: str) -> list[str]:
        """List the raw files of a finished run that are missing or differ from when it was sealed.

        Raises: StudyError if the record itself can't be trusted.
        """
        record = self.read_record(run_id)
        if record is None:
            return []
        now = _hashes(self.run_dir(run_id) / f"attempt-{record.attempt}")
        return [
            f"{run_id}/attempt-{record.attempt}/{name}: "
            + ("is missing" if name not in now else "was changed after it was sealed")
            for name, sha256 in record.files.items()
            if now.get(name) != sha256
        ]

    def set_aside(self, run_id: str) -> str:
        """Rename a record that can't be read, and return its new name."""
        path = self.run_dir(run_id) / "record.json"
        number = 1
        while (aside := path.with_name(f"record.json.corrupt-{number}")).exists():
            number += 1
        with _disk_errors(path):
            path.rename(aside)
        return aside.name

    def write_report(self, files: Mapping[str, bytes]) -> Path:
        """Write the files of a report, by relative name, and return its folder."""
        folder = self.root / "report"
        for name, content in files.items():
            with _disk_errors(folder):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._write_bytes(folder / name, content)
        return folder

    def _write_model(self, path: Path, model: Frozen) -> None:
        self._write_bytes(path, model.model_dump_json(indent=1).encode() + b"\n")

    def _write_bytes(self, path: Path, content: bytes) -> None:
        with _disk_errors(path):
            write_atomically(path, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"can't write {_short(path)}: {error.strerror or error}; make room or name another "
            "folder with --output-dir, then run the same command again: what is finished is kept"
        ) from error


def _hashes(attempt: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(attempt.iterdir())
        if path.name in _RAW
    }


def _short(path: Path) -> str:
    """A path's last parts: enough to find it in a study, and no more of the machine than that."""
    return "/".join(path.parts[-3:])


def _read_model(path: Path, kind: type[M]) -> M:
    try:
        text = path.read_text(encoding="utf-8")
        model = kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the file"
        raise StudyError(
            f"{_short(path)}: can't be read as format {FORMAT} ({at}: {first['msg']}); expected a "
            "file that harness wrote: set it aside or restore it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{_short(path)}: can't be read: {error}") from None
    if getattr(model, "format", FORMAT) > FORMAT:
        raise StudyError(
            f"{_short(path)}: has format {model.format}, this harness reads up to {FORMAT}; upgrade it"  # type: ignore[attr-defined]
        )
    return model


def _read_lines(path: Path, kind: type[M]) -> Iterator[M]:
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines):
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            if number == len(lines) - 1:  # the worker was ended in the middle of this line
                return
            raise StudyError(
                f"{_short(path)}: line {number + 1} can't be read; expected a {kind.__name__}"
            ) from None
