"""A row of the fault table: a study's record, samples and grades, as the harness itself reads them.

What this leaves out: playing the faults (`faults`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import text
from harness.lenses import LENS_NAMES, SAMPLED, WHOLE_RUN, Lens, lens_series, training_spans
from harness.ratios import compare_memory
from harness.record import Status
from harness.store import Store
from harness.view import RunView, load_view
from tests.scripted_nvml import find_trace

BEFORE_END = 0.95  # of training; a lens whose last reading is later was read to the end
UNFIT = 7  # the exit code of a machine that is unfit
# Of this machine's load and not of a fault: its grade says so. The sentence is left out of the table.
OF_THE_MACHINE = "the sampler lowered itself to"
NOTHING = "nothing"
WIDTH = 180  # characters; less leaves nine columns unreadable

SAMPLER_FAILS = "sampler-fails"


@dataclass(frozen=True)
class Row:
    """A fault, and what came of it; `problem` says why the fault table fails."""

    name: str
    fault: str
    answers: str
    status: str
    lenses: str
    grade: str
    verdict: str
    read: str
    took: str
    problem: str | None = None


HEADS = (
    "Trace", "What happens", "NVML answers", "Run", "Lenses read", "Grade, first reason",
    "Verdict on memory", "What the user reads", "Seconds, and of them after training",
)  # fmt: skip


@dataclass(frozen=True)
class Before:
    """How a command ended whose driver failed before anything trained; code None: it hung."""

    code: int | None
    told: str
    wall_s: float
    has_trained: bool


def during_rows(
    study: Path, moments: Mapping[int, tuple[str, float | None]], problem: str | None
) -> Iterator[Row]:
    """Describe every run of a study; the first met no fault, and the others are held against it."""
    view = load_view(Store(study))
    runs = {run.planned.seed: run for run in view.runs}
    healthy = runs[min(moments)]
    for seed, (name, moment_s) in moments.items():
        yield _during(name, moment_s, runs[seed], healthy, study, problem)


def _during(
    name: str, moment_s: float | None, run: RunView, healthy: RunView, study: Path, why: str | None
) -> Row:
    record, summary = run.record, run.summary
    if record is None or summary is None:
        return _row(name, status="none", problem=why or "the run left no record")
    grade = summary.grades.get(WHOLE_RUN)
    reason = grade.reasons[0] if grade and grade.reasons else ""
    problem = None if record.status is Status.OK else f"the run ended {record.status.value}"
    return _row(
        name,
        status=record.status.value,
        lenses=", ".join(_kept(run, lens, column) for lens, column in SAMPLED.items()),
        grade=f"{grade.grade} {reason}".strip() if grade else "none",
        verdict=_verdict(run, healthy),
        read="; ".join(_notes(run, healthy)) or NOTHING,
        took=_took(study / "runs" / run.planned.run_id),
        problem=problem or _misplaced(run, moment_s),
    )


def _kept(run: RunView, lens: Lens, column: str) -> str:
    """Name a lens, and say until when in training it was read."""
    spans = training_spans(run.phases)
    series = lens_series(run.memory, column)
    if series.empty or not spans:
        return f"no {LENS_NAMES[lens]}"
    begin_ns, end_ns = spans[0][0], spans[-1][1]
    share = (int(series.index[-1]) - begin_ns) / (end_ns - begin_ns)
    if share < 0:
        return f"{LENS_NAMES[lens]} before training"
    until = f" until {text.percent(share)} of training" if share < BEFORE_END else ""
    return LENS_NAMES[lens] + until


def _verdict(run: RunView, healthy: RunView) -> str:
    """Say which lens a comparison with the run without fault rests on, or why none may."""
    compared = compare_memory({0: run.summary}, {0: healthy.summary}, [0])
    if not compared:
        return "none: no lens"
    name = next(name for lens, name in LENS_NAMES.items() if lens == compared[0].lens)
    return f"refused ({name})" if compared[0].refused else f"allowed, by {name}"


def _notes(run: RunView, healthy: RunView) -> list[str]:
    """List what the record says of this run and does not say of one without fault."""

    def every(view: RunView) -> list[str]:
        record = view.record
        if record is None:
            return []
        worker = record.result.notes if record.result else ()
        sampler = record.sampler.notes if record.sampler else ("nothing was sampled",)
        return [*([record.reason] if record.reason else []), *sampler, *worker]

    usual = every(healthy)
    return [n for n in every(run) if n not in usual and not n.startswith(OF_THE_MACHINE)]


def _misplaced(run: RunView, moment_s: float | None) -> str | None:
    """Say that the fault did not come while the run trained."""
    spans = training_spans(run.phases)
    if moment_s is None or not spans:
        return "its fault never came"
    share = (moment_s * 1e9 - spans[0][0]) / (spans[-1][1] - spans[0][0])
    return None if 0.1 < share < 0.9 else f"its fault came at {text.percent(share)} of training"


def _took(run: Path) -> str:
    """Say how long a run took to its record, and how long of it from the worker's last word on."""
    attempt = run / "attempt-1"
    sealed_s = (run / "record.json").stat().st_mtime
    took = f"{sealed_s - (attempt / 'launch.json').stat().st_mtime:.1f}"
    last = attempt / "result.json"
    return f"{took}, {sealed_s - last.stat().st_mtime:.1f}" if last.exists() else f"{took}, none"


def before_row(name: str, found: Before) -> Row:
    """Describe a command that could not begin."""
    if found.code is None:
        return _row(name, status="hung", problem=f"no end after {found.wall_s:.0f} s")
    problem = f"exit code {found.code}, not {UNFIT}" if found.code != UNFIT else None
    return _row(
        name,
        status=f"{'trained' if found.has_trained else 'none'}; exit code {found.code}",
        lenses="none",
        grade="none",
        verdict="none",
        read=" ".join(found.told.split()),
        took=f"{found.wall_s:.1f}, none",
        problem="it trained" if found.has_trained else problem,
    )


def _row(
    name: str,
    status: str,
    lenses: str = "",
    grade: str = "",
    verdict: str = "",
    read: str = "",
    took: str = "",
    problem: str | None = None,
) -> Row:
    fault, answers = _described(name)
    return Row(name, fault, answers, status, lenses, grade, verdict, read, took, problem)


def _described(name: str) -> tuple[str, str]:
    """Return a trace's first line, and the faults and slow calls that it holds."""
    if name == SAMPLER_FAILS:  # no GPU's doing, so no trace
        return "The sampler can write no more samples.", "as ever"
    script = find_trace(name).read_text()
    found = re.findall(r"^(fault|slow)\.(\S+) (\d+)", script, re.MULTILINE)
    answers = {
        f"{number} to {'every call' if function == '*' else function}"
        if kind == "fault"
        else f"{function} after {int(number) / 1000:g} s"
        for kind, function, number in found
    }
    return script.splitlines()[0].removeprefix("# "), ", ".join(sorted(answers)) or "as ever"


def _cells(row: Row) -> tuple[str, ...]:
    return astuple(row)[: len(fields(Row)) - 1]


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows for a terminal."""
    table = Table(*HEADS, show_lines=True)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=max(Console().width, WIDTH)).print(table)


def as_markdown(rows: Sequence[Row]) -> str:
    """Write the rows as a table of Markdown."""
    lines = [HEADS, ("---",) * len(HEADS), *(_cells(row) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
