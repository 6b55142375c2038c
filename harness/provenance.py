"""Where a study came from, as text: environment, resolved arguments, commands.

Values that all runs share are written once. Nothing here names a host, a user or a path. What this
leaves out: the figures (`report_tables`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from harness import text
from harness.report_tables import Table, arms_of, cell, runs_of
from harness.view import StudyView

# Of no use to another reader, and somebody's own.
PRIVATE = re.compile(
    r"(^|[._])(host_?name|node|user(name)?|home|cwd|executable|argv)($|[._])", re.I
)
# Arguments that name files or differ between runs by design.
UNTOLD = ("output_dir", "logging_dir", "run_name", "seed", "data_seed")
LONG_LIST = 12


def environment_table(view: StudyView) -> Table:
    """Join the runs' environments: a value all share once, else each value with its runs."""
    values: dict[str, Counter[str]] = {}
    for run in view.runs:
        for key, value in flatten(run.environment):
            values.setdefault(key, Counter())[value] += 1
    rows = tuple((key, _distinct(counts)) for key, counts in values.items())
    return Table("Environment and versions", ("What", "Value"), rows, is_long=True)


def arguments_table(view: StudyView, pair: str) -> Table:
    """List every resolved trainer argument of a pair, one column an arm, differences marked."""
    arms = [a for p, a in arms_of(view) if p == pair]
    resolved: dict[str, dict[str, Any]] = {}
    for arm in arms:
        configs = [r.resolved_config for r in runs_of(view, pair, arm) if r.resolved_config]
        resolved[arm] = configs[0] if configs else {}
    present = [arm for arm in arms if resolved[arm]]
    names = sorted({n for arm in present for n in resolved[arm]} - set(UNTOLD))
    rows = []
    for name in names:
        shown = tuple(_argument(resolved[arm].get(name)) for arm in present)
        rows.append((name, *shown, "differs" if len(set(shown)) > 1 else ""))
    rows.sort(key=lambda row: row[-1] == "")
    return Table(
        f"Resolved trainer arguments: {pair}",
        ("Argument", *present, "Between arms"),
        tuple(rows),
        is_long=True,
    )


def commands(view: StudyView) -> list[tuple[str, str]]:
    """List (what it does, command)."""
    base = ["harness", "bench", "--matrix", view.study.matrix_name]
    for key, value in sorted(view.study.overrides.items()):
        base += ["--set", f"{key}={json.dumps(value)}"]
    rows = [("As this study was made", view.study.command)]
    if shlex.join(base) != view.study.command:
        rows.append(("The whole matrix", shlex.join(base)))
    if view.runs:
        first = view.runs[0]
        one = [*base, "--filter", cell(first)]
        if first.planned.seed not in view.matrix.seeds:
            one += ["--seeds", str(first.planned.seed)]
        rows.append(("One run", shlex.join(one)))
    return [(what, text.clean(command)) for what, command in rows]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Walk nested values as ('a.b', text), leaving out what is missing or private."""
    if PRIVATE.search(prefix) or value is None or prefix == "format":
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and (len(value) > LONG_LIST or not value):
        yield text.clean(prefix), text.plural(len(value), "entry").replace("entrys", "entries")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}.{i}")
    elif prefix.endswith("_bytes") and isinstance(value, int):
        yield text.clean(prefix), text.memory(value)
    else:
        yield text.clean(prefix), text.clean(value, limit=300)


def shareable(value: Any, prefix: str = "") -> Any:
    """Copy nested values for publication: private keys left out, text cleaned."""
    if isinstance(value, Mapping):
        return {
            text.clean(k): shareable(v, f"{prefix}.{k}")
            for k, v in value.items()
            if not PRIVATE.search(f"{prefix}.{k}")
        }
    if isinstance(value, list | tuple):
        return [shareable(v, prefix) for v in value]
    return text.clean(value) if isinstance(value, str) else value


def _distinct(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value} ({text.plural(n, 'run')})" for value, n in counts.most_common(4)]
    return "; ".join(shown) + (f"; and {len(counts) - 4} more" if len(counts) > 4 else "")


def _argument(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return text.clean(value, limit=120)
