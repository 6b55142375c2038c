"""Are two arms of a pair the same but for what the matrix declared?

Compares the configurations that TRL resolved to, defaults included, so a default that moves with the
arm is found as surely as an argument that a matrix sets twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Parts of a resolved configuration that the arm itself is about.
_ARM_ITSELF = frozenset({"lora", "trainable_dtypes"})


def undeclared_differences(
    ours: dict[str, Any], theirs: dict[str, Any], declared: Iterable[str]
) -> list[str]:
    """List 'name: found X here, Y there' for every difference that was not declared."""
    allowed = set(declared)
    a, b = _flat(ours), _flat(theirs)
    return [
        f"{name}: {a.get(name)!r} against {b.get(name)!r}"
        for name in sorted(a.keys() | b.keys())
        if name not in allowed and a.get(name) != b.get(name)
    ]


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Trainer arguments by their own names, the rest by theirs."""
    rest = {k: v for k, v in config.items() if k not in _ARM_ITSELF and k != "arguments"}
    return {**rest, **config.get("arguments", {})}
