"""What a dataset module says to a request that it can't serve, in one place for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.errors import ConfigError, did_you_mean


def refuse_other_task(name: str, task: str, served: str) -> None:
    """Raise ConfigError unless the dataset serves the task."""
    if task != served:
        raise ConfigError(f"dataset {name!r} serves {served}, not {task}: choose another dataset")


def refuse_unknown_options(name: str, options: dict[str, Any], known: Iterable[str]) -> None:
    """Raise ConfigError listing every option that the dataset doesn't know."""
    expected = list(known)
    problems = [
        f"dataset {name!r} has no option {option!r}{did_you_mean(option, expected)}; "
        f"expected {', '.join(expected) or 'none'}"
        for option in options
        if option not in expected
    ]
    if problems:
        raise ConfigError(*problems)


def refuse_wrong_types(
    name: str, options: dict[str, Any], types: dict[str, type | tuple[type, ...]]
) -> None:
    """Raise ConfigError listing every option whose value has another type than it takes."""
    problems = [
        f"dataset {name!r}: option {option!r} is {options[option]!r}; expected {_words(kinds)}"
        for option, kinds in types.items()
        if option in options and not isinstance(options[option], kinds)
    ]
    if problems:
        raise ConfigError(*problems)


def open_ended(name: str) -> str:
    """Say that a module which generates its rows can't serve `train_rows: null`."""
    return (
        f"dataset {name!r} generates its rows and has no 'all that is left', found "
        "train_rows: null; expected a number"
    )


def _words(kinds: type | tuple[type, ...]) -> str:
    names = {str: "text", bool: "true or false", type(None): "null"}
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    return " or ".join(names.get(kind, kind.__name__) for kind in listed)
