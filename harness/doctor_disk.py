"""Folders that a study writes: can this user write there, and is there room?"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.doctor_check import Check, Word, gigabytes, word_if
from harness.doctor_needs import Needs, download_text

# SmolLM2's source and the folder it is turned into, measured: 93 MB and 517 MB.
SMOLLM2_BYTES = 610_000_000
# Temporary files: locks and logs on the CPU; what Triton, Inductor and vLLM compile on a GPU. Less is a
# note, less than a tenth a problem.
SCRATCH_BYTES = 50_000_000
SCRATCH_GPU_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Room:
    """A folder as this user finds it, or the nearest one above it that is there."""

    folder: Path
    there: Path
    owner: tuple[int, int] | None  # uid and gid of `there`
    error: int | None  # errno of writing a file there
    free_bytes: int
    total_bytes: int
    device: int | None  # of its file system
    is_noexec: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder and what the matrix wants of it."""

    name: str
    room: Room
    needed_bytes: int
    wants: str  # that, in a sentence
    is_needed: bool  # whether the matrix writes there at all
    otherwise: str  # another folder: how to name it


def look(folder: Path) -> Room:
    """Look at a folder by writing a file without a name into it, or into the one above it."""
    folder = folder.absolute()
    there = next(p for p in (folder, *folder.parents) if _is_there(p))
    try:
        status, disk = there.stat(), os.statvfs(there)
    except OSError as error:
        return Room(folder, there, None, error.errno or errno.EIO, 0, 0, None)
    return Room(
        folder,
        there,
        owner=(status.st_uid, status.st_gid),
        error=_error_of_writing(there),
        free_bytes=disk.f_bavail * disk.f_frsize,
        total_bytes=disk.f_blocks * disk.f_frsize,
        device=status.st_dev,
        is_noexec=bool(disk.f_flag & os.ST_NOEXEC),
    )


def _is_there(path: Path) -> bool:
    """Whether a path exists, or can't be looked at, which no folder above it would mend."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _error_of_writing(folder: Path) -> int | None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.errno or errno.EIO
    return None


def results_folder(needs: Needs, room: Room) -> Folder:
    """The folder that the study goes to."""
    wants = f"a study takes up to {gigabytes(needs.results_bytes)}"
    otherwise = "name a folder elsewhere with --output-dir"
    return Folder("results", room, needs.results_bytes, wants, True, otherwise)


def hub_folder(needs: Needs, room: Room) -> Folder:
    """The Hub's cache, where downloads go."""
    fetched = [r for r in needs.from_hub if r.name != "smollm2"]
    size = sum(r.download_bytes or 0 for r in fetched)
    unsized = sum(r.download_bytes is None for r in fetched)
    wants = f"{download_text(size, unsized)} to download"
    return Folder(
        "Hub cache", room, size, wants, bool(fetched), "set HF_HOME to a folder elsewhere"
    )


def harness_folder(needs: Needs, room: Room) -> Folder:
    """The harness's own cache: SmolLM2, and rows of the Hub's datasets as they are read."""
    builds = any(r.name == "smollm2" for r in needs.from_hub)
    unpacks = any(r.kind == "dataset" and "/" in r.name for r in needs.repositories)
    wants = "nothing to add"
    if unpacks:
        wants = "datasets are unpacked there, at sizes nobody knows beforehand"
    if builds:
        wants = f"SmolLM2 takes {gigabytes(SMOLLM2_BYTES)}"
    size = SMOLLM2_BYTES if builds else 0
    otherwise = "set HARNESS_CACHE to a folder elsewhere"
    return Folder("harness cache", room, size, wants, builds or unpacks, otherwise)


