"""Arms that train another arm once more: what an A/A comparison needs.

Such an arm says `again_of` and nothing else. When a matrix is read it is given everything of the arm that
it names, so whoever looks at the matrix finds a complete arm, and the two runs differ in their names alone.
What this leaves out: whether the named arm exists (`matrix_checks`).
"""

from __future__ import annotations

from typing import Any

KEY = "again_of"
Path = tuple[str | int, ...]


def fill_in(matrix: dict[str, Any]) -> tuple[dict[str, Any], dict[Path, str]]:
    """Return a matrix's plain data with its repeating arms filled in, and what is wrong, by path."""
    pairs = matrix.get("pairs")
    if not isinstance(pairs, dict):
        return matrix, {}
    filled: dict[str, Any] = {}
    problems: dict[Path, str] = {}
    for name, pair in pairs.items():
        arms = pair.get("arms") if isinstance(pair, dict) else None
        filled[name] = pair
        if not isinstance(pair, dict) or not isinstance(arms, dict):
            continue
        filled[name] = {**pair, "arms": {arm: _filled(arm, arms) for arm in arms}}
        for arm in arms:
            problem = _problem(arm, arms)
            if problem:
                problems[("pairs", name, "arms", arm, KEY)] = problem
    return {**matrix, "pairs": filled}, problems


def _filled(name: str, arms: dict[str, Any]) -> Any:
    first = _first(name, arms)
    return arms[name] if first is None else {**first, KEY: arms[name][KEY]}


def _first(name: str, arms: dict[str, Any]) -> dict[str, Any] | None:
    """The arm that an arm repeats; None if it repeats none that is there."""
    again = arms[name].get(KEY) if isinstance(arms[name], dict) else None
    first = arms.get(again) if isinstance(again, str) and again != name else None
    return first if isinstance(first, dict) else None


def _problem(name: str, arms: dict[str, Any]) -> str | None:
    first = _first(name, arms)
    if first is None:
        return None
    again = arms[name][KEY]
    if first.get(KEY) is not None:
        return f"found {again!r}, which repeats {first[KEY]!r} itself; name that one"
    others = sorted(set(arms[name]) - {KEY})
    if others:
        return f"repeats {again!r} and gives its own {', '.join(others)}; an arm that repeats gives nothing"
    return None
