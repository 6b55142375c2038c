"""What both sides were asked for, and what they made of it: arguments, packages, machine.

A cell whose matrix asked for something else is another training: nothing else of it can be compared. The
same request that resolves to another argument is a default that moved. It counts as a change where the
cell trains otherwise too, or where both sides claim the same releases, in which no default can move;
otherwise it is shown, as the release's business. Packages and machines are shown and never count by
themselves. What this leaves out: which of it is the cause (an explanation's business).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compare.exact import Stacks
from harness.compare.model import Difference, Kind, Word
from harness.compare.numbers import became
from harness.compare.side import RunSide, Side

# What no release decides: paths, formats, the device, and what repeats the version of a package. Dtypes are
# looked at as what trained (`checks`).
_PASSING = frozenset(
    {
        *("format", "output_dir", "logging_dir", "run_name", "seed", "data_seed", "device"),
        "project",
        *("dtypes", "trainable_dtypes", "accelerate"),
    }
)
_PASSING_PARTS = frozenset(
    {"peft_version", "transformers_version", "base_model_name_or_path", "auto_mapping", "revision"}
)
NOWHERE = "(no such argument)"


@dataclass(frozen=True)
class Argument:
    """An argument that two runs of one cell resolved to differently; NOWHERE where it is unknown."""

    name: str
    base: Any
    candidate: Any

    @property
    def is_moved(self) -> bool:
        """Whether both sides know it."""
        return NOWHERE not in (self.base, self.candidate)


def differing_arguments(base: RunSide, candidate: RunSide) -> list[Argument]:
    """List the arguments in which two resolved configurations differ; none where one is missing."""
    ours, theirs = flatten(base.config), flatten(candidate.config)
    if not ours or not theirs:
        return []
    return [
        Argument(name, ours.get(name, NOWHERE), theirs.get(name, NOWHERE))
        for name in sorted(ours.keys() | theirs.keys())
        if _differ(ours.get(name, NOWHERE), theirs.get(name, NOWHERE))
    ]


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write a resolved configuration as name → plain value: trainer arguments by their own names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name == "arguments" and isinstance(value, dict):
            flat |= {k: v for k, v in _leaves(value) if _counts(k)}
        else:
            flat |= {k: _ordered(v) for k, v in _leaves({name: value}) if _counts(k)}
    return flat


def argument_difference(argument: Argument, *, counts: bool, seed: int | None) -> Difference:
    """Say in which way an argument differs; `counts` says whether it makes a change."""
    word: Word = "changed" if counts else "same"
    if argument.is_moved:
        text = f"{argument.name}: the default {became(argument.base, argument.candidate)}"
        text += "" if counts else "; training here is the same with either"
    else:
        has = "candidate" if argument.base == NOWHERE else "base"
        value = argument.candidate if has == "candidate" else argument.base
        text = f"{argument.name} ({value}) is an argument of the {has} alone"
    return Difference(
        layer="asked",
        kind="configuration",
        what=f"argument/{argument.name}",
        word=word,
        base=_plain(argument.base),
        candidate=_plain(argument.candidate),
        sentence=text,
        seed=seed,
    )


def argument_counts(argument: Argument, stacks: Stacks, *, trains_otherwise: bool) -> bool:
    """Whether an argument that resolved differently makes a change."""
    if stacks.is_same_software:
        return True
    return argument.is_moved and trains_otherwise


def fold(found: Iterable[tuple[str, Difference]], cells: Sequence[str]) -> list[Difference]:
    """Say once what is the same in several cells: (cell, difference) → differences with their places."""
    places: dict[tuple[str, Word], list[str]] = {}
    first: dict[tuple[str, Word], Difference] = {}
    for cell, each in found:
        key = (each.sentence, each.word)
        first.setdefault(key, each)
        if cell not in places.setdefault(key, []):
            places[key].append(cell)
    folded = []
    for key, each in first.items():
        where = "everywhere" if len(places[key]) == len(cells) > 1 else _listed(places[key])
        folded.append(
            each.model_copy(update={"sentence": f"{each.sentence} [{where}]", "seed": None})
        )
    return sorted(folded, key=lambda d: (d.word != "changed", d.what))


def package_changes(base: Side, candidate: Side) -> tuple[tuple[str, str | None, str | None], ...]:
    """List the packages that differ: name, base, candidate."""
    names = sorted(base.packages.keys() | candidate.packages.keys())
    return tuple(
        (name, base.packages.get(name), candidate.packages.get(name))
        for name in names
        if base.packages.get(name) != candidate.packages.get(name)
    )


def compare_stacks(base: Side, candidate: Side, machines: Sequence[str]) -> list[Difference]:
    """Say what packages and machines differ in; `machines` are sentences on the latter."""
    found = [
        _shown("dependency", name, b, c, f"{name} {_version(b)} became {_version(c)}")
        for name, b, c in package_changes(base, candidate)
    ]
    hashes = (base.installed_sha256, candidate.installed_sha256)
    if not found and None not in hashes and hashes[0] != hashes[1]:
        text = "other distributions are installed, none of those that are known to change training"
        found.append(_shown("dependency", "installed", hashes[0], hashes[1], text))
    return found + [_shown("machine", "machine", None, None, text) for text in machines]


def _shown(kind: Kind, what: str, base: object, candidate: object, text: str) -> Difference:
    return Difference(
        layer="asked", kind=kind, what=what, word="same", base=base, candidate=candidate,
        sentence=text,
    )  # fmt: skip


def _differ(ours: Any, theirs: Any) -> bool:
    """NaN is not equal to itself, and the same argument all the same."""
    return bool(ours != theirs) and repr(ours) != repr(theirs)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _ordered(value: Any) -> Any:
    """An adapter's lists of names are sets, in whatever order."""
    is_names = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return sorted(value) if is_names else value


def _counts(name: str) -> bool:
    return name not in _PASSING and name.rsplit(".", 1)[-1] not in _PASSING_PARTS


def _plain(value: Any) -> Any:
    return None if value == NOWHERE else value


def _version(version: str | None) -> str:
    return version or "(not installed)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
