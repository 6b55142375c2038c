"""What runs read and what TRL was given instead: repositories and commits, translated arguments.

A row that several runs share is written once, with their number. What this leaves out: the resolved
arguments and the environment (`provenance`).
"""

from __future__ import annotations

from collections import Counter

from harness import text
from harness.record import Generation, Source
from harness.report_tables import Table, make_table
from harness.view import StudyView


def source_tables(view: StudyView) -> tuple[Table, ...]:
    """List repositories with their commits, arguments that were translated, and what sampled."""
    read, passed, sampled = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), Counter[str]()
    for run in view.every_run:
        result = run.record.result if run.record else None
        if result is None:
            continue
        read.update(_source(source) for source in result.sources)
        passed.update(
            (run.planned.pair, t.argument, t.value, t.became or "nothing", t.why)
            for t in result.translations
        )
        if result.generation is not None:
            sampled[_engine(result.generation)] += 1
    tables = (
        make_table(
            "Repositories that the runs read",
            ("Repository", "Kind", "Commit", "Runs"),
            _rows(read),
            numeric={3},
        ),
        make_table(
            "Trainer arguments that the installed TRL was given otherwise",
            ("Pair", "Argument", "In the matrix", "Passed", "Why", "Runs"),
            _rows(passed),
            numeric={5},
        ),
        make_table(
            "What sampled completions",
            ("Engine", "Runs"),
            [(engine, str(n)) for engine, n in sampled.items()],
            numeric={1},
        ),
    )
    return tuple(table for table in tables if table.rows)


def _rows(counts: Counter[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(*(text.clean(value) for value in key), str(n)) for key, n in counts.items()]


def _source(source: Source) -> tuple[str, ...]:
    without = "a local folder took its place" if source.is_mapped else "none"
    return source.repository, source.kind, source.commit or without


def _engine(generation: Generation) -> str:
    parts = [
        f"{generation.engine} {generation.version or ''}".strip(),
        generation.mode or "",
        f"pool {text.memory(generation.pool_bytes)}" if generation.pool_bytes else "",
        "sleeps while training" if generation.sleeps else "",
    ]
    return text.clean(", ".join(part for part in parts if part))
