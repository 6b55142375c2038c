"""`harness compare BASE CANDIDATE`: did training change, where, and is it real?

What this leaves out: the layers and the pages (`compare/`).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.errors import StudyError, did_you_mean
from harness.options import JSON, POSITIVE

if TYPE_CHECKING:
    from rich.console import Console

    from harness.compare.limits import Limits
    from harness.compare.model import Acknowledged, Cell, Comparison, Difference
    from harness.compare.side import Side

COMPARE_EXAMPLES = """\b
Examples:
  harness compare results/upgrade-trl-1.14.2 results/upgrade-trl-1.16.0
  harness compare upgrade-trl-1.16.0 results/upgrade        a stored baseline as the base
  harness compare A B --json | jq '.cells[] | select(.word != "same")'
  harness compare A B --fail-on changed -o compared
Exit codes: 0 the same, or every change acknowledged; 4 changed; 6 not enough evidence or not comparable;
7 the candidate can't be trained here; 8 a study is damaged.
"""
# The words of --fail-on; the models that they stand for are imported by the command.
FAIL_ON = ("changed", "undecided", "not-comparable", "unsupported")
MOST_LINES = 12
MOST_CAUSES = 3


def parse_fail_on(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[str, ...]:
    """Parse 'changed,undecided'; all of them if nothing is said."""
    if text is None:
        return FAIL_ON
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in words if word not in FAIL_ON]
    if unknown or not words:
        found = unknown[0][:80] if unknown else ""
        raise click.BadParameter(
            f"found {found!r}{did_you_mean(found, FAIL_ON)}, expected some of {','.join(FAIL_ON)}"
        )
    return words


@click.command(epilog=COMPARE_EXAMPLES)
@click.argument("base")
@click.argument("candidate")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-5,
    show_default=True,
    help="relative difference of a number above which it changed",
)
@click.option(
    "--steps",
    type=POSITIVE,
    default=8,
    show_default=True,
    help="first optimizer steps that are compared exactly",
)
@click.option(
    "--across-machines",
    is_flag=True,
    help="compare memory, time and small differences of two machines too",
)
@click.option(
    "--fail-on",
    callback=parse_fail_on,
    metavar="WORDS",
    help="which words make the exit code: " + ",".join(FAIL_ON) + "; default all",
)
@click.option(
    "--rerun",
    "reruns",
    is_flag=True,
    help="train the cells again, on other seeds, in which statistics alone see a change",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="write the page, Markdown for a pull request, JUnit XML and the data there",
)
@JSON
@click.option("--quiet", "-q", is_flag=True, help="the sentence alone")
def compare(
    base: str,
    candidate: str,
    tolerance: float,
    steps: int,
    across_machines: bool,
    fail_on: tuple[str, ...],
    reruns: bool,
    output_dir: Path | None,
    is_json: bool,
    quiet: bool,
) -> int:
    """Say whether training changed between two studies, or between a baseline and a study."""
    from harness.compare.concluding import exit_code
    from harness.compare.explain import explain
    from harness.compare.github import tell_github
    from harness.compare.limits import Limits
    from harness.compare.page import write_files
    from harness.compare.verdict import compare_sides
    from harness.terminal import complain

    limits = Limits(tolerance=tolerance, steps=steps, across_machines=across_machines)
    (ours, known), (theirs, more) = open_side(base), open_side(candidate)
    comparison = compare_sides(ours, theirs, limits, (*known, *more))
    if reruns and comparison.suspected:
        folders = (Path(base), Path(candidate))
        comparison = _confirm(comparison, folders, limits, (*known, *more), theirs, quiet)
    comparison = explain(comparison, ours, theirs)
    if output_dir is not None:
        write_files(output_dir, comparison, ours, theirs)
    if is_json:
        click.echo(comparison.model_dump_json(indent=1))
    else:
        print_comparison(comparison, is_quiet=quiet)
    if not is_json:  # annotations are lines on stdout, where JSON stands alone
        tell_github(comparison, os.environ, click.echo)
    damaged = (*ours.unreadable, *theirs.unreadable)
    for problem in damaged:
        complain(problem)
    return StudyError.exit_code if damaged else exit_code(comparison, fail_on)


def open_side(word: str) -> tuple[Side, tuple[Acknowledged, ...]]:
    """Return the side that a word of the command names, and what was acknowledged of it.

    Raises: ConfigError if it names neither a study nor a baseline; StudyError if it can't be read.
    """
    from harness.compare.reading import read_side

    try:
        baselines = importlib.import_module("harness.baselines")
    except ModuleNotFoundError:
        return read_side(Path(word)), ()
    found: tuple[Side, tuple[Acknowledged, ...]] = baselines.open_side(word, read_side)
    return found


def print_comparison(comparison: Comparison, *, is_quiet: bool = False) -> None:
    """Print the sentence, the A/A count, a row for every cell, and what both sides were made of."""
    from rich.text import Text

    from harness.terminal import answer_console, plain_table
    from harness.text import harmless

    console = answer_console()
    console.print(Text(harmless(comparison.sentence), style="bold"))
    if is_quiet:
        return
    console.print(Text(harmless(control_line(comparison))))
    for note in comparison.notes:
        console.print(Text(harmless(note), style="yellow"))
    for cause in comparison.causes[:MOST_CAUSES]:
        console.print(Text(harmless(f"likely cause: {cause.sentence}")))
    for notice in comparison.notices:
        console.print(Text(harmless(f"notice: {notice}")))
    table = plain_table("pair", "arm", "verdict", "step", "what", "base", "candidate", "in words")
    for cell in comparison.cells:
        table.add_row(*(Text(harmless(text)) for text in cell_row(cell)))
    console.print(table)
    _print_list(console, "Frozen corpus:", comparison.replay)
    _print_list(console, "Asked for, and made of it:", comparison.asked)
    for entry in comparison.acknowledged:
        text = f"acknowledged: {entry.what} ({entry.version}): {entry.reason}"
        console.print(Text(harmless(text)))


def control_line(comparison: Comparison) -> str:
    """Say what the A/A comparison came to."""
    from harness.text import plural

    compared = sum(control.compared for control in comparison.controls)
    alarms = sum(control.alarms for control in comparison.controls)
    if not compared:
        return "A/A: no run was repeated."
    return f"A/A: {plural(alarms, 'alarm')} in {plural(compared, 'rerun')} of the same training."


def cell_row(cell: Cell) -> tuple[str, ...]:
    """Write a cell as a row: its word, and its first difference with both values."""
    first = next((d for d in cell.differences if d.word == cell.word != "same"), None)
    word = cell.word
    if first is not None and first.accepted:
        word = f"{word} (acknowledged)"  # type: ignore[assignment]
    if first is None:
        return cell.pair, cell.arm, word, "", "", "", "", cell.sentence
    step = "" if first.step is None else str(first.step)
    values = (_short(first.base), _short(first.candidate))
    return cell.pair, cell.arm, word, step, first.what, *values, cell.sentence


def _confirm(
    comparison: Comparison,
    folders: Sequence[Path],
    limits: Limits,
    acknowledged: Sequence[Acknowledged],
    candidate: Side,
    quiet: bool,
) -> Comparison:
    """Train again what only statistics speak against, and settle it."""
    from harness.compare.confirming import confirm
    from harness.compare.verdict import compare_sides
    from harness.progress import choose_display
    from harness.rerunning import local_launcher, rerun_cells

    again = rerun_cells(
        folders,
        comparison.suspected,
        lambda: choose_display(is_json=False, is_quiet=quiet),
        local_launcher,
    )
    second = compare_sides(*again, limits)
    return confirm(comparison, second, acknowledged, candidate.packages)


def _print_list(console: Console, title: str, found: Sequence[Difference]) -> None:
    from rich.text import Text

    from harness.text import harmless

    if not found:
        return
    console.print(Text(title, style="bold"))
    for each in found[:MOST_LINES]:
        mark = "" if each.word == "same" else f"{each.word}: "
        console.print(Text(harmless(f"  {mark}{each.sentence}")))
    if len(found) > MOST_LINES:
        console.print(Text(f"  and {len(found) - MOST_LINES} more (--json lists all)"))


def _short(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.7g}" if isinstance(value, float) else value if isinstance(value, str) else ""
    text = text or json.dumps(value, default=str)
    return text if len(text) <= 24 else text[:23] + "…"
