"""Reward functions for probes: they look at a completion's text alone, so that every run has a signal.

Deterministic and without a library, so that what they give can only change with the completions. One
answers None for some, one is a hundred times as large as the others: the settings in which TRL's handling
of rewards has been wrong. What this leaves out: anything that a model should learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

Completion = str | Sequence[dict[str, Any]]  # text, or chat messages
Score = Callable[[str], float | None]

CHARACTERS = 40  # a completion of that length or more earns the whole reward
SCALE = 100.0


def probe_length_reward(completions: list[Completion], **kwargs: Any) -> list[float | None]:
    """Score completions by their length, 0 to 1."""
    return _scored(completions, lambda text: min(len(text), CHARACTERS) / CHARACTERS, kwargs)


def probe_digits_reward(completions: list[Completion], **kwargs: Any) -> list[float | None]:
    """Score completions by their share of digits, 0 to 1."""
    return _scored(completions, _digit_share, kwargs)


def probe_parity_reward(completions: list[Completion], **kwargs: Any) -> list[float | None]:
    """Score completions of an odd length 1 and the others 0: right or wrong, as most rewards are."""
    return _scored(completions, lambda text: float(len(text) % 2), kwargs)


def probe_partial_reward(completions: list[Completion], **kwargs: Any) -> list[float | None]:
    """Score two of three completions by their share of digits, and answer None for the others."""
    return _scored(
        completions,
        lambda text: None if crc32(text.encode(errors="replace")) % 3 == 0 else _digit_share(text),
        kwargs,
    )


def probe_scale_reward(completions: list[Completion], **kwargs: Any) -> list[float | None]:
    """Score completions by how many different characters they have, on another scale: 0 to 100."""
    return _scored(
        completions, lambda text: SCALE * min(len(set(text)), CHARACTERS) / CHARACTERS, kwargs
    )


def _scored(
    completions: list[Completion], score: Score, kwargs: dict[str, Any]
) -> list[float | None]:
    """Score every completion's text; what was read as its answer is the text."""
    texts = [_text_of(completion) for completion in completions]
    log_extra = kwargs.get("log_extra")
    if log_extra is not None:
        log_extra("answer_parsed", texts)
    return [score(text) for text in texts]


def _digit_share(text: str) -> float:
    return sum(character.isdigit() for character in text) / max(1, len(text))


def _text_of(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    return str(completion[0].get("content") or "") if completion else ""


REWARDS = {
    "probe_length": probe_length_reward,
    "probe_digits": probe_digits_reward,
    "probe_parity": probe_parity_reward,
    "probe_partial": probe_partial_reward,
    "probe_scale": probe_scale_reward,
}
