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
from harness.matrix import shipped_matrices
from harness.report_tables import NOT_APPLICABLE, Table, arms_of, cell, make_table, runs_of
from harness.view import RunView, StudyView

# Of no use to another reader, and somebody's own. Earlier records list a GPU's processes, by host id.
PRIVATE = re.compile(
    r"(^|[._])(host_?name|node|user(name)?|home|cwd|executable|argv)($|[._])"
    r"|(^|\.)gpus\.(.*\.)?processes($|\.)",
    re.I,
)
# Arguments that name files or differ between runs by design.
UNTOLD = ("output_dir", "logging_dir", "run_name", "seed", "data_seed")
LONG_LIST = 12
_ABSENT = object()


def environments(view: StudyView) -> list[dict[str, Any]]:
    """List the study's distinct environments, as they may be published, in order of appearance."""
    found: list[dict[str, Any]] = []
    for run in view.every_run:
        environment = shareable(environment_of(run))
        if environment and environment not in found:
            found.append(environment)
    return found


def environment_table(view: StudyView) -> Table:
    """Join the runs' environments: a value all share once, else each value with its runs."""
    values: dict[str, Counter[str]] = {}
    for run in view.every_run:
        for key, value in flatten(environment_of(run)):
            values.setdefault(key, Counter())[value] += 1
    rows = tuple((key, _distinct(counts)) for key, counts in values.items())
    n = len(environments(view))
    recorded = text.plural(sum(bool(run.environment) for run in view.every_run), "run")
    shared = f"one, shared by {recorded}" if n == 1 else f"{n} different ones in {recorded}"
    caption = f"Environment and versions: {shared}" if n else "Environment and versions"
    return Table(caption, ("What", "Value"), rows, is_long=True)


def environment_of(run: RunView) -> dict[str, Any]:
    """Return what a run's worker saw around itself, and the container that it ran in."""
    attempts = run.record.attempts if run.record else ()
    container = attempts[-1].container if attempts else None
    if container is None or not run.environment:
        return run.environment
    return {**run.environment, "container": container.model_dump(exclude={"name"})}


def arguments_tables(view: StudyView, pair: str) -> tuple[Table, ...]:
    """Show what the arms of a pair resolved to: what differs, what is equal, and the adapters.

    Each arm is read from its first run: its runs differ in the seed alone.
    """
    resolved: dict[str, dict[str, Any]] = {}
    for name, arm in arms_of(view):
        configs = [r.resolved_config for r in runs_of(view, pair, arm) if r.resolved_config]
        if name == pair and configs:
            resolved[arm] = configs[0]
    settings = {arm: _settings(config) for arm, config in resolved.items()}
    names = sorted({name for found in settings.values() for name in found} - set(UNTOLD))
    declared = view.matrix.pairs[pair].declared_differences
    differing, equal = [], []
    for name in names:
        values = [found.get(name, _ABSENT) for found in settings.values()]
        if all(value == values[0] for value in values):
            equal.append((name, _argument(values[0])))
        else:
            word = "declared" if name in declared else "not declared"
            differing.append((name, *map(_argument, values), word))
    title = f"Resolved trainer arguments: {pair}"
    tables = [
        make_table(
            f"{title}, where arms differ", ("Argument", *settings, "In the matrix"), differing
        ),
        make_table(f"{title}, equal in all arms", ("Argument", "Value"), equal, is_long=True),
    ]
    adapters = {arm: dict(flatten(config.get("lora"))) for arm, config in resolved.items()}
    return (*tables, *_adapters_table(pair, {a: found for a, found in adapters.items() if found}))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lay trainer arguments beside the rest of a resolved configuration, the adapter left out."""
    rest = {k: v for k, v in config.items() if k not in ("format", "lora", "arguments")}
    return {**rest, **config.get("arguments", {})}


def _adapters_table(pair: str, adapters: Mapping[str, Mapping[str, str]]) -> list[Table]:
    if not adapters:
        return []
    names = sorted({name for found in adapters.values() for name in found})
    rows = [(n, *(found.get(n, NOT_APPLICABLE) for found in adapters.values())) for n in names]
    columns = ("Setting", *adapters)
    return [make_table(f"Resolved adapter settings: {pair}", columns, rows, is_long=True)]


def commands(view: StudyView) -> list[tuple[str, str]]:
    """List (what it does, command)."""
    asked = shlex.split(view.study.command)
    named = asked[asked.index("--matrix") + 1] if "--matrix" in asked[:-1] else None
    rows = [("As this study was made", view.study.command)]
    if named is None and view.study.matrix_name not in shipped_matrices():
        return [(what, text.clean(command)) for what, command in rows]  # nobody knows its file
    base = ["harness", "bench", "--matrix", named or view.study.matrix_name]
    for key, value in sorted(view.study.overrides.items()):
        base += ["--set", f"{key}={json.dumps(value)}"]
    base += ["--budget", view.study.budget] if view.study.budget else []
    base += ["--rehearse"] if view.study.is_rehearsal else []
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
    """Write a value in full, so that two values that differ never look the same."""
    return NOT_APPLICABLE if value is _ABSENT else text.clean(value, limit=300)
