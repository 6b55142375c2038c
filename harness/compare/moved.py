"""Trainer arguments that two runs of a cell differ in, but for those that say the same in other words.

A field that one release lacks, a rename, a new spelling: all of these make configurations differ while
nothing trains otherwise. The tables by which arguments are translated know them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.compare.evidence import CellEvidence, arguments_of
from harness.spec import Task
from harness.translation_table import OMISSIBLE, RENAMED, RESPELT, Omissible

# A field that only one side has is off while it holds one of these.
_OFF: tuple[Any, ...] = (None, False, 0, 0.0, "", [], {})


class _Absent:
    """The value of an argument that a release doesn't have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Moved:
    """One argument of a cell, and what it is on each side."""

    argument: str
    base: Any
    candidate: Any


def moved_arguments(evidence: CellEvidence) -> tuple[Moved, ...]:
    """List the arguments in which a cell's runs say something else."""
    base, candidate = arguments_of(evidence.base), arguments_of(evidence.candidate)
    if not base or not candidate:
        return ()
    found = []
    for name in sorted({*base, *candidate}):
        one, other = base.get(name, ABSENT), candidate.get(name, ABSENT)
        if one != other and not _says_the_same(evidence.cell.task, name, base, candidate):
            found.append(Moved(name, one, other))
    return tuple(found)


def argument_in(what: str, known: Mapping[str, Any]) -> str:
    """Return the argument that a difference's name speaks of: the last known word of it."""
    words: list[str] = re.findall(r"\w+", what)
    return next((word for word in reversed(words) if word in known), words[-1] if words else what)


def _says_the_same(
    task: Task, name: str, base: Mapping[str, Any], candidate: Mapping[str, Any]
) -> bool:
    one, other = base.get(name, ABSENT), candidate.get(name, ABSENT)
    if {_key(one), _key(other)} in _respelt(task, name):
        return True
    if one is not ABSENT and other is not ABSENT:
        return False
    mine, theirs = (base, candidate) if other is ABSENT else (candidate, base)
    return mine[name] in _OFF or _is_idle(task, name, mine) or _is_renamed(task, name, mine, theirs)


def _is_idle(task: Task, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a field that only one release has leaves training as the other's is."""
    key = _key(settings[name])
    twins = {key, *(k for pair in _respelt(task, name) if key in pair for k in pair)}
    return any(
        each.why is not None
        or not twins.isdisjoint(_key(value) for value in each.same)
        or not _matters(each, settings)
        for each in OMISSIBLE
        if each.argument == name and task in each.tasks
    )


def _matters(omissible: Omissible, settings: Mapping[str, Any]) -> bool:
    if omissible.matters_with is None:
        return True
    value = settings.get(omissible.matters_with)
    wanted = omissible.matters_when
    return bool(value) if wanted is None else value in wanted


def _is_renamed(task: Task, name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    for each in RENAMED:
        if task not in each.tasks or name not in (each.new, each.old):
            continue
        other = each.old if name == each.new else each.new
        if other in theirs:
            pair = (mine[name], theirs[other])
            return pair[0] == pair[1] or pair in each.values or pair[::-1] in each.values
    return False


def _respelt(task: Task, name: str) -> list[set[str]]:
    """Pairs of values that mean the same; a loss in chunks has other costs, so it isn't one."""
    return [
        {_key(one), _key(other)}
        for each in RESPELT
        if each.argument == name and task in each.tasks and name != "loss_type"
        for one, other in each.values
    ]


def _key(value: Any) -> str:
    return repr(value)
