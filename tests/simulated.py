"""Studies whose truth is known: paired differences over seeds, and sweeps of the learning rate.

Differences are in units of one seed's paired spread. What this leaves out: judging them (`calibration`,
`calibration_claims`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEED = 20260101
DRAWS = 20_000
SEEDS = (3, 5, 8)
MARGIN = 1.5  # in units of the paired spread: between what five and what six seeds can decide
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.normal(size=shape)


def _skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.exponential(size=shape) - 1.0


def _heavy(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.standard_t(3, size=shape) / np.sqrt(3.0)


def _none(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape)


# How an arm's seeds scatter: variance 1 each. The last is a stress: one arm skewed, the other exact.
NOISES: dict[str, tuple[Draw, Draw]] = {
    "normal": (_normal, _normal),
    "skewed": (_skewed, _skewed),
    "heavy-tailed": (_heavy, _heavy),
    "only LoRA skewed": (_skewed, _none),
}


def stream(name: str) -> np.random.Generator:
    """Return a row's own random numbers, so that a row does not depend on which others are made."""
    return np.random.default_rng([SEED, *name.encode()])


def draw(
    noise: str, shape: tuple[int, ...], truth: float, generator: np.random.Generator
) -> np.ndarray:
    """Return paired differences with spread 1; the last axis is the seeds."""
    lora, full = NOISES[noise]
    difference = lora(generator, shape) - full(generator, shape)
    spread = 1.0 if full is _none else np.sqrt(2.0)
    return np.asarray(truth + difference / spread)
