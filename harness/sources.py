"""Which repositories a study reads, at which commit: `sources.json`, and what a matrix needs.

A branch moves; a study must not. The commit of every repository is fixed before the first run and
kept, so that the same command tomorrow trains on the same bytes. A folder that takes a repository's
place (`--map`) has no commit; it has a fingerprint instead. What this leaves out: asking the Hub
(`hub`) and looking into folders (`mapping`).

Format history of sources.json:
  1  first format
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.catalog import DATASETS
from harness.errors import ConfigError
from harness.frozen import Frozen
from harness.record import Source
from harness.spec import RunSpec
from harness.store import Store, read_model

Kind = Literal["model", "dataset"]
FILE = "sources.json"
MAIN = "main"  # the Hub's default branch
# Models that no repository is needed for; a toy is the architecture alone, with random weights.
_OWN_MODELS = ("embedded:", "toy:")


class Repository(Frozen):
    """A repository of a study."""

    repository: str
    kind: Kind
    revision: str = Field(description="as it was asked for: a branch, a tag or a commit")
    commit: str | None = Field(None, description="what the revision was when the study began")
    folder: str | None = Field(None, description="the folder that --map put in its place")
    fingerprint: str | None = Field(None, description="of that folder's content")

    @property
    def source(self) -> Source:
        """How a run's result names it."""
        return Source(
            repository=self.repository,
            kind=self.kind,
            commit=self.commit,
            is_mapped=self.folder is not None,
        )


class Sources(Frozen):
    """`sources.json`: written before the first run, only ever added to."""

    format: int = 1
    endpoint: str | None = Field(
        None, description="the Hub or mirror that answered first (HF_ENDPOINT)"
    )
    repositories: tuple[Repository, ...] = ()

    def find(self, repository: str) -> Repository | None:
        """Return a repository's entry, or None."""
        return next((r for r in self.repositories if r.repository == repository), None)

    def commit_of(self, repository: str) -> str | None:
        """Return the commit that the study keeps of a repository, or None."""
        found = self.find(repository)
        return found.commit if found else None

    def joined(self, others: Iterable[Repository], endpoint: str | None) -> Sources:
        """Return these with others added; an entry that is there stays as it is."""
        have = {r.repository for r in self.repositories}
        more = [r for r in others if r.repository not in have]
        return Sources(endpoint=self.endpoint or endpoint, repositories=(*self.repositories, *more))


@dataclass(frozen=True)
class Need:
    """A repository that runs read."""

    repository: str
    kind: Kind
    revision: str

    @property
    def named(self) -> str:
        """How a sentence names it."""
        return f"{self.kind} {self.repository}"


def needs(specs: Iterable[RunSpec]) -> list[Need]:
    """List the repositories that runs read, models first; none for what ships with the harness.

    Raises: ConfigError if one is asked for at two revisions.
    """
    found: dict[tuple[Kind, str], set[str]] = {}
    for spec in specs:
        model, dataset = spec.model, spec.dataset
        if is_repository(model.source):
            found.setdefault(("model", model.source), set()).add(model.revision or MAIN)
        if dataset.name in DATASETS and dataset.rows_from == "source":
            found.setdefault(("dataset", dataset.name), set()).add(dataset.revision or MAIN)
    problems = [
        f"{kind} {name} is asked for at {len(revisions)} revisions ({', '.join(sorted(revisions))}); "
        "a study reads one: give all its runs the same `revision`, or split the matrix"
        for (kind, name), revisions in found.items()
        if len(revisions) > 1
    ]
    if problems:
        raise ConfigError(*problems)
    ordered = sorted(found.items(), key=lambda item: item[0][0] == "dataset")
    return [Need(name, kind, min(revisions)) for (kind, name), revisions in ordered]


def is_repository(source: str) -> bool:
    """Whether a model source is a repository: not the harness's own, nor a folder that is there."""
    return not source.startswith(_OWN_MODELS) and source != "smollm2" and not Path(source).is_dir()


def read_sources(store: Store) -> Sources | None:
    """Read a study's sources, or None if it has none.

    Raises: StudyError if they are there and can't be read.
    """
    path = store.root / FILE
    return read_model(path, Sources) if path.is_file() else None


def write_sources(store: Store, sources: Sources) -> None:
    """Write a study's sources."""
    store.write_json(store.root / FILE, sources.model_dump(mode="json"))
