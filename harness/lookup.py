"""What the Hub says of repositories before anything is downloaded: commits, sizes, access.

All of it is asked first, so that a gated repository, a misspelt one and a disk that is too small are
one message, not three mornings.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from harness.access import Unreachable, explain, hub_errors, unreachable
from harness.errors import ConfigError
from harness.mapping import ROWS, is_read
from harness.sources import Need, Sources

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Listing:
    """What the Hub says of a repository at a commit."""

    need: Need
    commit: str
    missing_bytes: int  # of its files that are not in the cache
    is_pinned: bool  # the commit is the study's, which the revision may have left behind


def look_up(needed: Sequence[Need], known: Sources) -> tuple[list[Listing], list[str]]:
    """Ask the Hub for commits, sizes and access; returns what it said and every problem."""
    listings: list[Listing] = []
    problems: list[str] = []
    for position, need in enumerate(needed):
        pin = known.commit_of(need.repository)
        revision = pin or need.revision
        try:
            listings.append(_list(need, revision, is_pinned=pin is not None))
        except ConfigError as error:
            problems += error.problems
        except hub_errors() as error:
            try:
                problems.append(explain(error, need, revision))
            except Unreachable as why:
                problems.append(unreachable(str(why), list(needed[position:])))
                break
    return listings, problems


def _list(need: Need, revision: str, *, is_pinned: bool) -> Listing:
    """Ask for a repository's commit and files, and whether this account may read them."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    ask = HfApi().model_info if need.kind == "model" else HfApi().dataset_info
    info = ask(need.repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    names = [name for name in sizes if is_read(need.kind, name)]
    commit = info.sha or revision
    content = ("*.safetensors",) if need.kind == "model" else ROWS
    if not any(fnmatch(name, pattern) for name in names for pattern in content):
        raise ConfigError(_holds_nothing(need))
    missing = [
        n
        for n in names
        if not isinstance(
            try_to_load_from_cache(need.repository, n, revision=commit, repo_type=need.kind), str
        )
    ]
    if missing and info.gated:  # its listing is public, its files are not
        url = hf_hub_url(need.repository, missing[0], repo_type=need.kind, revision=commit)
        get_hf_file_metadata(url, timeout=TIMEOUT_S)
    return Listing(need, commit, sum(sizes[n] for n in missing), is_pinned)


def _holds_nothing(need: Need) -> str:
    if need.kind == "model":
        return (
            f"{need.named} holds no .safetensors weights, and other formats are never opened because "
            "they can run code; name a repository that has them"
        )
    return f"{need.named} holds no rows in .parquet, .jsonl, .json or .csv files; name another"


def too_little_disk(listings: Sequence[Listing]) -> list[str]:
    """Say if what is to be downloaded is more than the cache's disk has room for."""
    from huggingface_hub import constants

    needed = sum(listing.missing_bytes for listing in listings)
    cache = Path(constants.HF_HUB_CACHE)
    there = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed <= free:
        return []
    return [
        f"the Hub's cache {cache} has {size_text(free)} free, and {size_text(needed)} are to be downloaded "
        f"({', '.join(f'{x.need.repository} {size_text(x.missing_bytes)}' for x in listings)}); make room, "
        "or set HF_HOME to a larger disk"
    ]


def size_text(size_bytes: int) -> str:
    """A size as a person reads it."""
    return (
        f"{size_bytes / 2**30:,.1f} GiB"
        if size_bytes >= 2**27
        else f"{size_bytes / 2**20:,.1f} MiB"
    )
