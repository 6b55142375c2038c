"""The words of a comparison by gravity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from harness.compare.model import Word

GRAVITY: tuple[Word, ...] = get_args(Word)


def gravest(words: Iterable[Word]) -> Word:
    """Return the gravest of words; `same` of none."""
    return max(words, key=GRAVITY.index, default="same")
