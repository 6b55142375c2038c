"""`harness doctor` as a person reads it: groups of aligned lines, and what to do first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor_check import Check, gigabytes
from harness.doctor_matrix import first_problem
from harness.doctor_needs import download_text
from harness.terminal import PIPE_WIDTH
from harness.text import harmless, memory, number, plural

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
_TITLES = {"gpu": "GPU", "hub": "Hub", "docker": "Docker"}


def print_checks(checks: Sequence[Check], matrix: str, *, is_whole: bool = True) -> None:
    """Print every finding, a group for each part of the machine, and a closing line.

    `is_whole`: whether all runs of the matrix were asked about.
    """
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    listed = [check for check in checks if check.section != "matrices"]
    width = max(len(check.name) for check in listed)
    for section, found in groupby(listed, key=lambda check: check.section):
        out.print(Text(_TITLES.get(section, section), style="bold"))
        out.print(_group(list(found), width))
    lines = [check for check in checks if check.section == "matrices"]
    if lines:
        out.print(Text("matrices", style="bold"))
        out.print(_matrices(lines))
    out.print(Text(harmless(closing(listed, matrix, is_whole=is_whole)), style="bold"))


def closing(checks: Sequence[Check], matrix: str, *, is_whole: bool = True) -> str:
    """Say how many problems there are, and what to do first."""
    problems = sum(check.word == "problem" for check in checks)
    notes = sum(check.word == "note" for check in checks)
    also = f" ({plural(notes, 'note')})" if notes else ""
    first = first_problem(checks)
    asked = f"matrix {matrix!r}" if is_whole else f"what was chosen of matrix {matrix!r}"
    if first is None:
        chosen = "" if is_whole else " with the same --filter, --seeds and --budget"
        return f"no problems for {asked}{also}: `harness bench --matrix {matrix}`{chosen} can start"
    do = first.advice or first.text
    return f"{plural(problems, 'problem')} for {asked}{also}. First, {first.name}: {do}"


def _group(checks: Sequence[Check], width: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=9)
    table.add_column(width=width)
    table.add_column(overflow="fold")
    for check in checks:
        word = Text(f"  {check.word}", style=_STYLES[check.word])
        table.add_row(word, check.name, Text(harmless(check.sentence)))
    return table


def _matrices(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("  matrix", "GPUs", "download", "results", "gated", "GPU-hours", "here"):
        table.add_column(name, overflow="fold", justify="left")
    for check in checks:
        value = check.value
        title = Text(f"  {check.name}", style=_STYLES[check.word])
        if "fits" not in value:
            table.add_row(title, "", "", "", "", "", Text(harmless(check.text)))
            continue
        gpus = f"{value['gpus']} × {memory(value['gpu_bytes'])}" if value["gpus"] else "none"
        hours = number(value["gpu_hours"], 3) if value["gpu_hours"] is not None else ""
        here = "fits" if value["fits"] else str(value["reason"])
        table.add_row(
            title,
            gpus,
            download_text(value["download_bytes"], value["repositories_of_unknown_size"]),
            gigabytes(value["results_bytes"]),
            str(len(value["gated"]) or ""),
            hours,
            Text(harmless(here)),
        )
    return table
