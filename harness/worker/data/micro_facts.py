"""Random facts, key → value: what has no rule and can only be memorised.

Capacity is how much an adapter can hold, and random digits measure that: they can't be guessed from
one another, so every nat below the entropy of a value is a nat that was stored. What is stored shows
on the trained facts alone. So train, validation and test are the same rows here, the held-out ones
the first of those that are trained on, and the splits' `notes` say so. What this leaves out:
generalisation, of which there is none; `micro_steps` has that.

Options:
    key_digits     digits of a key; a key occurs once
    value_digits   digits of its value, log(10) nats each
"""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset

from harness.errors import ConfigError
from harness.worker.data import Request, Splits
from harness.worker.data.refusals import (
    open_ended,
    refuse_other_task,
    refuse_unknown_options,
    refuse_wrong_types,
)

SAMPLE = {
    "prompt": [{"role": "user", "content": "788"}],
    "completion": [{"role": "assistant", "content": "8107"}],
}

NAME = "micro-facts"
DIGITS = {"key_digits": 3, "value_digits": 4}
MOST_DIGITS = 12
NOTE = (
    "Validation and test rows are trained rows: what is measured is how well they are memorised, "
    "not generalisation."
)


def load(request: Request) -> Splits:
    """Draw the facts of a pair.

    Raises: ConfigError on another task, an unknown option, or more rows than there are.
    """
    refuse_other_task(NAME, request.task, "sft")
    refuse_unknown_options(NAME, request.options, DIGITS)
    refuse_wrong_types(NAME, request.options, dict.fromkeys(DIGITS, int))
    digits: dict[str, int] = DIGITS | request.options
    problems = refusals(request, digits)
    if problems or request.train_rows is None:
        raise ConfigError(*problems)
    rows = Dataset.from_list(facts(request.train_rows, random.Random(request.seed), **digits))
    return Splits(
        train=rows,
        validation=rows.select(range(request.validation_rows)),
        test=rows.select(range(request.test_rows)),
        notes=(NOTE,),
    )


def facts(
    count: int, draw: random.Random, *, key_digits: int, value_digits: int
) -> list[dict[str, Any]]:
    """Draw facts with distinct keys, as rows; leading zeros are kept."""
    keys = draw.sample(range(10**key_digits), count)
    values = [draw.randrange(10**value_digits) for _ in keys]
    return [
        {
            "prompt": [{"role": "user", "content": f"{key:0{key_digits}}"}],
            "completion": [{"role": "assistant", "content": f"{value:0{value_digits}}"}],
        }
        for key, value in zip(keys, values, strict=True)
    ]


def refusals(request: Request, digits: dict[str, int]) -> list[str]:
    """List what a request asks for that these facts cannot give."""
    found = [
        f"dataset {NAME!r}: option {option!r} is {number}; expected 1 to {MOST_DIGITS}"
        for option, number in digits.items()
        if not 1 <= number <= MOST_DIGITS
    ]
    if request.train_rows is None:
        return [*found, open_ended(NAME)]
    held_out = max(request.validation_rows, request.test_rows)
    if held_out > request.train_rows:
        found.append(
            f"dataset {NAME!r} holds out rows that it trains on, found {held_out} held-out rows of "
            f"{request.train_rows} trained; ask for as many or fewer"
        )
    keys = 10 ** digits["key_digits"]
    if not found and request.train_rows > keys:
        found.append(
            f"dataset {NAME!r} has {keys} keys of {digits['key_digits']} digits, but "
            f"train_rows asks for {request.train_rows}; ask for fewer, or set key_digits"
        )
    return found
