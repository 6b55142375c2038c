"""Cuts raw rows into test, validation and train: seeded, disjoint, and no row lost without a word.

Rows are walked in a shuffled order that the dataset seed alone decides. Test rows are taken first,
then validation, then train, so that a pair which later trains on more rows is judged on the same
ones. A prompt that stands in a held-out split already is left out of what comes later, however often
the data repeats it. Only as many rows are read and converted as a pair asks for.

A row that can't be used (a missing text, a gold answer that no reward can read, a prompt that is too
long) becomes one sentence with its index and the reason. What this leaves out: rows that TRL cuts at
max_length; the session counts those on what the trainer made.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, Value, concatenate_datasets
from jinja2.exceptions import TemplateError

from harness.errors import ConfigError
from harness.worker.data import Request, Splits

Row = dict[str, Any]
Convert = Callable[[Row], Row]  # raw row → TRL's columns; raises Unusable

BATCH_ROWS = 256  # raw rows that are read at a time
TABLE_ROWS = 1_000  # converted rows that are kept as Python objects before they become Arrow
TURNS = [{"role": Value("string"), "content": Value("string")}]
FEATURES = {
    "sft": Features({"prompt": TURNS, "completion": TURNS}),
    "grpo": Features({"prompt": TURNS, "solution": Value("string")}),
}


class Unusable(Exception):  # noqa: N818 - it is no error: the row is left out and listed
    """A row can't be used; the message says why, without the row's index."""


def text_of(row: Row, column: str) -> str:
    """Return a column's text.

    Raises: Unusable if there is none.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        kind = "empty" if value in (None, "") or isinstance(value, str) else "no text"
        raise Unusable(f"its `{column}` is {kind}")
    return value


@dataclass
class Cut:
    """A cut in progress: what was left out so far, and which prompts are held out."""

    name: str
    request: Request
    convert: Convert
    unusable: list[str] = field(default_factory=list)
    held_out: set[bytes] = field(default_factory=set)

    def walk(self, rows: Dataset, split: str) -> Iterator[tuple[str, Row]]:
        """Yield usable rows in the seed's order, each with the words that name it."""
        order = list(range(len(rows)))
        random.Random(self.request.seed).shuffle(order)
        for first in range(0, len(order), BATCH_ROWS):
            indices = order[first : first + BATCH_ROWS]
            batch = rows[indices]
            for place, index in enumerate(indices):
                label = f"{split} row {index}"
                try:
                    row = self.convert({column: batch[column][place] for column in batch})
                    refuse_long_prompt(row["prompt"], self.request)
                except Unusable as why:
                    self.unusable.append(f"{label}: {why}")
                    continue
                yield label, row

    def take(
        self, walked: Iterator[tuple[str, Row]], wanted: int | None, is_held_out: bool
    ) -> Dataset:
        """Take that many rows, or all, leaving out prompts that are held out already."""
        tables: list[Dataset] = []
        taken: list[Row] = []
        features = FEATURES[self.request.task]
        count = 0
        while wanted is None or count < wanted:
            label, row = next(walked, (None, None))
            if row is None:
                break
            key = content_key(row["prompt"])
            if key in self.held_out:
                self.unusable.append(f"{label}: its prompt stands in a held-out split already")
                continue
            if is_held_out:
                self.held_out.add(key)
            taken.append(row)
            count += 1
            if len(taken) == TABLE_ROWS:
                tables.append(_table(taken, features))
                taken = []
        tables.append(_table(taken, features))
        return concatenate_datasets([t for t in tables if len(t)] or tables)


def _table(rows: list[Row], features: Features) -> Dataset:
    """Rows as Arrow; without a row the columns are there all the same."""
    columns = {column: [row[column] for row in rows] for column in features}
    return Dataset.from_dict(columns, features=features)


def cut_rows(
    name: str,
    request: Request,
    convert: Convert,
    rows: Dataset,
    test_rows: Dataset | None = None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Cut a repository's rows into the splits of a pair.

    `test_rows` is the repository's own test split; without one the test is cut from `rows`.

    Raises: ConfigError if too few rows can be used.
    """
    cut = Cut(name, request, convert)
    walked = cut.walk(rows, "train")
    walked_test = walked if test_rows is None else cut.walk(test_rows, "test")
    test = cut.take(walked_test, request.test_rows, is_held_out=True)
    validation = cut.take(walked, request.validation_rows, is_held_out=True)
    train = cut.take(walked, request.train_rows, is_held_out=False)
    splits = Splits(train, validation, test, tuple(cut.unusable), notes)
    _refuse_too_few(name, request, splits, len(rows), None if test_rows is None else len(test_rows))
    return splits


def _refuse_too_few(
    name: str, request: Request, splits: Splits, rows: int, test_rows: int | None
) -> None:
    wanted = {
        "test": (request.test_rows, len(splits.test)),
        "validation": (request.validation_rows, len(splits.validation)),
        "train": (1 if request.train_rows is None else request.train_rows, len(splits.train)),
    }
    short = [
        f"{split} {found:,} of {asked:,}"
        for split, (asked, found) in wanted.items()
        if found < asked
    ]
    if not short:
        return
    has = f"{rows:,} rows" + ("" if test_rows is None else f" and {test_rows:,} test rows")
    left_out = len(splits.unusable)
    why = f"; {left_out:,} were left out, the first is {splits.unusable[0]}" if left_out else ""
    raise ConfigError(
        f"dataset {name!r} has too few usable rows: found {', '.join(short)} in its {has}{why}: "
        "ask for fewer, or mend what leaves rows out"
    )


def content_key(prompt: list[dict[str, str]]) -> bytes:
    """Name a prompt by what it says, however it is spaced."""
    said = [[turn["role"], " ".join(turn["content"].split())] for turn in prompt]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).digest()


def refuse_long_prompt(prompt: list[dict[str, str]], request: Request) -> None:
    """Raise Unusable if a prompt has more tokens than the pair allows, or its template refuses it.

    A GRPO prompt is fed whole, so it must fit what its tokenizer says the model takes. TRL cuts a
    supervised row instead.
    """
    if request.tokenizer is None:
        return
    try:
        text = prompt_text(prompt, request.tokenizer)
    except TemplateError as error:
        raise Unusable(f"the chat template refuses it: {' '.join(str(error).split())}") from error
    limit = request.max_prompt_tokens
    if limit is None and request.task == "grpo":
        limit = request.tokenizer.model_max_length
    if limit is None or len(text.encode("utf-8", "replace")) < limit:  # a token is a byte or more
        return
    tokens = count_tokens(text, request.tokenizer)
    if tokens > limit:
        raise Unusable(f"its prompt has {tokens:,} tokens, more than the {limit:,} allowed")


def prompt_text(prompt: list[dict[str, str]], tokenizer: Any) -> str:
    """Render a prompt as a trainer does: the template, up to where the answer begins."""
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def count_tokens(text: str, tokenizer: Any) -> int:
    """Count the tokens of a rendered prompt."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
