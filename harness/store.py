"""The only reader and writer of a study folder: atomic, resumable, locked.

A file that matters is written to a temporary name, synced and renamed, so it is whole or absent. The
lock is the kernel's (released when its holder dies, however it dies). `record.json` is written last:
a run is done when it is valid. An attempt is never deleted or reused.

    <study>/study.json, sources.json (`sources`)
    <study>/runs/<run_id>/spec.json, record.json, attempt-1/ …
    <study>/report/, verdict.json, flops.json (`counted`), replay.json (`replays`),
        forecast.json (`forecasts`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from harness.errors import ConfigError, NewerFormatError, StudyError
from harness.files import disk_errors, hash_files, short, write_atomically
from harness.frozen import Frozen, content_hash
from harness.record import Attempt, Record, Status, StepRow, Study
from harness.samples import FORMAT, PhaseRow, SamplerSummary
from harness.spec import RunSpec

VERDICTS = "verdict.json"
M = TypeVar("M", bound=Frozen)
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
        with disk_errors(self.root):
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.touch()
            probe.unlink()

    def sweep(self) -> None:
        """Remove temporary files that a killed process left half-written."""
        for path in self.root.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for writing.

        Raises: StudyError if another process holds it.
        """
        lock = FileLock(self.root / ".lock")
        with disk_errors(self.root):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StudyError(
                    f"study {self.root.name!r} is in use by another harness; wait for it, or name "
                    "another folder"
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
        return read_model(path, Study)

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.root / "runs" / run_id

    def write_spec(self, spec: RunSpec) -> None:
        """Write a run's spec.json if it is not there."""
        path = self.run_dir(spec.run_id) / "spec.json"
        if not path.is_file():
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._write_model(path, spec)

    def read_spec(self, run_id: str) -> RunSpec | None:
        """Read a run's spec, or None before its first attempt."""
        path = self.run_dir(run_id) / "spec.json"
        if not path.is_file():
            return None
        spec = read_model(path, RunSpec)
        if spec.run_id != run_id:
            raise StudyError(f"{short(path)}: is not the spec of this run; it was changed")
        return spec

    def attempts(self, run_id: str) -> list[Path]:
        """The folders of a run's attempts, oldest first."""
        folder = self.run_dir(run_id)
        if not folder.is_dir():
            return []
        found = sorted((int(m[1]), p) for p in folder.iterdir() if (m := _ATTEMPT.match(p.name)))
        return [path for _, path in found]

    def new_attempt(self, run_id: str) -> Path:
        """Make the folder of a run's next attempt."""
        number = len(self.attempts(run_id)) + 1
        path = self.run_dir(run_id) / f"attempt-{number}"
        with disk_errors(path):
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
        return read_model(path, Attempt) if path.is_file() else None

    def read_sampler(self, attempt: Path) -> SamplerSummary | None:
        """Read the sampler's summary, or None if it left none that can be read."""
        path = attempt / "sampler.json"
        try:
            return read_model(path, SamplerSummary) if path.is_file() else None
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
        files = hash_files(folder / f"attempt-{record.attempt}")
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
        record = read_model(path, Record)
        if record.run_id != run_id:
            raise StudyError(
                f"{short(path)}: names run {record.run_id!r}, expected {run_id!r}; it was moved or "
                "changed"
            )
        if content_hash(record.model_copy(update={"sha256": None})) != record.sha256:
            raise StudyError(
                f"{short(path)}: its content does not match its checksum; it was changed after it "
                "was written"
            )
        return record

    def verify(self, run_id: str) -> list[str]:
        """List the raw files of a finished run that are missing or differ from when it was sealed.

        Raises: StudyError if the record itself can't be trusted.
        """
        record = self.read_record(run_id)
        if record is None:
            ended = [a for a in map(self.read_attempt, self.attempts(run_id)) if a is not None]
            is_lost = any(a.status is not Status.CANCELLED for a in ended)
            return [f"{run_id}: record.json is missing although the run ended"] if is_lost else []
        now = hash_files(self.run_dir(run_id) / f"attempt-{record.attempt}")
        return [
            f"{run_id}/attempt-{record.attempt}/{name}: "
            + ("is missing" if name not in now else "was changed after it was sealed")
            for name, sha256 in record.files.items()
            if now.get(name) != sha256
        ]

    def set_aside(self, path: Path) -> str:
        """Rename a file that can't be read, and return its new name."""
        number = 1
        while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
            number += 1
        with disk_errors(path):
            path.rename(aside)
        return aside.name

    def has_runs(self) -> bool:
        """Whether any run has left something here."""
        return any((self.root / "runs").glob("*"))

    @property
    def report_dir(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    def write_report(self, files: Mapping[str, bytes]) -> None:
        """Write the files of a report, by relative name."""
        folder = self.report_dir
        for name, content in files.items():
            with disk_errors(folder):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._write_bytes(folder / name, content)

    def _write_model(self, path: Path, model: Frozen) -> None:
        self._write_bytes(path, model.model_dump_json(indent=1).encode() + b"\n")

    def _write_bytes(self, path: Path, content: bytes) -> None:
        with disk_errors(path):
            write_atomically(path, content)


def read_model(path: Path, kind: type[M]) -> M:
    """Read a file of a study. Raises: StudyError if it is not one that this harness can read."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_newer(path, text)
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the file"
        raise StudyError(
            f"{short(path)}: can't be read as format {FORMAT} ({at}: {first['msg']}); expected a "
            "file that harness wrote: set it aside or restore it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{short(path)}: can't be read: {error}") from None


def _refuse_newer(path: Path, text: str) -> None:
    try:
        data = json.loads(text)
    except ValueError:
        return  # validation says it better
    number = data.get("format") if isinstance(data, dict) else None
    if isinstance(number, int) and number > FORMAT:
        raise NewerFormatError(
            f"{short(path)}: has format {number}, this harness reads up to {FORMAT}; upgrade it"
        )


def _read_lines(path: Path, kind: type[M]) -> Iterator[M]:
    if not path.is_file():
        return
    for number, line in enumerate(lines := path.read_bytes().splitlines()):
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            if number == len(lines) - 1:  # the worker was ended in the middle of this line
                return
            raise StudyError(
                f"{short(path)}: line {number + 1} can't be read; expected a {kind.__name__}"
            ) from None
