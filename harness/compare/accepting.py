"""Changes that someone acknowledged: still shown, no longer counted."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from harness.compare.model import Acknowledged, Comparison, Difference
from harness.releases import numbers


def accept(
    comparison: Comparison,
    acknowledged: Sequence[Acknowledged],
    packages: Mapping[str, str | None],
) -> Comparison:
    """Mark the changes that are acknowledged for the candidate's packages, and list what was of use."""
    valid = [entry for entry in acknowledged if _holds(entry, packages)]
    used: dict[Acknowledged, None] = {}

    def mark(names: Sequence[str], found: Sequence[Difference]) -> tuple[Difference, ...]:
        marked = []
        for each in found:
            entry = _entry_for(names, each, valid) if each.word == "changed" else None
            if entry is not None:
                used[entry] = None
                each = each.model_copy(update={"accepted": entry.reason})
            marked.append(each)
        return tuple(marked)

    cells = tuple(
        cell.model_copy(
            update={"differences": mark((f"{cell.pair}.{cell.arm}", cell.pair), cell.differences)}
        )
        for cell in comparison.cells
    )
    replay = mark(("replay",), comparison.replay)
    return comparison.model_copy(
        update={"cells": cells, "replay": replay, "acknowledged": tuple(used)}
    )


def is_accepted(comparison: Comparison) -> bool:
    """Whether every change was acknowledged; so it is where there is none."""
    found = [d for cell in comparison.cells for d in cell.differences]
    return all(d.accepted for d in (*found, *comparison.replay) if d.word == "changed")


def _entry_for(
    names: Sequence[str], found: Difference, entries: Sequence[Acknowledged]
) -> Acknowledged | None:
    for entry in entries:
        pattern, colon, kind = entry.what.rpartition(":")
        pattern, kind = (pattern, kind) if colon else (entry.what, "*")
        is_there = any(fnmatch.fnmatchcase(name, pattern) for name in names)
        if is_there and kind in ("*", found.kind):
            return entry
    return None


def _holds(entry: Acknowledged, packages: Mapping[str, str | None]) -> bool:
    """Whether the candidate has the release from which on a change is accepted; yes if none is named."""
    match = re.fullmatch(r"([A-Za-z0-9_-]+)[ =]+(\d\S*)", entry.version.strip())
    if match is None:
        return True
    installed = packages.get(match[1].lower())
    return installed is not None and numbers(installed) >= numbers(match[2])
