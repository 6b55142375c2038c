"""A study's folder, or a baseline's, read as one side of a comparison.

What can't be read is named in `unreadable`, and the rest is there all the same. What this leaves out: runs
that tried the rates of a grid, which nothing is judged by.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.compare.side import RunSide, Series, Side
from harness.errors import ConfigError, StudyError
from harness.frozen import content_hash
from harness.lenses import WHOLE_RUN
from harness.probe import PROBE_FILE, Probe
from harness.record import StepRow
from harness.replays import read_replay
from harness.spec import Matrix
from harness.store import Store, read_model
from harness.view import RunView, StudyView, load_view

BASELINE_FILE = "baseline.json"


def read_side(path: Path) -> Side:
    """Read a study, or a baseline.

    Raises: ConfigError if the folder holds neither; StudyError if it can't be read at all.
    """
    if (path / BASELINE_FILE).is_file():
        return _baseline_reader()(path)
    store = Store(path)
    if not store.exists():
        raise ConfigError(
            f"{str(path)!r} holds neither a study (study.json) nor a baseline ({BASELINE_FILE}); expected "
            "a folder that `harness bench` or `harness baseline save` made"
        )
    try:
        view = load_view(store)
    except ConfigError as error:
        raise StudyError(f"study.json: its matrix can't be read: {error}") from None
    return side_of(view, store)


def side_of(view: StudyView, store: Store) -> Side:
    """Write a study that was read as a side."""
    problems = list(view.problems)
    environments = [run.environment for run in view.runs if run.environment]
    first: Mapping[str, Any] = environments[0] if environments else {}
    packages = _packages(first)
    problems += _mixed_packages(environments)
    try:
        replay = read_replay(store.root)
    except StudyError as error:
        problems.append(str(error))
        replay = {}
    return Side(
        label=_label(view, packages),
        matrix_name=view.study.matrix_name,
        matrix_hash=view.study.matrix_hash,
        harness_version=view.study.harness_version,
        created_utc=view.study.created_utc,
        packages=packages,
        installed_sha256=_mapping(first.get("installed")).get("sha256"),
        platform=_platform(first),
        variables={k: str(v) for k, v in _mapping(first.get("variables")).items()},
        runs=tuple(_run(view.matrix, run, store, problems) for run in view.runs),
        replay=replay,
        margins={name: pair.margin for name, pair in view.matrix.pairs.items()},
        unreadable=tuple(dict.fromkeys(problems)),
        repeats=_repeats(view.matrix),
        runs_count=len(view.runs),
    )


def _baseline_reader() -> Callable[[Path], Side]:
    # By name: baselines are made of sides, so that module stands above this one.
    try:
        reader: Callable[[Path], Side] = importlib.import_module("harness.baselines").read_baseline
    except ModuleNotFoundError:
        raise ConfigError(
            "the folder holds a baseline, which this harness can't read; upgrade it, or name a study"
        ) from None
    return reader


def _run(matrix: Matrix, run: RunView, store: Store, problems: list[str]) -> RunSide:
    planned, record, summary = run.planned, run.record, run.summary
    pair = matrix.pairs[planned.pair]
    result = record.result if record else None
    asked = content_hash(run.spec) if run.spec else planned.run_id.rpartition("-")[2]
    return RunSide(
        cell=planned.cell,
        pair=planned.pair,
        arm=planned.arm,
        seed=planned.seed,
        task=pair.task,
        method=pair.arms[planned.arm].method,
        spec_sha256=asked,
        status=record.status if record else None,
        reason=record.reason if record else None,
        started_utc=record.attempts[-1].started_utc if record else None,
        config={k: v for k, v in run.resolved_config.items() if k != "format"},
        series=_series(run.steps),
        tokens=_by_step(run.steps, lambda row: row.tokens),
        step_wall_s=_by_step(run.steps, lambda row: (row.end_ns - row.begin_ns) / 1e9),
        probe=_probe(run, store, problems),
        evaluations=result.evaluations if result else (),
        peak_bytes=summary.peak_bytes if summary else {},
        growth_bytes={lens: summary.growth(lens) for lens in summary.peak_bytes} if summary else {},
        grades={k: v for k, v in summary.grades.items() if k != WHOLE_RUN} if summary else {},
        adapter_sha256=result.adapter_sha256 if result else None,
        translations=tuple(
            f"{t.argument}={t.value}: {t.became or 'not passed'}" for t in result.translations
        )
        if result
        else (),
    )


def _probe(run: RunView, store: Store, problems: list[str]) -> Probe | None:
    if run.record is None:
        return None
    folder = store.run_dir(run.planned.run_id) / f"attempt-{run.record.attempt}"
    path = folder / PROBE_FILE
    try:
        return read_model(path, Probe) if path.is_file() else None
    except StudyError as error:
        problems.append(str(error))
        return None


def _series(steps: Iterable[StepRow]) -> dict[str, Series]:
    """Return each logged key as one value a step, from step 1; null where a step lacks it."""
    rows = list(steps)
    keys = dict.fromkeys(key for row in rows for key in row.logs)
    return {key: _by_step(rows, lambda row, k=key: row.logs.get(k)) for key in keys}  # type: ignore[misc]


def _by_step(steps: Iterable[StepRow], value: Callable[[StepRow], float | None]) -> Series:
    found = {row.step: value(row) for row in steps}
    return tuple(found.get(step) for step in range(1, max(found, default=0) + 1))


def _label(view: StudyView, packages: Mapping[str, str | None]) -> str:
    """Call a study by its stack or, where none is written down, its TRL; and by what else was set."""
    version = packages.get("trl")
    label = view.study.stack or (f"TRL {version}" if version else view.name)
    settings = [f"{k}={v}" for k, v in view.study.overrides.items()]
    return ", ".join([label, *settings, *(["rehearsal"] if view.study.is_rehearsal else [])])


def _packages(environment: Mapping[str, Any]) -> dict[str, str | None]:
    found = _mapping(environment.get("packages"))
    return {name: None if v is None else str(v) for name, v in found.items()}


def _mixed_packages(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say if runs of one study trained with several releases: then it is no side."""
    versions: dict[str, dict[str, None]] = {}
    for environment in environments:
        for name, version in _packages(environment).items():
            versions.setdefault(name, {})[version or "(not installed)"] = None
    return [
        f"its runs trained with several releases of {name}: {', '.join(found)}; expected one: run them "
        "again in a new folder"
        for name, found in versions.items()
        if len(found) > 1
    ]


def _platform(environment: Mapping[str, Any]) -> dict[str, Any]:
    gpus = environment.get("gpus")
    more = {"python": environment.get("python"), "gpus": gpus}
    return {
        **_mapping(environment.get("platform")),
        **{name: value for name, value in more.items() if value},
    }


def _repeats(matrix: Matrix) -> dict[str, str]:
    """Name the arms that train another one once more."""
    return {
        f"{name}.{arm}": f"{name}.{first}"
        for name, pair in matrix.pairs.items()
        for arm, each in pair.arms.items()
        if (first := getattr(each, "again_of", None))
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
