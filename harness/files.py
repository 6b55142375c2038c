"""Files that are whole or absent, and what a full disk says.

Used by every process that writes into a study: supervisor, worker and, with its own copy, sampler.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MachineError

# A trained adapter, in PEFT's own names, where the matrix asks to keep it.
ADAPTER = "adapter"
ADAPTER_FILES = (f"{ADAPTER}/adapter_config.json", f"{ADAPTER}/adapter_model.safetensors")
# A worker's sign of life within a phase that writes nothing: an empty file, only its time counts.
HEARTBEAT = "heartbeat"
# An attempt's raw files, hashed when it is sealed.
RAW_FILES = frozenset(
    {
        "launch.json",
        "steps.jsonl",
        "phases.jsonl",
        "memory.parquet",
        "result.json",
        "sampler.json",
        "resolved_config.json",
        "environment.json",
        "unusable_rows.txt",
        "probe.json",
        *ADAPTER_FILES,
    }
)


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
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a MachineError that says what to do."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"can't write {short(path)}: {error.strerror or error}; {_remedy(path, error)} name "
            "another folder with --output-dir, then run the same command again: what is finished is "
            "kept"
        ) from error


def _remedy(path: Path, error: OSError) -> str:
    """What to do about it, to be followed by 'name another folder'."""
    if error.errno == errno.EROFS:
        return "mount a folder there that can be written, or"
    if not isinstance(error, PermissionError):
        return "make room or"
    me = f"{os.geteuid()}:{os.getegid()}"
    for folder in (path, *path.parents):
        try:
            found = folder.stat()
        except OSError:
            continue
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            owner = f"{found.st_uid}:{found.st_gid}"
            return (
                f"{short(folder)} belongs to user {owner} and this is user {me}: give it to this user "
                f"(chown -R {me}), or run as its owner (in a container `--user {owner}`, with compose "
                f"HARNESS_USER={owner}), or"
            )
        break
    return f"give user {me} the right to write there, or"


def hash_files(attempt: Path) -> dict[str, str]:
    """Hash an attempt's raw files: name → SHA-256 in hex. Never holds a whole file in memory."""
    return {
        name: hash_file(attempt / name) for name in sorted(RAW_FILES) if (attempt / name).is_file()
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short(path: Path) -> str:
    """A path's last parts: enough to find it in a study, and no more of the machine than that."""
    return "/".join(path.parts[-3:])
