"""How long the batches of a run are, drawn: what a replay of its memory goes through.

Reserved memory only grows while nothing empties the cache, and what makes it grow is a batch that is longer
than all before it: its blocks fit none that are cached. So it hangs on how many batches a run has, and on
the order that they come in. A draw takes as many batches as a run, and keeps of them what raises memory:
every record, and a few batches after it. In the one shape that tests/test_forecast_measured.py tries, two
draws of 120 batches, what is kept must reserve as much as all do, to 0.5 %. Where a loop empties its cache
whole spans are kept instead, and of a loop that sorts its rows a few buckets are drawn and no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pydantic import Field

from harness.frozen import Frozen, PositiveInt

SPREAD = 0.5  # of the logarithm of a row's length, where only its mean is known
UNKNOWN_BATCHES = 200  # where nothing says how many a run has
MOST_BATCHES = 1000  # the longest row has long come by then
AFTER_A_RECORD = 5
WINDOWS = 4  # between two emptyings of the cache, replayed where a loop empties it
MOST_BUCKETS = 4


class Rows(Frozen):
    """How long the rows of a batch are."""

    longest: PositiveInt = Field(description="tokens that no row is beyond")
    mean: PositiveInt | None = Field(
        None, description="mean tokens of a row; null: every row is the longest"
    )
    sorted_batches: PositiveInt | None = Field(
        None,
        description="batches in a bucket of rows sorted by length, longest first; null: shuffled",
    )

    @property
    def is_even(self) -> bool:
        """Whether every row is as long as the longest."""
        return self.mean is None or self.mean >= self.longest


def draw_lengths(
    rows: Rows, batch: int, draws: int, *, batches: int | None = None, empties_every: int = 0
) -> list[list[int]]:
    """Draw the length of each batch, its longest row's, several times; the longest comes in every draw.

    Lengths of rows are taken to be lognormal about their mean, cut at the longest. Where a loop empties its
    cache, a draw is whole spans between two emptyings.
    """
    if rows.is_even:
        return []
    count = min(batches or UNKNOWN_BATCHES, MOST_BATCHES)
    return [_draw(random.Random(seed), rows, batch, count, empties_every) for seed in range(draws)]


def _draw(
    chance: random.Random, rows: Rows, batch: int, count: int, empties_every: int
) -> list[int]:
    if rows.sorted_batches is not None:
        return _sorted(chance, rows, rows.sorted_batches, batch, count, empties_every)
    lengths = draw_run(chance, rows, batch, count)
    if not empties_every:
        return records(lengths, AFTER_A_RECORD)
    spans = [lengths[i : i + empties_every] for i in range(0, count, empties_every)]
    spans.sort(key=max)
    return [length for span in spans[-WINDOWS:] for length in span]


def draw_run(chance: random.Random, rows: Rows, batch: int, count: int) -> list[int]:
    """Draw the lengths of all batches of a run whose rows are shuffled."""
    lengths = [max(_row(chance, rows) for _ in range(batch)) for _ in range(count)]
    if rows.longest not in lengths:
        lengths[chance.randrange(count)] = rows.longest
    return lengths


def _row(chance: random.Random, rows: Rows) -> int:
    centre = math.log(rows.mean or rows.longest) - SPREAD**2 / 2
    return min(rows.longest, max(8, round(chance.lognormvariate(centre, SPREAD))))


def _sorted(
    chance: random.Random, rows: Rows, size: int, batch: int, count: int, empties_every: int
) -> list[int]:
    """Buckets of so many batches, each sorted; the second begins with the longest row."""
    found: list[int] = []
    wanted = 2 if empties_every else max(2, min(MOST_BUCKETS, count // size))
    for i in range(wanted):
        ordered = sorted((_row(chance, rows) for _ in range(size * batch)), reverse=True)
        bucket = ordered[::batch]
        found += [rows.longest, *bucket[1:]] if i == 1 else bucket
    return found


def records(lengths: Sequence[int], after: int) -> list[int]:
    """Keep every length that is beyond all before it, and so many lengths that come after it."""
    kept, highest, left = [], 0, 0
    for length in lengths:
        if length > highest:
            highest, left = length, after
            kept.append(length)
        elif left:
            left -= 1
            kept.append(length)
    return kept
