"""Reads the rows of a repository from its local folder, as `snapshot_download` leaves it.

Why a module: a folder may be a stranger's (`--map`), so everything about it is checked before a row
is read. Only parquet and JSON Lines files that lie in the folder are read: no code, no address of
the network that its README may name. What is wrong is said with what was found; nothing is fetched.

`datasets` turns a folder's files into Arrow files that are mapped, not loaded; they are kept in the
harness's own cache, so the Hub's cache may be read-only. A fixture is small and stays in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset, load_dataset_builder
from datasets.config import REPOYAML_FILENAME
from datasets.exceptions import DatasetsError
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub import DatasetCard
from yaml import YAMLError, safe_load

from harness.caches import cache_dir
from harness.catalog import DATASETS
from harness.errors import ConfigError, MachineError, did_you_mean
from harness.worker.data import Request

KINDS = {"parquet": Parquet, "json": Json}
# What datasets, pyarrow and the file system raise for a folder that can't be read. datasets lets
# StopIteration out for a file without a row.
UNREADABLE = (DatasetsError, pa.ArrowException, OSError, ValueError, RuntimeError, StopIteration)


def read_splits(name: str, splits: Sequence[str], request: Request) -> list[Dataset]:
    """Return the raw rows of a repository's splits, with the columns that the catalog names.

    Raises: MachineError if the repository is not on this machine; ConfigError listing what is wrong
    with its folder: another layout, a missing or empty split, missing columns.
    """
    folder = local_folder(name, request)
    found: list[Dataset] = []
    problems: list[str] = []
    with _cache(name, request) as cache:
        kind, files = _files(name, folder, cache)
        for split in splits:
            try:
                found.append(_read(name, split, kind, files, cache, request.is_fixture))
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return found


def _read(
    name: str, split: str, kind: str, files: dict[str, list[str]], cache: str, is_small: bool
) -> Dataset:
    if split not in files:
        raise ConfigError(
            f"dataset {name!r} has no split {split!r}{did_you_mean(split, files)}; "
            f"found {', '.join(sorted(files)) or 'none'}"
        )
    columns = DATASETS[name].columns
    if kind == "parquet":
        _check_parquet(name, split, files[split], columns)
    elif not any(Path(file).stat().st_size for file in files[split]):
        raise ConfigError(_empty(name, split))
    # JSON Lines know no choice of columns; parquet's others are not even read.
    chosen = {"columns": list(columns)} if kind == "parquet" else {}
    with _readable(name, split):
        try:
            rows = load_dataset(
                kind,
                data_files={split: files[split]},
                split=split,
                cache_dir=cache,
                keep_in_memory=is_small,
                **chosen,
            )
        except DatasetsError as error:
            if kind != "json" or "surrogate" not in str(error.__cause__):
                raise
            rows = _mend_surrogates(files[split])
    _check_columns(name, split, rows.column_names, columns)
    if not len(rows):
        raise ConfigError(_empty(name, split))
    return rows.select_columns(list(columns))


def local_folder(name: str, request: Request) -> Path:
    """Return the folder that holds a repository on this machine.

    Raises: MachineError if there is none.
    """
    if request.folder is None:
        raise MachineError(
            f"dataset {name!r} is not on this machine: run `harness fetch` for this matrix where "
            f"there is a network, or name a copy with --map {name}=FOLDER"
        )
    folder = Path(request.folder)
    if not folder.is_dir():
        raise MachineError(
            f"dataset {name!r}: its folder {folder.name!r} does not exist; run `harness fetch` "
            f"again, or name another with --map {name}=FOLDER"
        )
    return folder


def _files(name: str, folder: Path, cache: str) -> tuple[str, dict[str, list[str]]]:
    """Find out what kind of files a folder holds, and which belong to which split."""
    _refuse_addresses(name, folder)
    config = DATASETS[name].config
    where: dict[str, Any] = {"name": config}
    if (
        config is not None
        and config not in _named_configs(name, folder)
        and (folder / config).is_dir()
    ):
        where = {"data_dir": config}  # a copy without the README that names its configurations
    elif config is not None and config not in _named_configs(name, folder):
        where = {}  # a flat copy of that configuration alone
    try:
        builder = load_dataset_builder(str(folder), cache_dir=cache, **where)
    except UNREADABLE as error:
        why = _line(error).replace(
            str(folder), "the folder"
        )  # no place of this machine in a record
        raise ConfigError(f"dataset {name!r}: its folder can't be read: {why}") from error
    kind = next((k for k, builds in KINDS.items() if isinstance(builder, builds)), None)
    if kind is None:
        raise ConfigError(
            f"dataset {name!r}: its folder holds files that {type(builder).__bases__[0].__name__} "
            "reads; expected parquet or JSON Lines"
        )
    files = builder.config.data_files or {}
    return kind, {str(split): [str(file) for file in listed] for split, listed in files.items()}


def _named_configs(name: str, folder: Path) -> set[str]:
    return {str(config.get("config_name", "default")) for config in _configs(name, folder)}


def _configs(name: str, folder: Path) -> list[dict[str, Any]]:
    """The configurations that a folder's card declares, and those of the file that overrides it."""
    card, override = folder / "README.md", folder / REPOYAML_FILENAME
    declared: list[object] = []
    try:
        if card.is_file():
            loaded = DatasetCard.load(card, ignore_metadata_errors=True)
            declared.append(loaded.data.get("configs"))
        if override.is_file():
            declared.append((safe_load(override.read_text(encoding="utf-8")) or {}).get("configs"))
    except (YAMLError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"dataset {name!r}: the head of its README is no YAML of a dataset card "
            f"({_line(error)}); fetch it again"
        ) from error
    listed = chain.from_iterable(configs for configs in declared if isinstance(configs, list))
    return [config for config in listed if isinstance(config, dict)]


