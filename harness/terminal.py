"""What the commands print: tables on stdout, complaints on stderr, text from runs made harmless."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.claim_rows import claim_rows
from harness.claim_sentence import has_claims
from harness.findings import banners, findings_rows, headline
from harness.text import harmless

if TYPE_CHECKING:
    from harness.view import RunView, StudyView

PIPE_WIDTH = 160  # columns of a table that is not on a terminal


def complain(text: str) -> None:
    """Write a message for the user to stderr."""
    for line in text.splitlines():
        shown = harmless(line)
        click.echo(shown if line.startswith("  ") else f"harness: {shown}", err=True)


def run_line(run: RunView) -> dict[str, Any]:
    """Say in plain data how far a planned run is."""
    record, summary = run.record, run.summary
    return {
        "run_id": run.planned.run_id,
        "pair": run.planned.pair,
        "arm": run.planned.arm,
        "seed": run.planned.seed,
        "status": record.status.value if record else None,
        "reason": record.reason if record else None,
        "attempts": len(record.attempts) if record else 0,
        "metric": summary.metric if summary else None,
        "final_value": summary.final_value if summary else None,
        "wall_s": summary.wall_s if summary else None,
    }


def print_runs(view: StudyView) -> None:
    """Print a table of a study's runs."""
    table = plain_table("run", "status", "attempts", "metric", "wall s", "reason")
    for run in view.every_run:
        line = run_line(run)
        value, wall = line["final_value"], line["wall_s"]
        cells = (
            line["run_id"],
            line["status"] or "not run",
            str(line["attempts"]),
            "" if value is None else f"{line['metric']} {value:.4f}",
            "" if wall is None else f"{wall:.0f}",
            line["reason"] or "",
        )
        table.add_row(*(Text(harmless(c)) for c in cells))
    answer_console().print(table)


def print_findings(view: StudyView) -> None:
    """Print a study's finding as a sentence, and a row for every claim, or arm that was judged."""
    console = answer_console()
    print_headline(view, console)
    if has_claims(view):
        _print_claims(view, console)
        return
    table = plain_table(
        "pair", "arm", "worse by", "interval", "margin", "memory", "tokens/s", "verdict"
    )
    rows = findings_rows(view)
    for row in rows:
        cells = (
            row.pair, row.arm, row.gap, row.interval, row.margin, row.memory, row.speed, row.word,
        )  # fmt: skip
        table.add_row(*(Text(harmless(c)) for c in cells))
    console.print(table)
    for caution in dict.fromkeys(f"{row.pair}, {c}." for row in rows for c in row.cautions):
        console.print(Text(harmless(caution), style="yellow"))


def print_headline(view: StudyView, console: Console) -> None:
    """Print the sentence and the banners of a study."""
    console.print(Text(headline(view), style="bold"))
    for banner in banners(view):
        console.print(Text(harmless(banner.text), style="yellow"))


def _print_claims(view: StudyView, console: Console) -> None:
    """Print a row for every claim, controls last, then what speaks against each."""
    table = plain_table("claim", "verdict", "effect", "interval", "allowed", "seeds", "in words")
    rows = claim_rows(view)
    for row in rows:
        name = f"{row.name} ({row.role})" if row.is_control else row.name
        cells = (name, row.word, row.value, row.interval, row.margin, row.seeds, row.plain)
        table.add_row(*(Text(harmless(c)) for c in cells))
    console.print(table)
    against = [(row.name, line) for row in rows for line in row.against]
    if against:
        console.print(Text("Evidence against:", style="bold"))
    for name, line in against:
        console.print(Text(harmless(f"  {name}: {line}")))


def plain_table(*columns: str) -> Table:
    """Make a table without lines; what is too long for its column goes on below."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def message_console() -> Console:
    """Make a console for what stands beside the answer: stderr."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH, highlight=False)


def answer_console() -> Console:
    """Make the console of a command's answer: stdout, at a fixed width where that is no terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
