"""The study that a command's runs join: a new one, or the one that its folder holds, if it is the same.

A study fixes what may not move once runs are known: matrix, margins, seed block, stack and looks. What this
leaves out: which runs there are (`plan`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from harness import __version__
from harness.errors import ConfigError
from harness.matrix import margins_hash, matrix_hash
from harness.plan import Plan, Request
from harness.record import PlannedRun, Study
from harness.recovery import utc_text
from harness.spec import Matrix, RunSpec
from harness.store import Store


def study_of(store: Store, plan: Plan, request: Request) -> Study:
    """Return the study as it is from now on: new, or the one that is there with more runs planned.

    Raises: ConfigError if the folder holds another study, or runs without one.
    """
    matrix, text = plan.loaded.matrix, plan.loaded.text
    planned = [planned_run(matrix, spec) for spec in plan.specs]
    hashed = matrix_hash(matrix, request.overrides)
    if store.exists():
        study = store.read_study()
        _refuse_another(store, study, matrix, hashed, request)
        have = {p.run_id for p in study.planned}
        more = [p for p in planned if p.run_id not in have]
        # Equal but for seeds and limits, in which the newer text holds: rates are chosen on its seeds.
        return study.model_copy(update={"planned": (*study.planned, *more), "matrix_text": text})
    if store.has_runs():
        raise ConfigError(
            f"{str(store.root)!r} holds runs but no study.json, which fixes their margins; restore it, "
            "or name another folder with --output-dir"
        )
    return Study(
        matrix_name=matrix.name,
        matrix_text=text,
        matrix_hash=hashed,
        margins_hash=margins_hash(matrix),
        overrides=request.overrides,
        planned=tuple(planned),
        created_utc=utc_text(datetime.now(UTC)),
        harness_version=__version__,
        command=request.command,
        budget=matrix.budget,
        is_rehearsal=request.rehearses,
        seed_block=request.seed_block,
        stack=request.stack,
        looks=request.looks(matrix),
    )


def planned_run(matrix: Matrix, spec: RunSpec) -> PlannedRun:
    """Return a run as study.json lists it."""
    is_chosen = spec.stage == "judge" and matrix.pairs[spec.pair].arms[spec.arm].is_swept
    return PlannedRun(
        run_id=spec.run_id,
        pair=spec.pair,
        arm=spec.arm,
        seed=spec.seed,
        grid_rate=spec.grid_rate,
        chosen_rate=float(str(spec.trainer["learning_rate"])) if is_chosen else None,
    )


def _refuse_another(
    store: Store, study: Study, matrix: Matrix, hashed: str, request: Request
) -> None:
    folder, other = f"study folder {str(store.root)!r}", "name another folder with --output-dir"
    if study.matrix_hash != hashed or study.seed_block != request.seed_block:
        what = (
            f"was made by matrix {study.matrix_name!r}"
            if study.matrix_name != matrix.name
            else f"was made by another version of matrix {matrix.name!r}, or with other --set, "
            "--budget, --seed-block or --rehearse"
        )
        raise ConfigError(f"{folder} {what}; {other}")
    if study.stack != request.stack:
        here = "what is installed beside the harness"
        raise ConfigError(
            f"{folder} is trained with {study.stack or here}, the command asks for "
            f"{request.stack or here}; {other}"
        )
    looks = request.looks(matrix)
    if request.until_decided and looks != study.looks:
        fixed = f"looks at {list(study.looks)} seeds" if study.looks else "one look"
        raise ConfigError(
            f"{folder} was planned with {fixed}, the command asks for {list(looks)}; looks share the "
            f"error rate and are fixed before the first run: {other}"
        )