def check_folder(folder: Folder, uid: int, *, is_container: bool) -> Check:
    """Say whether this user can write in a folder, and whether it has the room that is wanted."""
    room = folder.room
    value = {
        "folder": str(room.folder),
        "free_bytes": room.free_bytes,
        "needed_bytes": folder.needed_bytes,
        "is_writable": room.error is None,
        "owner_uid": room.owner[0] if room.owner else None,
    }
    if room.error is not None and room.error != errno.ENOSPC:
        text, advice = _refused(folder, uid, is_container)
        return Check("disk", folder.name, word_if(folder.is_needed), text, advice, value)
    text = f"{room.folder} has {gigabytes(room.free_bytes)} free; {folder.wants}"
    if room.free_bytes < folder.needed_bytes or room.error == errno.ENOSPC:
        word = word_if(folder.is_needed)
        return Check("disk", folder.name, word, text, f"make room, or {folder.otherwise}", value)
    return Check("disk", folder.name, "ok", text, value=value)


def _refused(folder: Folder, uid: int, is_container: bool) -> tuple[str, str]:
    room = folder.room
    if room.error == errno.ENOTDIR:
        return f"{room.there} is a file; expected a folder", folder.otherwise
    if room.error == errno.EROFS:
        mount = "mount a folder or a volume there, as docker-compose.yml does, or "
        return (
            f"{room.there} is on a read-only file system",
            f"{mount if is_container else ''}{folder.otherwise}",
        )
    why = os.strerror(room.error or 0)
    if room.owner is None or room.owner[0] == uid:
        return f"{room.there} can't be written: {why}", folder.otherwise
    owner = f"{room.owner[0]}:{room.owner[1]}"
    what = "this container" if is_container else "this process"
    text = f"{room.there} is owned by uid {room.owner[0]}, and {what} runs as {uid}: {why}"
    if is_container:
        return text, f"put HARNESS_USER={owner} into .env, or chown the folder to {uid} on the host"
    return text, f"chown it to {uid}, or {folder.otherwise}"


def check_together(folders: Sequence[Folder]) -> list[Check]:
    """Find folders that share a disk and have room each, but not together."""
    checks = []
    for device in dict.fromkeys(f.room.device for f in folders if f.room.device is not None):
        sharing = [f for f in folders if f.room.device == device and f.needed_bytes]
        sizes = [f.needed_bytes for f in sharing]
        free = min((f.room.free_bytes for f in sharing), default=0)
        if sharing and max(sizes) <= free < sum(sizes):
            text = (
                f"{' and '.join(f.name for f in sharing)} share a disk with {gigabytes(free)} free, and "
                f"together want {gigabytes(sum(sizes))}"
            )
            value = {"free_bytes": free, "needed_bytes": sum(sizes)}
            advice = f"make room, or {sharing[0].otherwise}"
            checks.append(Check("disk", "disk", "problem", text, advice, value))
    return checks


def check_scratch(needs: Needs, room: Room, environ: Mapping[str, str]) -> Check:
    """Look at the folder for temporary files, in a container often a small tmpfs."""
    named = f"TMPDIR={room.folder}" if environ.get("TMPDIR") else str(room.folder)
    value: dict[str, Any] = {"folder": str(room.folder), "free_bytes": room.free_bytes}
    elsewhere = "set TMPDIR to a folder that can be written"

    def found(word: Word, text: str, advice: str = "") -> Check:
        return Check("disk", "temporary files", word, text, advice, value)

    if room.there != room.folder:
        return found("problem", f"{named} is not there", elsewhere)
    if room.error is not None and room.error != errno.ENOSPC:
        return found("problem", f"{named} can't be written: {os.strerror(room.error)}", elsewhere)
    text = f"{named} has {gigabytes(room.free_bytes)} of {gigabytes(room.total_bytes)} free"
    wanted = SCRATCH_GPU_BYTES if needs.uses_gpu else SCRATCH_BYTES
    if room.error is not None or room.free_bytes < wanted:
        is_full = room.error is not None or room.free_bytes < wanted / 10
        text += f"; a study wants {gigabytes(wanted)} there"
        return found(word_if(is_full), text, "empty it, give it a larger tmpfs, or set TMPDIR")
    if room.is_noexec and needs.uses_gpu:
        text += "; it is mounted noexec, so what Triton and Inductor compile there can't be loaded"
        return found("note", text, "mount it with `exec`, or point TRITON_CACHE_DIR elsewhere")
    return found("ok", text)
