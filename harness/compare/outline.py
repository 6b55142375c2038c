"""A comparison as rows of text, for the page, the Markdown and CI alike: what is shown, in which order.

What this leaves out: markup and its escaping, which each output does for itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from harness import text
from harness.compare.model import Cell, Comparison, Difference, Layer, Word
from harness.compare.side import Side
from harness.report_tables import NOT_APPLICABLE, Table, make_table

WORDS: tuple[Word, ...] = get_args(Word)  # the mildest first
GRAVE: tuple[Word, ...] = ("changed", "undecided", "unsupported here", "not comparable")
VALUE_MAX = 80
DIFFERENCES_MAX = 40  # of a cell, on the page
LONG = 12  # rows from which a table is folded away
SCORES = ((0.7, "goes well with it"), (0.4, "may be"), (0.0, "less likely"))

MEANINGS: dict[Word, str] = {
    "same": "every number that was compared is the same.",
    "rounding": "numbers differ by no more than rounding does between releases that train the same.",
    "not comparable": "the two sides were asked for different things, or lack what would be compared.",
    "unsupported here": "this release can't train here at all; the cause is named. No regression.",
    "undecided": "something differs and may be noise, or results are missing; the sentence says which.",
    "changed": "training differs by more than rounding or noise, and the difference is confirmed.",
}
LAYERS: dict[Layer, str] = {
    "asked": "what was asked for: all trainer arguments with their defaults, packages, the machine.",
    "exact": "the first steps, value by value: losses, gradients, tokens, hashes of data and weights.",
    "replay": "rewards, chat templates and tokens of a frozen corpus, exactly equal or not.",
    "trajectory": "residuals over the whole run: the largest, the first, and if they lean to one side.",
    "statistics": "seeds in pairs: final metric and learning speed, with intervals.",
    "memory": "peaks by lens and phase, and growth over steps.",
    "speed": "processor time of steps and of the trainer's construction.",
    "missing": "runs or metrics that one side lacks, and memory that can't be trusted.",
}


@dataclass(frozen=True)
class Row:
    """One cell as it is shown."""

    identity: str
    cell: Cell
    name: str
    sentence: str
    first: Difference | None
    differences: tuple[Difference, ...]
    left_out: int
    reasons: tuple[str, ...]  # why what was accepted of it was
    is_accepted: bool  # every grave difference is


def rows_of(comparison: Comparison) -> list[Row]:
    """List the cells, the gravest first, in the comparison's order otherwise."""
    numbered = list(enumerate(comparison.cells))
    numbered.sort(key=lambda each: -WORDS.index(each[1].word))
    return [_row(cell, f"cell-{number}") for number, cell in numbered]


def first_difference(cell: Cell) -> Difference | None:
    """Of the differences that give a cell its word, the one at the earliest step."""
    grave = [d for d in cell.differences if d.word == cell.word]
    return min(grave, key=lambda d: (d.step is None, d.step or 0), default=None)


def word_counts(comparison: Comparison) -> str:
    """Count the cells by word, the gravest first: '2 changed, 14 same'."""
    counts = Counter(cell.word for cell in comparison.cells)
    return ", ".join(f"{counts[w]} {w}" for w in reversed(WORDS) if counts[w]) or "no cell compared"


def control_line(comparison: Comparison) -> str:
    """Say how many reruns of one side differed from each other."""
    compared = sum(c.compared for c in comparison.controls)
    alarms = sum(c.alarms for c in comparison.controls)
    if not compared:
        return "A/A: nothing was trained twice, so false alarms were not counted."
    return f"A/A: {alarms} of {text.plural(compared, 'rerun')} differed."


def show(value: Any) -> str:
    """Write a value as short as it can be told from another: nine digits, null, JSON for the rest."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.9g}".replace("-", text.MINUS)
    if isinstance(value, str | int):
        return text.clean(value, VALUE_MAX)
    return text.clean(json.dumps(value, default=str, ensure_ascii=False), VALUE_MAX)


def show_relative(difference: Difference) -> str:
    """Write how far apart two values are, relative to the larger."""
    relative = difference.relative
    return NOT_APPLICABLE if relative is None else f"{relative:.2g}".replace("-", text.MINUS)


def show_step(difference: Difference) -> str:
    """Write the first step that differs."""
    return NOT_APPLICABLE if difference.step is None else str(difference.step)


def how_likely(score: float) -> str:
    """Turn a cause's score into words."""
    return next(words for least, words in SCORES if score >= least)


