"""Are two arms of a pair the same but for what the matrix declared?

Compares the configurations that TRL resolved to, defaults included, so a default that moves with the
arm is found as surely as an argument that a matrix sets twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.spec import Matrix

# Parts of a resolved configuration that the arm itself is about.
_ARM_ITSELF = frozenset({"lora"})


@dataclass(frozen=True)
class Resolved:
    """The configuration that one run resolved to."""

    pair: str
    arm: str
    config: Mapping[str, Any]


def undeclared_in_study(matrix: Matrix, runs: Iterable[Resolved]) -> dict[str, list[str]]:
    """Compare every run with the first of its pair: pair → one sentence per undeclared difference."""
    first: dict[str, Resolved] = {}
    problems: dict[str, list[str]] = {}
    for run in runs:
        if not run.config or run.pair not in matrix.pairs:
            continue
        other = first.setdefault(run.pair, run)
        declared = matrix.pairs[run.pair].declared_differences
        for difference in undeclared_differences(run.config, other.config, (*declared, "seed")):
            who = (
                f"runs of arm {run.arm!r}"
                if run.arm == other.arm
                else f"arms {run.arm!r} and {other.arm!r}"
            )
            problem = (
                f"{who} of pair {run.pair!r} differ in {difference}; declare it in "
                "declared_differences or make it equal"
            )
            if problem not in problems.setdefault(run.pair, []):
                problems[run.pair].append(problem)
    return problems


def undeclared_differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], declared: Iterable[str]
) -> list[str]:
    """List 'name: found X here, Y there' for every difference that was not declared."""
    allowed = set(declared)
    a, b = _flat(ours), _flat(theirs)
    return [
        f"{name}: {a.get(name)!r} against {b.get(name)!r}"
        for name in sorted(a.keys() | b.keys())
        if name not in allowed and a.get(name) != b.get(name)
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trainer arguments by their own names, the rest by theirs."""
    rest = {k: v for k, v in config.items() if k not in _ARM_ITSELF and k != "arguments"}
    return {**rest, **config.get("arguments", {})}
