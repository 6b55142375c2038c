from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigError, MachineError, StudyError
from harness.files import write_atomically
from harness.matrix import expand, parse_matrix
from harness.record import Attempt, Exit, Record, Status, StepRow
from harness.store import Store
from tests.conftest import MATRIX

SPEC = expand(parse_matrix(MATRIX, "m"))[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "study")
    store.prepare()
    return store


def attempt(number: int = 1, status: Status = Status.OK) -> Attempt:
    return Attempt(
        number=number,
        status=status,
        launcher="local",
        started_utc="2026-01-01T00:00:00Z",
        ended_utc="2026-01-01T00:00:01Z",
        wall_s=1.0,
        exit=Exit(code=0),
    )


def sealed(store: Store) -> Path:
    """A finished run; returns its record's path."""
    store.write_spec(SPEC)
    folder = store.new_attempt(SPEC.run_id)
    row = StepRow(step=1, begin_ns=0, end_ns=1, tokens=1, samples=1, logs={"loss": 1.0})
    (folder / "steps.jsonl").write_text(row.model_dump_json() + "\n")
    store.seal(
        Record(
            run_id=SPEC.run_id,
            harness_version="0",
            status=Status.OK,
            attempt=1,
            attempts=(attempt(),),
        )
    )
    return store.run_dir(SPEC.run_id) / "record.json"


def test_what_is_sealed_is_read_back(store):
    sealed(store)
    record = store.read_record(SPEC.run_id)
    assert record is not None
    assert record.is_done
    assert store.read_spec(SPEC.run_id) == SPEC
    assert store.verify(SPEC.run_id) == []


def test_attempts_are_numbered_and_kept(store):
    names = [store.new_attempt(SPEC.run_id).name for _ in range(11)]
    assert names[-1] == "attempt-11"
    assert [p.name for p in store.attempts(SPEC.run_id)] == names


def test_every_flipped_byte_of_a_record_is_noticed(store):
    path = sealed(store)
    good = path.read_bytes()
    for position in range(0, len(good), 3):
        flipped = bytearray(good)
        flipped[position] ^= 0x01
        path.write_bytes(bytes(flipped))
        if json_or_none(bytes(flipped)) == json.loads(good):
            continue  # the flip hit a space between values
        with pytest.raises(StudyError):
            store.read_record(SPEC.run_id)


def json_or_none(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_every_truncation_of_a_record_is_noticed(store):
    path = sealed(store)
    good = path.read_bytes()
    for length in range(0, len(good) - 2, 7):
        path.write_bytes(good[:length])
        with pytest.raises(StudyError):
            store.read_record(SPEC.run_id)


def test_a_changed_raw_file_is_named(store):
    path = sealed(store)
    steps = path.parent / "attempt-1" / "steps.jsonl"
    steps.write_text(steps.read_text().replace("1.0", "2.0"))
    assert store.verify(SPEC.run_id) == [
        f"{SPEC.run_id}/attempt-1/steps.jsonl: was changed after it was sealed"
    ]
    steps.unlink()
    assert "is missing" in store.verify(SPEC.run_id)[0]


def test_a_record_of_a_newer_format_is_refused(store):
    path = sealed(store)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(StudyError, match="format 99"):
        store.read_record(SPEC.run_id)


def test_a_record_set_aside_keeps_its_bytes(store):
    path = sealed(store)
    path.write_text("torn")
    assert store.set_aside(path) == "record.json.corrupt-1"
    assert store.read_record(SPEC.run_id) is None
    assert path.with_name("record.json.corrupt-1").read_text() == "torn"


def test_a_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(store):
    sealed(store)
    folder = store.attempts(SPEC.run_id)[0]
    line = (folder / "steps.jsonl").read_text()
    (folder / "steps.jsonl").write_text(line + line[:20])
    assert len(store.read_steps(folder)) == 1
    (folder / "steps.jsonl").write_text(line[:20] + "\n" + line)
    with pytest.raises(StudyError, match="line 1"):
        store.read_steps(folder)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        Store(tmp_path / "file").prepare()
    with pytest.raises(MachineError):
        Store(tmp_path / "file" / "below").prepare()


def test_a_folder_without_a_study_is_refused(store):
    with pytest.raises(ConfigError, match="holds no study"):
        store.read_study()


def test_a_study_is_locked_by_one_process(store):
    code = (
        "import sys; from pathlib import Path; from harness.store import Store;"
        "from harness.errors import StudyError\n"
        "try:\n"
        f"    with Store(Path({str(store.root)!r})).lock(): sys.exit(0)\n"
        "except StudyError as error: sys.exit(error.exit_code)"
    )
    with store.lock():
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 8
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    """A write that fails half-way: the size limit of a file stands in for the disk."""
    target = tmp_path / "f"
    target.write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from harness.files import write_atomically;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    write_atomically(Path({str(target)!r}), b'x' * 5000)\n"
        "except OSError: sys.exit(42)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 42
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_write_is_whole(tmp_path):
    write_atomically(tmp_path / "f", b"x" * 100_000)
    assert (tmp_path / "f").read_bytes() == b"x" * 100_000