def differences_table(caption: str, differences: Sequence[Difference]) -> Table:
    """Set out differences with both values."""
    columns = ("What", "Kind", "Word", "Step", "Base", "Candidate", "Relative", "In words")
    rows = [
        (
            d.what,
            d.kind,
            d.word,
            show_step(d),
            show(d.base),
            show(d.candidate),
            show_relative(d),
            d.sentence,
        )
        for d in differences
    ]
    return make_table(caption, columns, rows, (3, 6))


def asked_table(comparison: Comparison) -> Table:
    """Set out what was asked for and differs: configuration and machine."""
    rows = [(d.what, d.kind, show(d.base), show(d.candidate), d.sentence) for d in comparison.asked]
    columns = ("What", "Kind", "Base", "Candidate", "In words")
    return make_table("Configuration and machine", columns, rows, is_long=len(rows) > LONG)


def packages_table(comparison: Comparison) -> Table:
    """Set out the packages that differ."""
    rows = [
        (name, base or "not installed", candidate or "not installed")
        for name, base, candidate in comparison.packages
    ]
    return make_table(
        "Packages that differ", ("Package", "Base", "Candidate"), rows, is_long=len(rows) > LONG
    )


def sides_table(base: Side, candidate: Side) -> Table:
    """Set out where the two sides come from."""
    read: list[tuple[str, list[str]]] = [
        ("label", [s.label for s in (base, candidate)]),
        ("matrix", [f"{s.matrix_name} {s.matrix_hash[:12]}" for s in (base, candidate)]),
        ("made", [s.created_utc for s in (base, candidate)]),
        ("harness", [s.harness_version for s in (base, candidate)]),
        ("runs", [str(len(s.runs)) for s in (base, candidate)]),
    ]
    names = sorted({*base.packages, *candidate.packages})
    read += [(n, [s.packages.get(n) or "–" for s in (base, candidate)]) for n in names]
    keys = sorted({*base.platform, *candidate.platform})
    read += [(k, [show(s.platform.get(k)) for s in (base, candidate)]) for k in keys]
    rows = [(name, *values) for name, values in read]
    return make_table("Both sides", ("", "Base", "Candidate"), rows, is_long=True)


def acknowledged_table(comparison: Comparison) -> Table:
    """Set out the changes that were accepted."""
    rows = [
        (a.what, a.reason, a.version, a.by or NOT_APPLICABLE, a.utc or NOT_APPLICABLE)
        for a in comparison.acknowledged
    ]
    columns = ("What", "Reason", "From", "By", "When")
    return make_table("Acknowledged changes", columns, rows)


def missing_sentences(comparison: Comparison, sides: Sequence[Side] = ()) -> list[str]:
    """List what one side lacks, and what could not be read."""
    found = [
        f"{cell.pair}.{cell.arm}: {d.sentence}"
        for cell in comparison.cells
        for d in cell.differences
        if d.layer == "missing" or d.kind == "missing"
    ]
    found += [d.sentence for d in comparison.asked if d.layer == "missing"]
    found += [f"{side.label}, unreadable: {what}" for side in sides for what in side.unreadable]
    return [text.clean(sentence) for sentence in dict.fromkeys(found)]


def _row(cell: Cell, identity: str) -> Row:
    grave = [d for d in cell.differences if d.word == cell.word and cell.word in GRAVE]
    shown = cell.differences[:DIFFERENCES_MAX]
    return Row(
        identity,
        cell,
        text.clean(f"{cell.pair}.{cell.arm}"),
        text.clean(cell.sentence),
        first_difference(cell),
        shown,
        len(cell.differences) - len(shown),
        tuple(dict.fromkeys(text.clean(d.accepted) for d in grave if d.accepted)),
        bool(grave) and all(d.accepted for d in grave),
    )
