"""The values of a replay, by name: how they are collected, and how anything is written as one of them.

Short text stands as it is; long text as its beginning, its length and its hash, so that a file of values
stays small and a reader still sees what is meant. Numbers keep every digit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

Value = str | int | float | bool | None
LONG = 200  # characters; beyond, a hash stands for the text
SHOWN = 100
FEW = 8  # numbers of a tensor that are kept one by one


class Items:
    """What was found so far."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.absent: set[str] = set()
        self.notes: list[str] = []

    def put(self, name: str, value: object) -> None:
        """Keep a value; a tensor of floats becomes several numbers."""
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            self.values |= {f"{name}/{k}": v for k, v in numbers_of(value).items()}
        else:
            self.values[name] = plain(value)

    def call(self, name: str, function: Callable[[], object]) -> None:
        """Keep what a function returns, or that it raises: that is an answer too."""
        try:
            value = function()
        except MemoryError:  # the machine's, and no answer
            raise
        except Exception as error:  # noqa: BLE001 - whatever a release raises
            value = f"raises {type(error).__name__}"
        self.put(name, value)

    def find(self, *places: str) -> Any:
        """Return the first of several 'module:name' that this stack has; None, and noted, if it has none.

        Releases move functions between modules, and some modules can't be imported in some stacks.
        """
        for place in places:
            module, _, name = place.partition(":")
            try:
                return getattr(import_module(module), name)
            except (ImportError, AttributeError, RuntimeError):
                continue
        self.absent.add(places[0].replace(":", "."))
        return None


def plain(value: object) -> Value:
    """Write a value as text, a number, a bool or null."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    text = value if isinstance(value, str) else json.dumps(_listed(value), ensure_ascii=False)
    return shorten(text)


def shorten(text: str) -> str:
    """Return a text, or its beginning with its length and hash."""
    if len(text) <= LONG:
        return text
    return f"{text[:SHOWN]}… ({len(text)} characters, sha256 {digest(text)})"


def digest(text: str) -> str:
    """Return 16 digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def numbers_of(tensor: torch.Tensor) -> dict[str, float | str | None]:
    """Return a tensor's numbers by their place, or three norms if they are many."""
    flat = tensor.detach().double().flatten()
    if flat.numel() <= FEW:
        return {str(i): _finite(x) for i, x in enumerate(flat.tolist())}
    # Sums over signed numbers can cancel, and what is left of them is rounding. The distance from fixed
    # numbers of the same size cancels nothing, and sees an order and a sign that are other.
    size = flat.norm() / math.sqrt(flat.numel())
    fixed = size * torch.cos(torch.arange(flat.numel(), dtype=torch.float64))
    return {
        "l1": _finite(flat.abs().sum().item()),
        "l2": _finite(flat.norm().item()),
        "shape": _finite((flat - fixed).norm().item()),
    }


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _listed(value: object) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _listed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
