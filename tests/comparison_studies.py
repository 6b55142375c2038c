"""Study folders on disk for comparisons, written through the store: `comparison_sides` as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.compare.side import RunSide
from harness.matrix import expand, margins_hash, matrix_hash, parse_matrix
from harness.probe import PROBE_FILE
from harness.record import Attempt, Exit, PlannedRun, Record, Result, Status, StepRow, Study
from harness.samples import PhaseRow
from harness.spec import RunSpec
from harness.store import Store
from tests.comparison_sides import PACKAGES, PLATFORM, make_run
from tests.conftest import MATRIX

SECOND = 10**9


def write_folder(
    folder: Path,
    change: Callable[[RunSide], RunSide] = lambda run: run,
    *,
    matrix_text: str = MATRIX,
    seeds: Sequence[int] = (0,),
    packages: Mapping[str, str | None] = PACKAGES,
) -> Path:
    """Write a study whose runs are `make_run`'s, changed; a run without a status is planned and not run."""
    matrix = parse_matrix(matrix_text, "tiny.yaml", asks_trl=False)
    specs = expand(matrix, seeds=seeds)
    store = Store(folder)
    store.prepare()
    planned = tuple(PlannedRun(run_id=s.run_id, pair=s.pair, arm=s.arm, seed=s.seed) for s in specs)
    store.write_study(
        Study(
            matrix_name=matrix.name,
            matrix_text=matrix_text,
            matrix_hash=matrix_hash(matrix, {}),
            margins_hash=margins_hash(matrix),
            planned=planned,
            created_utc="2026-01-02T03:04:05Z",
            harness_version="0.1.0",
            command="harness bench --matrix tiny",
        )
    )
    for spec in specs:
        run = change(make_run(spec.pair, spec.arm, spec.method, spec.seed))
        if run.status is not None:
            _write_run(store, spec, run, packages)
    return folder


def _write_run(
    store: Store, spec: RunSpec, run: RunSide, packages: Mapping[str, str | None]
) -> None:
    store.write_spec(spec)
    attempt = store.new_attempt(spec.run_id)
    environment = {
        "format": 1,
        "python": "CPython 3.11.7",
        "packages": dict(packages),
        "platform": PLATFORM,
        "variables": {"OMP_NUM_THREADS": "1"},
        "installed": {"sha256": "c" * 64, "list": []},
        "gpus": [],
    }
    (attempt / "environment.json").write_text(json.dumps(environment))
    (attempt / "resolved_config.json").write_text(json.dumps({"format": 1, **run.config}))
    (attempt / "steps.jsonl").write_text("".join(f"{row}\n" for row in _rows(run)))
    phase = PhaseRow(phase="train", begin_ns=0, end_ns=len(run.tokens) * SECOND)
    (attempt / "phases.jsonl").write_text(phase.model_dump_json() + "\n")
    if run.probe is not None:
        (attempt / PROBE_FILE).write_text(run.probe.model_dump_json())
    status = run.status or Status.OK
    result = Result(
        status=status,
        reason=run.reason,
        steps_done=len(run.tokens),
        evaluations=run.evaluations,
        adapter_sha256=run.adapter_sha256,
        device="cpu",
    )
    ended = Attempt(
        number=1,
        status=status,
        reason=run.reason,
        launcher="local",
        started_utc="2026-01-02T03:04:05Z",
        ended_utc="2026-01-02T03:04:35Z",
        wall_s=30.0,
        exit=Exit(code=0),
    )
    store.seal(
        Record(
            run_id=spec.run_id,
            harness_version="0.1.0",
            status=status,
            reason=run.reason,
            attempt=1,
            attempts=(ended,),
            result=result,
        )
    )


def _rows(run: RunSide) -> list[str]:
    rows = []
    for i, tokens in enumerate(run.tokens):
        logs = {key: values[i] for key, values in run.series.items() if i < len(values)}
        row = StepRow(
            step=i + 1,
            begin_ns=i * SECOND,
            end_ns=i * SECOND + int((run.step_wall_s[i] or 0) * SECOND),
            tokens=None if tokens is None else int(tokens),
            samples=8,
            logs=logs,
        )
        rows.append(row.model_dump_json())
    return rows
