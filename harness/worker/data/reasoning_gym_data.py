"""Draws rows from reasoning-gym and splits them; the ground under `gsm_symbolic` and `chain_sum`.

Why: reasoning-gym generates problems from a seed, without a download, and without a promise that
two problems differ. Here each question is taken once, so that no held-out question is trained on.

The test rows are drawn first, then validation, then train: asking for more training rows leaves the
rows that arms are judged on as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import reasoning_gym
from datasets import Dataset

from harness.errors import ConfigError
from harness.worker.data import Request, Splits
from harness.worker.data.refusals import open_ended

Row = dict[str, Any]
Convert = Callable[[Row], Row | str | None]  # a row, why it is unusable, or None where not wanted

DRAWS_PER_ROW = 60  # enough to collect nearly all of a small set, and an end where it is too small
# reasoning-gym seeds row i with seed + i: neighbouring seeds would give the same rows, shifted.
SEED_STRIDE = 10_000_019


def draw_splits(
    name: str, parameters: dict[str, Any], request: Request, convert: Convert
) -> Splits:
    """Draw distinct rows of a reasoning-gym task and split them.

    Raises: ConfigError if the task refuses its parameters, the request names no number of training
    rows, or there are too few distinct questions.
    """
    if request.train_rows is None:
        raise ConfigError(open_ended(name))
    sizes = (request.test_rows, request.validation_rows, request.train_rows)
    wanted = sum(sizes)
    kept: list[Row] = []
    unusable: list[str] = []
    questions: set[str] = set()
    for raw in _draw(name, parameters, request.seed, wanted * DRAWS_PER_ROW):
        if len(kept) == wanted:
            break
        if raw["question"] in questions:
            continue
        questions.add(raw["question"])
        row = convert(raw)
        if isinstance(row, str):
            unusable.append(row)
        elif row is not None:
            kept.append(row)
    if len(kept) < wanted:
        raise ConfigError(
            f"dataset {name!r} with {parameters or 'its defaults'} gave {len(kept)} different "
            f"usable questions, expected {wanted} (train + validation + test): "
            "ask for fewer rows or widen its options"
        )
    test, validation, train = _cut(kept, sizes)
    return Splits(train=train, validation=validation, test=test, unusable=tuple(unusable))


def _draw(name: str, parameters: dict[str, Any], seed: int, size: int) -> Iterator[Row]:
    try:
        generated = reasoning_gym.create_dataset(
            name, seed=seed * SEED_STRIDE, size=size, **parameters
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"dataset {name!r} refuses its options {parameters}: {error}") from error
    for index in range(size):
        yield generated[index]


def _cut(rows: list[Row], sizes: tuple[int, ...]) -> Iterator[Dataset]:
    """Yield consecutive datasets of the given sizes, all with the same columns."""
    columns = list(rows[0]) if rows else []
    start = 0
    for size in sizes:
        part = rows[start : start + size]
        yield Dataset.from_dict({column: [row[column] for row in part] for column in columns})
        start += size
