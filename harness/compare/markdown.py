"""A comparison in Markdown: for a pull request's comment and for a job's summary.

A comment ends at 65,536 characters, so rows that don't fit are left out whole, the mildest first, and
counted. Every value is escaped; a hidden line at the top lets CI find its own comment again. What this
leaves out: the curves, and every difference of a cell but the first (the page has both).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness import text
from harness.compare import outline
from harness.compare.model import Comparison

LIMIT = 60_000  # characters
MARKER = "<!-- lora-harness: comparison -->"
VALUE_MAX, SENTENCE_MAX = 80, 400  # characters, before escaping
NOTE_ROOM = 80  # for saying how many rows were left out


@dataclass(frozen=True)
class Section:
    """A heading with rows, of which some may be left out at the end."""

    head: str
    rows: tuple[str, ...]
    noun: str
    share: float  # of the room, that no earlier section may take


def render_markdown(comparison: Comparison, limit: int = LIMIT) -> str:
    """Render a comparison in at most `limit` characters."""
    top = _top(comparison)
    sections = [section for section in _sections(comparison) if section.rows]
    counts = fit(sections, limit - len(top))
    parts = [
        top,
        *(_render(section, count) for section, count in zip(sections, counts, strict=True)),
    ]
    return "".join(part for part in parts if part)


def fit(sections: Sequence[Section], room: int) -> list[int]:
    """Choose how many rows of each section fit into a room, in characters.

    First each takes what its share allows, then what is left goes to the earlier sections. A section of
    which not even a row fits has none.
    """
    used = [len(section.head) + NOTE_ROOM for section in sections]
    counts = [0] * len(sections)
    for is_last in (False, True):
        for number, section in enumerate(sections):
            while counts[number] < len(section.rows):
                row = len(section.rows[counts[number]])
                is_in_share = used[number] + row <= section.share * room
                if sum(used) + row > room or not (is_last or is_in_share):
                    break
                used[number] += row
                counts[number] += 1
    return counts


def _render(section: Section, count: int) -> str:
    left = len(section.rows) - count
    if not count:
        return f"\n*{left} {section.noun} left out, for lack of room.*\n"
    note = f"\n*{left} more {section.noun} left out, for lack of room.*\n" if left else ""
    return section.head + "".join(section.rows[:count]) + note


def _top(comparison: Comparison) -> str:
    lines = [
        MARKER,
        f"### {md(comparison.base, VALUE_MAX)} → {md(comparison.candidate, VALUE_MAX)}: "
        f"{md(comparison.word)}",
        "",
        f"**{md(comparison.sentence, 1200)}**",
        "",
        f"{md(outline.word_counts(comparison))} (matrix {md(comparison.matrix_name, VALUE_MAX)}). "
        f"{md(outline.control_line(comparison))}",
    ]
    if comparison.place and comparison.place.sentence not in comparison.sentence:
        lines += ["", md(comparison.place.sentence)]
    return "\n".join(lines) + "\n"


def _sections(comparison: Comparison) -> Iterable[Section]:
    """What a reader needs first comes first; shares are of the room."""
    rows = outline.rows_of(comparison)
    grave = [row for row in rows if row.cell.word in outline.GRAVE]
    yield _list("What a user will notice", map(md, comparison.notices), "notices", 0.12)
    yield _list(
        "Likely causes",
        (
            f"**{md(c.what, VALUE_MAX)}** ({md(c.kind)}, {outline.how_likely(c.score)}, "
            f"{c.score:.2f}): "
            f"{md(c.sentence)}"
            for c in comparison.causes
        ),
        "causes",
        0.15,
    )
    yield _table(
        "Where each cell begins to differ",
        ("Cell", "Word", "What", "Step", "Base", "Candidate", "In words"),
        (_cell_row(row) for row in grave),
        "cells",
        0.35,
    )
    yield _asked(comparison)
    yield _table(
        "Packages that differ", ("Package", "Base", "Candidate"),
        (
            (name, base or "not installed", candidate or "not installed")
            for name, base, candidate in comparison.packages
        ),
        "packages", 0.06,
    )  # fmt: skip
    yield _table(
        "Replay", ("What", "Word", "Base", "Candidate", "In words"),
        (
            (d.what, d.word, outline.show(d.base), outline.show(d.candidate), d.sentence)
            for d in comparison.replay
        ),
        "items", 0.06,
    )  # fmt: skip
    yield _table(
        "Acknowledged changes", ("What", "Reason", "From"),
        ((a.what, a.reason, a.version) for a in comparison.acknowledged), "changes", 0.05,
    )  # fmt: skip
    missing = outline.missing_sentences(comparison)
    yield _list("Missing", map(md, missing), "things", 0.05)
    calm = [row for row in rows if row.cell.word not in outline.GRAVE]
    yield _table(
        "Cells that are as they were", ("Cell", "Word"), ((r.name, r.cell.word) for r in calm),
        "cells", 0.05,
    )  # fmt: skip
    yield _list("Notes", map(md, comparison.notes), "notes", 0.03)


def _asked(comparison: Comparison) -> Section:
    return _table(
        "Configuration and machine",
        ("What", "Base", "Candidate"),
        ((d.what, outline.show(d.base), outline.show(d.candidate)) for d in comparison.asked),
        "settings",
        0.08,
    )


def _cell_row(row: outline.Row) -> tuple[str, ...]:
    word = row.cell.word + (", acknowledged" if row.is_accepted else "")
    first = row.first
    if first is None:
        return row.name, word, "", "", "", "", row.sentence
    values = outline.show(first.base), outline.show(first.candidate)
    return row.name, word, first.what, outline.show_step(first), *values, first.sentence


def _list(title: str, rows: Iterable[str], noun: str, share: float) -> Section:
    return Section(f"\n#### {title}\n\n", tuple(f"* {row}\n" for row in rows), noun, share)


def _table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], noun: str, share: float
) -> Section:
    head = f"\n#### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"
    last = len(columns) - 1
    written = (
        [md(v, SENTENCE_MAX if i == last else VALUE_MAX) for i, v in enumerate(row)] for row in rows
    )
    return Section(head, tuple(f"| {' | '.join(row)} |\n" for row in written), noun, share)


def md(value: object, limit: int = SENTENCE_MAX) -> str:
    """Escape a value for a line or a table's cell; `#12` must not link an issue."""
    return re.sub(r"#(?=\d)", "#\u2060", text.markdown(text.clean(value, limit)))
