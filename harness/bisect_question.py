"""What a search is about: releases of one package, or the packages in which two installations differ.

What this leaves out: the answer (`bisect`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2

from harness.errors import ConfigError
from harness.pins import normalize
from harness.release_list import Releases, between, in_order

_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9][A-Za-z0-9.+_-]*)")


@dataclass(frozen=True)
class Question:
    """Two ends and what lies between them."""

    good: Mapping[str, str]  # package → release
    bad: Mapping[str, str]
    releases: tuple[
        str, ...
    ] = ()  # of `package`, from good to bad; empty for a search over packages
    package: str = "trl"
    notes: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages in which the ends differ."""
        return tuple(name for name in self.good if self.good[name] != self.bad[name])

    def stack(self, release: str) -> dict[str, str]:
        """The stack of a release."""
        return {**self.good, self.package: release}

    def mixture(self, names: frozenset[str]) -> dict[str, str]:
        """The good end with some packages as the bad end has them."""
        return {n: self.bad[n] if n in names else v for n, v in self.good.items()}


def about_releases(
    package: str,
    ends: tuple[str, str],
    listed: Sequence[str],
    fixed: Mapping[str, str],
    list_releases: Callable[[str], Releases],
) -> Question:
    """Ask which release of a package changed training; `listed` in place of what there is.

    Raises: ConfigError.
    """
    name, (good, bad) = normalize(package), ends
    found = Releases(in_order(listed), "--releases") if listed else list_releases(name)
    if name in fixed:
        raise ConfigError(f"--with {name}=={fixed[name]} fixes what is searched; leave it out")
    span = between(found.names, good, bad)
    most = 1 + ceil(log2(len(span) - 1))
    note = (
        f"{len(span)} releases of {package} from {good} to {bad}, by {found.source}; at most {most} to try "
        "besides the good one, more where some can't be tried"
    )
    return Question({**fixed, name: good}, {**fixed, name: bad}, span, name, (note,))


def about_packages(
    good: Mapping[str, str], bad: Mapping[str, str], fixed: Mapping[str, str]
) -> Question:
    """Ask which package changed training, of those that two sets of pins have at different releases.

    A package that only one set has can't be put in or taken out here: it is named and left as installed.
    Raises: ConfigError if no package differs.
    """
    differ = [n for n in sorted(good.keys() & bad.keys()) if good[n] != bad[n] and n not in fixed]
    if not differ:
        raise ConfigError(
            "the good and the bad end have no package at different releases; expected two locks, or two "
            "sets such as 'transformers==5.17.0 datasets==4.8.5', that name the same packages"
        )
    alone = sorted(good.keys() ^ bad.keys())
    notes = [f"{len(differ)} packages differ: {', '.join(differ)}"]
    if alone:
        notes.append(f"only one end names {', '.join(alone)}: left as they are installed")
    return Question(
        {**fixed, **{n: good[n] for n in differ}},
        {**fixed, **{n: bad[n] for n in differ}},
        notes=tuple(notes),
    )


def is_set(text: str) -> bool:
    """Whether an end names packages, and not a release."""
    return "==" in text


def read_set(option: str, text: str) -> dict[str, str]:
    """Read 'a==1, b==2'. Raises: ConfigError naming every part that is no pin."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    found = {word: _PINNED.fullmatch(word) for word in words}
    wrong = [word for word, match in found.items() if match is None]
    if wrong:
        raise ConfigError(*(f"{option}: found {word!r}, expected name==version" for word in wrong))
    return {normalize(match[1]): match[2] for match in found.values() if match}
