"""Folders that take a repository's place: `--map meta-llama/Llama-3.1-8B=/models/llama`.

A folder is looked into before anything trains: that it can be what it is taken for, and, when a
study goes on, that it is still what the study began with. What this leaves out: what is inside its
files, which the worker's preflight reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from harness.errors import ConfigError, did_you_mean
from harness.sources import Kind, Need, Repository, Sources

# What is read of a repository, by name; anything else is left where it is. Weights are safetensors
# alone: the other formats can run code when they are opened.
FILES: Mapping[Kind, tuple[str, ...]] = {
    "model": (
        "*.safetensors",
        "*.json",
        "*.jinja",
        "*.txt",
        "*.md",
        "tokenizer.model",
        "LICENSE*",
    ),
    "dataset": ("*.parquet", "*.jsonl", "*.json", "README.md"),
}
# Copies of the weights in other layouts (`original/`, consolidated) would be fetched for nothing.
LEFT_OUT: Mapping[Kind, tuple[str, ...]] = {"model": ("*/*", "consolidated*"), "dataset": (".*",)}
ROWS = ("*.parquet", "*.jsonl", "*.json")
INDEX = "model.safetensors.index.json"
_EDGE_BYTES = 64 * 1024  # of each file's beginning and end: headers, and the last weights or rows


def check_maps(
    maps: Mapping[str, str], needed: Sequence[Need], known: Sources | None
) -> dict[str, Repository]:
    """Return the entries of the mapped repositories, those included that the study has mapped.

    Raises: ConfigError listing every folder that is missing or can't be what it is taken for, every
    repository that no run reads, and every difference from how the study began.
    """
    known = known or Sources()
    problems = unread_maps(maps, needed)
    mapped = {}
    for need in needed:
        before = known.find(need.repository)
        given = maps.get(need.repository) or (before.folder if before else None)
        if given is None:
            continue
        folder = Path(given).expanduser().absolute()
        found = _unlike(need, folder, before) or missing_files(need.kind, folder)
        if found:
            problems.append(f"--map {need.repository}={given}: {found}")
            continue
        mapped[need.repository] = _entry(need, folder)
        if before and mapped[need.repository].fingerprint != before.fingerprint:
            problems.append(
                f"--map {need.repository}={given}: its files are not those that the study began "
                "with; put them back, or begin another study with --output-dir"
            )
    if problems:
        raise ConfigError(*problems)
    return mapped


def unread_maps(maps: Mapping[str, str], needed: Sequence[Need]) -> list[str]:
    """Say of each map whose repository no run reads that none does."""
    names = [n.repository for n in needed]
    return [
        f"--map {name}={folder}: no selected run reads {name!r}{did_you_mean(name, names)}; "
        + (f"they read {', '.join(names)}" if names else "they read nothing from the Hub")
        for name, folder in maps.items()
        if name not in names
    ]


def missing_files(kind: Kind, folder: Path) -> str | None:
    """Say in what a folder falls short of a model or a dataset; None if in nothing."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        return f"the folder {what}; expected the folder of a downloaded {kind}"
    if kind == "dataset":
        if any(_rows(folder)):
            return None
        return "the folder holds no rows; expected .parquet, .jsonl or .json files"
    if not (folder / "config.json").is_file():
        return "the folder holds no config.json; expected a model's folder"
    if not any(folder.glob("*.safetensors")):
        return "the folder holds no .safetensors file; weights in other formats are never opened"
    shards = [name for name in _shards(folder) if not (folder / name).is_file()]
    if shards:
        return f"{len(shards)} of the files named in {INDEX} are missing, e.g. {shards[0]}"
    return None


def is_read(kind: Kind, name: str) -> bool:
    """Whether a repository's file is one that is fetched; as huggingface_hub reads the patterns."""
    is_left_out = any(fnmatch(name, pattern) for pattern in LEFT_OUT[kind])
    return not is_left_out and any(fnmatch(name, pattern) for pattern in FILES[kind])


def custom_code(folder: Path) -> bool:
    """Whether a model's configuration names Python code of its repository."""
    return "auto_map" in _json(folder / "config.json")


def fingerprint(folder: Path, kind: Kind) -> str:
    """Hash what tells a folder from another without reading it all: names, sizes, ends of files.

    Not the times: copying a folder must not end a study.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in _visible(folder) if p.is_file()):
        if not is_read(kind, path.relative_to(folder).as_posix()):
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def _entry(need: Need, folder: Path) -> Repository:
    return Repository(
        repository=need.repository,
        kind=need.kind,
        revision=need.revision,
        folder=str(folder),
        fingerprint=fingerprint(folder, need.kind),
    )


def _unlike(need: Need, folder: Path, before: Repository | None) -> str | None:
    """Say how a map differs from what the study began with; None if it does not."""
    if before is None or before.folder == str(folder):
        return None
    began = f"folder {before.folder}" if before.folder else f"commit {before.commit}"
    return (
        f"this study began with {need.repository} at {began}; give the same again, or begin another "
        "study with --output-dir"
    )


def _rows(folder: Path) -> Iterator[Path]:
    return (p for p in _visible(folder) if any(fnmatch(p.name, f) for f in ROWS))


def _visible(folder: Path) -> Iterator[Path]:
    """A folder's files, those of hidden folders (.git, .cache) left out."""
    files = folder.rglob("*")
    return (f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts))


def _shards(folder: Path) -> set[str]:
    names = _json(folder / INDEX).get("weight_map", {})
    return {str(name) for name in names.values()} if isinstance(names, dict) else set()


def _json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