def _refuse_addresses(name: str, folder: Path) -> None:
    """Stop if the folder's README names files outside of the folder."""
    named = [
        text
        for config in _configs(name, folder)
        for text in _texts([config.get("data_files"), config.get("data_dir")])
    ]
    outside = [t for t in named if "://" in t or t.startswith(("/", "~")) or ".." in t.split("/")]
    if outside:
        raise ConfigError(
            f"dataset {name!r}: its README names files outside of its folder ({outside[0]!r}); "
            "expected files of the folder alone: don't use this copy"
        )


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return list(chain.from_iterable(map(_texts, value))) if isinstance(value, list) else []


def _check_parquet(name: str, split: str, files: Sequence[str], columns: Sequence[str]) -> None:
    """Look at the files' footers, before gigabytes are converted."""
    rows, found = 0, set(columns)
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                rows += opened.metadata.num_rows
                listed = opened.schema_arrow.names
        except UNREADABLE as error:
            raise ConfigError(
                f"dataset {name!r}: {Path(file).name} is no whole parquet file ({_line(error)}); "
                "fetch it again"
            ) from error
        if not found <= set(listed):
            _check_columns(name, split, listed, columns)
    if rows == 0:
        raise ConfigError(_empty(name, split))


def _check_columns(name: str, split: str, found: Sequence[str], expected: Sequence[str]) -> None:
    missing = [column for column in expected if column not in found]
    if missing:
        raise ConfigError(
            *(
                f"dataset {name!r}, split {split!r}: column {column!r} is missing"
                f"{did_you_mean(column, found)}; found {', '.join(found) or 'none'}; "
                f"expected {', '.join(expected)}"
                for column in missing
            )
        )


@contextmanager
def _readable(name: str, split: str) -> Iterator[None]:
    """Say which split of which dataset can't be read, and why."""
    try:
        yield
    except UNREADABLE as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and not isinstance(cause, pa.ArrowException):
            raise MachineError(
                f"dataset {name!r} can't be converted into the cache: {_line(cause)}; make room, "
                "or name another cache with HARNESS_CACHE"
            ) from error
        raise ConfigError(
            f"dataset {name!r}, split {split!r}: its files can't be read: {_line(cause)}"
        ) from error


@contextmanager
def _cache(name: str, request: Request) -> Iterator[str]:
    """Give the folder in which datasets keeps its Arrow files: none that outlives a fixture."""
    if request.is_fixture:
        with tempfile.TemporaryDirectory(prefix="harness-rows-") as folder:
            yield folder
        return
    folder = str(cache_dir() / "datasets")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"dataset {name!r} needs a cache that can be written, found {error.strerror}; name one "
            "with HARNESS_CACHE"
        ) from error
    yield folder


def _mend_surrogates(files: Sequence[str]) -> Dataset:
    """Read JSON Lines that hold halves of surrogate pairs, which Arrow refuses, as U+FFFD."""
    rows = []
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            text = json.dumps(json.loads(line), ensure_ascii=False)
            rows.append(
                json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            )
    return Dataset.from_list(rows)


def _empty(name: str, split: str) -> str:
    return f"dataset {name!r}: split {split!r} is empty; expected rows: fetch it again"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
