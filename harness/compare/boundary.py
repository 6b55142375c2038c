"""A boundary between releases: what is otherwise from it on, and under which settings.

What this leaves out: the boundaries that are known (`boundaries`), and holding them against where a change
was seen (`suspects`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.compare.model import Kind
from harness.releases import numbers
from harness.spec import Method, Task

METHODS: tuple[Method, ...] = ("full", "lora")
# Whether a run's settings let it happen; None: they don't say. The releases of TRL and transformers stand
# among them.
When = Callable[[Mapping[str, Any]], bool | None]


@dataclass(frozen=True)
class Boundary:
    """Something that is otherwise from one release on, for good or until another."""

    release: str
    tasks: tuple[Task, ...]
    kinds: tuple[Kind, ...]  # what of a step it touches first
    what: str
    sentence: str
    source: str
    arguments: tuple[str, ...] = ()  # whose default moved; the runs must differ in one
    series: tuple[str, ...] = ()  # logged names that it redefines, and nothing else
    factor: str | None = None  # by what gradients are scaled, as `factors` calls it
    when: When | None = None
    methods: tuple[Method, ...] = METHODS
    package: str = "trl"
    until: str | None = None  # the first release in which it is as before


def is_one_of(argument: str, *values: Any) -> When:
    """Whether an argument has one of some values."""
    return lambda found: found[argument] in values if argument in found else None


def is_on(argument: str) -> When:
    """Whether an argument is set to something."""
    return lambda found: bool(found[argument]) if argument in found else None


def is_not_in(dtype: str) -> When:
    """Whether a model has weights in another precision than one."""

    def check(found: Mapping[str, Any]) -> bool | None:
        dtypes = found.get("dtypes")
        return None if not dtypes else any(not str(each).endswith(dtype) for each in dtypes)

    return check


def is_older(package: str, release: str) -> When:
    """Whether a package is older than a release."""

    def check(found: Mapping[str, Any]) -> bool | None:
        version = found.get(package)
        return None if version is None else numbers(version) < numbers(release)

    return check


def is_from(package: str, release: str) -> When:
    """Whether a package is of a release or newer."""
    older = is_older(package, release)

    def check(found: Mapping[str, Any]) -> bool | None:
        answer = older(found)
        return None if answer is None else not answer

    return check


def all_of(*conditions: When) -> When:
    """Whether every condition holds; one that fails decides, whatever the others don't say."""

    def check(found: Mapping[str, Any]) -> bool | None:
        answers = [condition(found) for condition in conditions]
        return False if False in answers else None if None in answers else True

    return check


def windows_differ(found: Mapping[str, Any]) -> bool | None:
    """Whether what is generated at once is trained on in more or fewer steps than one."""
    generation = found.get("steps_per_generation")
    accumulated = found.get("gradient_accumulation_steps")
    if accumulated is None or "steps_per_generation" not in found:
        return None
    return generation is not None and bool(generation != accumulated)


def is_crossed(boundary: Boundary, base: str | None, candidate: str | None) -> bool:
    """Whether one of two releases has what the boundary says and the other has not."""
    if base is None or candidate is None:
        return False
    return _has(boundary, base) != _has(boundary, candidate)


def _has(boundary: Boundary, version: str) -> bool:
    release = numbers(version)
    is_over = boundary.until is not None and release >= numbers(boundary.until)
    return release >= numbers(boundary.release) and not is_over
