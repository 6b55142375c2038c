"""A comparison as files: one HTML page, Markdown for a pull request, JUnit XML, and the data itself.

The page is made as the report of a study is: self-contained, scripts by hash, figures that are pictures
first. Values in, text out, but for `write_files`. What this leaves out: what changed and why
(`explain`), and the other files' text (`markdown`, `junit`, `github`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness import text
from harness.chart_parts import Figure, unchecked
from harness.compare import outline
from harness.compare.drawings import series_figures
from harness.compare.github import list_annotations, step_summary, tell_github
from harness.compare.junit import render_junit
from harness.compare.markdown import render_markdown
from harness.compare.model import Cause, Comparison
from harness.compare.side import Side
from harness.files import disk_errors, write_atomically
from harness.palette import DARK
from harness.report import (
    chart_library,
    content_policy,
    json_for_script,
    template_environment,
    template_source,
)
from harness.report_tables import Table, make_table
from harness.spec import Method

__all__ = [
    "list_annotations", "render_junit", "render_markdown", "render_page", "step_summary",
    "tell_github", "write_files",
]  # fmt: skip

DETAILS_MAX = 60  # cells whose differences the page sets out; the data has all
LONG_SENTENCE = 160
CAUSES_FIRST = 4  # on the first screen; the others are folded away
METHODS: dict[Method, str] = {"full": "Full fine-tuning", "lora": "LoRA"}
FIRSTS_LONG = 24  # rows from which the first differing steps are folded away


def render_page(comparison: Comparison, base: Side, candidate: Side) -> bytes:
    """Render the HTML page of a comparison."""
    with unchecked():
        figures, undrawn = series_figures(comparison)
    environment = template_environment(is_html=True)
    style = environment.get_template("page.css.j2").render(dark=DARK)
    style += environment.get_template("comparison.css.j2").render()
    scripts = (chart_library(), template_source("page.js")) if figures else ()
    page = environment.get_template("comparison.html.j2").render(
        **_values(comparison, base, candidate),
        figures=figures,
        undrawn=undrawn,
        policy=content_policy(scripts, style),
        # Our own text, hashed in the policy: escaping would change it.
        style=Markup(style),  # noqa: S704
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        charts=json_for_script(_specs(figures)),
    )
    return page.encode()


def write_files(
    folder: Path, comparison: Comparison, base: Side, candidate: Side
) -> tuple[Path, ...]:
    """Write comparison.json, index.html, comparison.md and junit.xml; return where they are.

    Raises: MachineError if the folder can't be written.
    """
    files = {
        "comparison.json": comparison.model_dump_json(indent=1) + "\n",
        "index.html": render_page(comparison, base, candidate).decode(),
        "comparison.md": render_markdown(comparison),
        "junit.xml": render_junit(comparison),
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content.encode())
    return tuple(folder / name for name in files)


def _values(comparison: Comparison, base: Side, candidate: Side) -> dict[str, Any]:
    """Collect what the page shows; every text is safe to show, jinja escapes it."""
    rows = outline.rows_of(comparison)
    told = [row for row in rows if row.differences and row.cell.word != "same"]
    shown = told[:DETAILS_MAX]
    return {
        "matrix": text.clean(comparison.matrix_name),
        "base": text.clean(comparison.base, 60),
        "candidate": text.clean(comparison.candidate, 60),
        "word": comparison.word,
        "sentence": text.clean(comparison.sentence),
        "is_long": len(comparison.sentence) > LONG_SENTENCE,
        "place": text.clean(comparison.place.sentence) if comparison.place else None,
        "controls": outline.control_line(comparison),
        "alarms": [text.clean(s) for c in comparison.controls if c.alarms for s in c.sentences],
        "counts": outline.word_counts(comparison),
        "methods": [METHODS[method] for method in _methods(comparison)],
        "matrix_rows": _matrix_rows(comparison, {row.identity for row in shown}),
        "causes_first": CAUSES_FIRST,
        "causes": [_cause(cause) for cause in comparison.causes],
        "notices": [text.clean(notice) for notice in comparison.notices],
        "details": [(row, _details(row)) for row in shown],
        "left_out": len(told) - len(shown),
        "firsts": _firsts(rows),
        "replay": outline.differences_table("What was replayed", comparison.replay),
        "asked": outline.asked_table(comparison),
        "packages": outline.packages_table(comparison),
        "acknowledged": outline.acknowledged_table(comparison),
        "missing": outline.missing_sentences(comparison, (base, candidate)),
        "sides": outline.sides_table(base, candidate),
        "notes": [text.clean(note) for note in comparison.notes],
        "words": [(w, outline.MEANINGS[w]) for w in reversed(outline.WORDS)],
        "layers": list(outline.LAYERS.items()),
    }


def _methods(comparison: Comparison) -> list[Method]:
    return [m for m in METHODS if any(cell.method == m for cell in comparison.cells)]


def _matrix_rows(
    comparison: Comparison, linked: set[str]
) -> list[tuple[str, list[list[tuple[str, outline.Row, bool]]]]]:
    """A row a pair, an entry a method: the arms' names, rows, and whether details are on the page."""
    rows = {(row.cell.pair, row.cell.arm): row for row in outline.rows_of(comparison)}
    found = []
    for pair in dict.fromkeys(cell.pair for cell in comparison.cells):
        cells = [cell for cell in comparison.cells if cell.pair == pair]
        entries = [
            [
                (text.clean(cell.arm), (row := rows[pair, cell.arm]), row.identity in linked)
                for cell in cells
                if cell.method == method
            ]
            for method in _methods(comparison)
        ]
        found.append((text.clean(pair), entries))
    return found


def _firsts(rows: Sequence[outline.Row]) -> Table:
    """The first differing step of each cell that is not the same, with both values."""
    firsts = [(row, row.first) for row in rows if row.cell.word in outline.GRAVE and row.first]
    columns = ("Cell", "Word", "What", "Step", "Base", "Candidate", "Relative", "In words")
    return make_table(
        "Where each cell begins to differ",
        columns,
        [
            (
                row.name,
                row.cell.word,
                first.what,
                outline.show_step(first),
                outline.show(first.base),
                outline.show(first.candidate),
                outline.show_relative(first),
                first.sentence,
            )
            for row, first in firsts
        ],
        (3, 6),
        is_long=len(firsts) > FIRSTS_LONG,
    )


def _details(row: outline.Row) -> Table:
    return outline.differences_table(row.name, row.differences)


def _cause(cause: Cause) -> dict[str, str]:
    return {
        "kind": cause.kind,
        "what": text.clean(cause.what),
        "sentence": text.clean(cause.sentence),
        "score": f"{cause.score:.2f}",
        "likely": outline.how_likely(cause.score),
    }


def _specs(figures: Sequence[Figure]) -> dict[str, Any]:
    return {figure.identity: figure.spec for figure in figures}
