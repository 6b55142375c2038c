"""Repositories on the Hub: a revision becomes a commit, a commit becomes a folder.

Everything that could keep a repository from being read is found before the first download and said
at once. A study's commits are kept (`sources`); what is in the cache is not asked for again, and
offline the network is not touched. Weights are safetensors, code of a repository is neither fetched
nor run. huggingface_hub is imported when it is needed, so that a matrix that reads nothing from the
Hub never loads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.access import (
    Unreachable,
    endpoint,
    explain,
    hub_errors,
    is_offline,
    not_cached,
    unreachable,
)
from harness.errors import MachineError
from harness.hub_token import find_token
from harness.lookup import TIMEOUT_S, Listing, look_up, size_text, too_little_disk
from harness.mapping import FILES, LEFT_OUT, check_maps, custom_code, missing_files
from harness.record import Source
from harness.sources import Need, Repository, Sources, needs
from harness.spec import RunSpec

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Snapshot:
    """A repository's files on this machine."""

    entry: Repository
    folder: Path

    @property
    def size_bytes(self) -> int:
        """What its files take on disk."""
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


@dataclass(frozen=True)
class Obtained:
    """Every repository that some runs read, on this machine."""

    sources: Sources = field(default_factory=Sources)  # the study's, from now on
    snapshots: tuple[Snapshot, ...] = ()

    @property
    def places(self) -> dict[str, str]:
        """Repository → folder."""
        return {s.entry.repository: str(s.folder) for s in self.snapshots}

    @property
    def read(self) -> tuple[Source, ...]:
        """The repositories, as a run's result names them."""
        return tuple(s.entry.source for s in self.snapshots)


def obtain(
    specs: Sequence[RunSpec],
    maps: Mapping[str, str],
    known: Sources | None,
    tell: Tell,
    *,
    is_quiet: bool = False,
) -> Obtained:
    """Put every repository that runs read on this machine, at the study's commits.

    `tell` is given a sentence for whatever a person should know; `is_quiet` hides progress bars.
    Raises: ConfigError for maps that can't be, MachineError for what can't be had: all of it at once.
    """
    needed = needs(specs)
    mapped = check_maps(maps, needed, known)
    known = known or Sources()
    wanted = [n for n in needed if n.repository not in mapped]
    snapshots = {name: Snapshot(e, Path(e.folder or "")) for name, e in mapped.items()}
    if wanted:
        get = _from_cache if is_offline() else _from_hub
        for snapshot in get(wanted, known, tell, is_quiet):
            snapshots[snapshot.entry.repository] = snapshot
    for name, snapshot in snapshots.items():
        if snapshot.entry.kind == "model" and custom_code(snapshot.folder):
            tell(f"model {name} names Python code of its own (auto_map); it is not run")
    ordered = tuple(snapshots[n.repository] for n in needed)
    asked = endpoint() if wanted and not is_offline() else None
    return Obtained(known.joined((s.entry for s in ordered), asked), ordered)


def _from_cache(
    needed: Sequence[Need], known: Sources, _tell: Tell, _quiet: bool
) -> list[Snapshot]:
    found: list[Snapshot] = []
    problems: list[str] = []
    for need in needed:
        revision = known.commit_of(need.repository) or need.revision
        snapshot = cached(need, revision)
        if snapshot is None:
            problems.append(not_cached(need, revision))
        else:
            found.append(snapshot)
    if problems:
        raise MachineError(*problems)
    return found


def _from_hub(needed: Sequence[Need], known: Sources, tell: Tell, is_quiet: bool) -> list[Snapshot]:
    found = {}
    for need in needed:
        pin = known.commit_of(need.repository)
        snapshot = cached(need, pin) if pin else None
        if snapshot is not None:
            found[need.repository] = snapshot
    token = find_token()
    if token.is_fatal and len(found) < len(needed):
        raise MachineError(f"the token for the Hub: {token.problem}; {token.advice}")
    listings, problems = look_up([n for n in needed if n.repository not in found], known)
    problems += too_little_disk(listings)
    if problems:
        raise MachineError(*problems)
    _say_what_moved(needed, known, tell)
    for listing in listings:
        found[listing.need.repository] = _download(listing, tell, is_quiet)
    return list(found.values())


def cached(need: Need, revision: str) -> Snapshot | None:
    """Return a repository from the cache if it is whole there; never asks the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                need.repository,
                repo_type=need.kind,
                revision=revision,
                allow_patterns=list(FILES[need.kind]),
                ignore_patterns=list(LEFT_OUT[need.kind]),
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    if missing_files(need.kind, folder):
        return None
    return Snapshot(_entry(need, folder.name), folder)


def _say_what_moved(needed: Sequence[Need], known: Sources, tell: Tell) -> None:
    """Tell of revisions that are another commit now than when the study began."""
    from huggingface_hub import HfApi

    for need in needed:
        pin = known.commit_of(need.repository)
        if pin is None or pin == need.revision:
            continue
        try:
            info = HfApi().repo_info(
                need.repository, repo_type=need.kind, revision=need.revision, timeout=TIMEOUT_S
            )
        except hub_errors():  # what is needed is here; this would only have been a note
            return
        if info.sha and info.sha != pin:
            tell(
                f"{need.named}: {need.revision} is commit {info.sha[:12]} by now; the study keeps "
                f"{pin[:12]}, which it began with"
            )


def _download(listing: Listing, tell: Tell, is_quiet: bool) -> Snapshot:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    need = listing.need
    if is_quiet or not sys.stderr.isatty():
        disable_progress_bars()
    if listing.missing_bytes:
        tell(f"fetching {need.named} at {listing.commit[:12]}, {size_text(listing.missing_bytes)}")
    try:
        folder = Path(
            snapshot_download(
                need.repository,
                repo_type=need.kind,
                revision=listing.commit,
                allow_patterns=list(FILES[need.kind]),
                ignore_patterns=list(LEFT_OUT[need.kind]),
            )
        )
        if not listing.is_pinned:
            _note_revision(folder, need.revision)
    except hub_errors() as error:
        try:
            raise MachineError(explain(error, need, listing.commit)) from error
        except Unreachable as why:
            raise MachineError(unreachable(str(why), [need])) from error
    short = missing_files(need.kind, folder)
    if short:
        raise MachineError(f"{need.named} at {listing.commit}: {short}")
    return Snapshot(_entry(need, listing.commit), folder)


def _note_revision(snapshot: Path, revision: str) -> None:
    """Write down in the cache which commit a branch is, as huggingface_hub does: offline needs it."""
    ref = snapshot.parent.parent / "refs" / revision
    if revision != snapshot.name:
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(snapshot.name, encoding="utf-8")


def _entry(need: Need, commit: str) -> Repository:
    return Repository(
        repository=need.repository, kind=need.kind, revision=need.revision, commit=commit
    )
