"""How a trainer argument of a matrix reaches a TRL release that spells it otherwise, or lacks it.

A matrix is written once and runs under many releases of TRL and transformers, whose configs rename
fields, drop them and grow new ones. What changed stands here as data; `resolve` applies it to a set
of field names and versions, so any release can be checked without installing it. An argument is
passed as it is, passed otherwise, left out because that is what the release does anyway (each with a
`Translation` in the record), or refused with a sentence. Nothing is dropped in silence.

Source: the dataclasses of TRL 0.20 to 1.16, and transformers' TrainingArguments 4.57, 5.0 and 5.17.
What this leaves out: reading the installed fields (`arguments`, `worker/trl_versions`), and defaults
that changed for an argument that a matrix does not set, which `changed_defaults` only names.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ConfigError, did_you_mean
from harness.record import Translation
from harness.releases import Versions, is_before
from harness.spec import Task
from harness.translation_table import (
    DEFAULTS,
    NEW_VALUES,
    OMISSIBLE,
    RENAMED,
    RESPELT,
    Omissible,
    Renamed,
)

Arguments = dict[str, Any]
CONFIGS: dict[Task, str] = {"sft": "SFTConfig", "grpo": "GRPOConfig"}
# Taken apart by functions of their own: they become more than another name or spelling.
_WARMUP = ("warmup_ratio", "warmup_steps")
_PROMPT_LIMIT = "max_prompt_length"


@dataclass(frozen=True)
class Resolved:
    """What a run's arguments came to under one release."""

    passed: Arguments = field(default_factory=dict)
    translations: tuple[Translation, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)  # argument → one sentence


class _RefusedError(Exception):
    """Carries the sentence that refuses one argument."""


def translate(
    task: Task, arguments: Arguments, known: Collection[str], versions: Versions
) -> tuple[Arguments, tuple[Translation, ...]]:
    """Return what to pass to the installed config, and what is passed otherwise or not at all.

    `known` holds the field names of the installed config; `versions` those of 'trl' and
    'transformers'. Raises: ConfigError naming every argument that this release can't be given.
    """
    resolved = resolve(task, arguments, known, versions)
    if resolved.refused:
        raise ConfigError(*resolved.refused.values())
    return resolved.passed, resolved.translations


def resolve(
    task: Task, arguments: Arguments, known: Collection[str], versions: Versions
) -> Resolved:
    """Sort a run's arguments into passed, translated and refused; `translate` without the raise."""
    passed: Arguments = {}
    translations: list[Translation] = []
    refused: dict[str, str] = {}
    # Names the release has come first: a translated one must meet what it would collide with.
    for name in sorted(arguments, key=lambda n: n not in known):
        value = arguments[name]
        try:
            became, why = _one(_Case(task, name, value, arguments, known, versions))
            _merge(passed, became, name)
        except _RefusedError as refusal:
            refused[name] = str(refusal)
            continue
        if why:
            text = "; ".join(f"{k}={json.dumps(v)}" for k, v in became.items()) or None
            if name == _PROMPT_LIMIT and value is not None:
                text = f"dataset.max_prompt_tokens={value}"
            translations.append(
                Translation(argument=name, value=json.dumps(value), became=text, why=why)
            )
    return Resolved(passed, tuple(sorted(translations, key=lambda t: t.argument)), refused)


def translatable(task: Task) -> frozenset[str]:
    """Name every argument that this table can do something about for some release."""
    return frozenset(
        {
            *_WARMUP, *((_PROMPT_LIMIT,) if task == "grpo" else ()),
            *(n for r in RENAMED if task in r.tasks for n in (r.new, r.old)),
            *(r.argument for r in RESPELT if task in r.tasks),
            *(o.argument for o in OMISSIBLE if task in o.tasks),
        }
    )  # fmt: skip


def changed_defaults(task: Task, arguments: Arguments, versions: Versions) -> tuple[str, ...]:
    """Name the defaults that this release has and the newest has not, where a run rests on them."""
    return tuple(
        f"{d.argument} is not set and is {d.was} in TRL {versions.get('trl')}; from TRL {d.until} "
        f"it is {d.now}."
        for d in DEFAULTS
        if d.task == task
        and is_before(versions, "trl", d.until)
        and d.argument not in arguments
        and (d.matters_with is None or arguments.get(d.matters_with))
    )


@dataclass(frozen=True)
class _Case:
    """One argument of a run, and what it meets."""

    task: Task
    name: str
    value: Any
    arguments: Arguments
    known: Collection[str]
    versions: Versions

    @property
    def given(self) -> str:
        return f"{self.name}={json.dumps(self.value, default=str)}"

    @property
    def config(self) -> str:
        parts = [f"{p} {v}" for p, v in self.versions.items() if v]
        return f"{CONFIGS[self.task]} ({', '.join(parts)})" if parts else CONFIGS[self.task]


def _one(case: _Case) -> tuple[Arguments, str]:
    """Return what to pass for an argument, and why if that is not the argument itself."""
    if case.name in _WARMUP:
        return _warmup(case)
    if case.name == _PROMPT_LIMIT and case.task == "grpo":
        _check_prompt_limit(case)
        if case.name not in case.known:
            return {}, "this TRL cuts no prompts; " + (
                "nor is it asked to"
                if case.value is None
                else "the dataset leaves out rows whose prompt is longer"
            )
    value, why = _respelt(case)
    if case.name in case.known:
        _check_value_exists(case, value)
        return {case.name: value}, why
    other = _other_name(case, value)
    if other is not None:
        became, renamed = other
        return became, "; ".join(filter(None, (why, renamed)))
    row = next((o for o in OMISSIBLE if _is_row(o, case)), None)
    if row is None:
        names = set(case.known) | translatable(case.task)
        hint = did_you_mean(case.name, names - {case.name})
        raise _RefusedError(
            f"{case.given}: {case.config} has no such argument{hint}; remove it or write a name it has"
        )
    return {}, _why_omitted(row, case, value)


def _is_row(row: Omissible, case: _Case) -> bool:
    return row.argument == case.name and case.task in row.tasks


def _respelt(case: _Case) -> tuple[Any, str]:
    for row in RESPELT:
        if row.argument != case.name or case.task not in row.tasks:
            continue
        is_old = row.before is None or is_before(case.versions, row.package, row.before)
        is_new = row.since is None or not is_before(case.versions, row.package, row.since)
        for value, spelling in row.values if is_old and is_new else ():
            if _is_same(value, case.value):
                return spelling, row.why
    return case.value, ""


def _check_value_exists(case: _Case, value: Any) -> None:
    for row in NEW_VALUES:
        is_this = (row.task, row.argument) == (case.task, case.name) and _is_same(row.value, value)
        if is_this and is_before(case.versions, "trl", row.since):
            raise _RefusedError(
                f"{case.given}: {case.config} can't do this, it came with TRL {row.since}; set "
                f"another value, or install TRL {row.since} or newer"
            )


def _other_name(case: _Case, value: Any) -> tuple[Arguments, str] | None:
    """Return the argument under the name that the release has, if it was renamed."""
    for row in RENAMED:
        if case.task not in row.tasks or case.name not in (row.new, row.old):
            continue
        name = row.old if case.name == row.new else row.new
        if name not in case.known:
            continue
        why = f"{row.when} renamed {row.old} to {row.new}"
        return {name: _renamed_value(row, case, value)}, why
    return None


def _renamed_value(row: Renamed, case: _Case, value: Any) -> Any:
    if not row.values:
        return value
    pairs = row.values if case.name == row.new else tuple((o, n) for n, o in row.values)
    for mine, theirs in pairs:
        if _is_same(mine, value):
            return theirs
    spellings = ", ".join(json.dumps(mine) for mine, _ in pairs)
    raise _RefusedError(
        f"{case.given}: {case.config} has no such argument, and only {spellings} can be passed as "
        f"{row.old if case.name == row.new else row.new}; set one of them"
    )


def _why_omitted(row: Omissible, case: _Case, value: Any) -> str:
    if row.why is not None:
        return row.why
    if row.matters_with is not None:
        found = case.arguments.get(row.matters_with)
        if not (found if row.matters_when is None else found in row.matters_when):
            return f"it has no effect without {row.matters_with}" + (
                f"={row.matters_when[0]!r}" if row.matters_when else ""
            )
    if any(_is_same(value, same) for same in row.same):
        return f"{row.when}, and this is what the installed release does anyway"
    same = " or ".join(json.dumps(s) for s in row.same) or "nothing"
    raise _RefusedError(
        f"{case.given}: {case.config} has no such argument ({row.when}), and the run would be another "
        f"without it; remove it, set it to {same}, or install a release that has it"
    )


def _check_prompt_limit(case: _Case) -> None:
    value = case.value
    if value is not None and (type(value) is not int or value < 1):
        raise _RefusedError(f"{case.given}: expected a whole number of tokens above 0, or null")


def _warmup(case: _Case) -> tuple[Arguments, str]:
    """A ratio is `warmup_ratio` up to transformers 4, and a `warmup_steps` below 1 from 5 on."""
    value = case.value
    is_old = is_before(case.versions, "transformers", "5.0")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return {case.name: value}, ""  # its type is refused by who checks types
    if case.name == "warmup_steps":
        if not is_old or isinstance(value, int):
            return {case.name: value}, ""
        if value.is_integer():
            return {case.name: int(value)}, "transformers 4 takes a whole number of steps"
        if not 0 < value < 1:
            raise _RefusedError(f"{case.given}: expected whole steps, or a ratio below 1")
        return {"warmup_ratio": value}, "transformers 4 takes a ratio as warmup_ratio"
    if not 0 <= value < 1:
        raise _RefusedError(f"{case.given}: expected a share of the steps, at least 0 and below 1")
    if case.arguments.get("warmup_steps"):
        return {}, "warmup_steps is set and outweighs it"
    if is_old and case.name in case.known:
        return {case.name: value}, ""
    return {"warmup_steps": value}, "transformers 5 takes a ratio as a warmup_steps below 1"


def _merge(passed: Arguments, became: Arguments, name: str) -> None:
    """Add a translated argument; null, and no steps of warm-up, give way to what is set."""
    for key, value in became.items():
        found = passed.get(key)
        gives_way = found is None or (key == "warmup_steps" and found == 0)
        if not gives_way and value is not None and not _is_same(found, value):
            raise _RefusedError(
                f"{name} becomes {key}={json.dumps(value)} under this release, but {key} is set to "
                f"{json.dumps(found)}; remove one of the two"
            )
        if gives_way:
            passed[key] = value


def _is_same(one: Any, other: Any) -> bool:
    """Equal as JSON: 0 is 0.0, but neither is false."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
