"""Commands that look at what is there: the runs of a study, and the matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import ConfigError, StudyError, did_you_mean
from harness.options import BUDGET, JSON, POSITIVE, STUDY, Commands, complete_matrix

if TYPE_CHECKING:
    from harness.spec import Matrix, RunSpec
    from harness.view import RunView


@click.group(cls=Commands)
def runs() -> None:
    """Look at the runs of a study."""


@runs.command("ls")
@STUDY
@JSON
def runs_ls(study: Path, is_json: bool) -> int:
    """List every planned run and how it ended."""
    from harness.store import Store
    from harness.terminal import complain, print_runs, run_line
    from harness.view import load_view

    view = load_view(Store(study))
    if is_json:
        for run in view.every_run:
            click.echo(json.dumps(run_line(run)))
    else:
        print_runs(view)
    for problem in view.problems:
        complain(problem)
    return StudyError.exit_code if view.problems else 0


@runs.command("show")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("run")
def runs_show(study: Path, run: str) -> int:
    """Show one run as JSON: spec, record, derived figures. RUN is an id or pair.arm.sSEED."""
    from harness.terminal import complain

    found, problems = _find_run(study, run)
    data = {
        "spec": found.spec.model_dump(mode="json") if found.spec else None,
        "record": found.record.model_dump(mode="json") if found.record else None,
        "summary": found.summary.model_dump(mode="json") if found.summary else None,
    }
    click.echo(json.dumps(data, indent=1))
    for problem in problems:
        complain(problem)
    return StudyError.exit_code if problems else 0


@runs.command("logs")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("run")
@click.option("--attempt", type=POSITIVE, help="which try; default the last")
def runs_logs(study: Path, run: str, attempt: int | None) -> int:
    """Print a run's output and errors, escape codes removed."""
    from harness.store import Store
    from harness.text import harmless

    found, _ = _find_run(study, run)
    folders = Store(study).attempts(found.planned.run_id)
    if not folders or (attempt or 1) > len(folders):
        raise ConfigError(
            f"run {run!r} has {len(folders)} attempts, so there is no log of "
            f"{f'attempt {attempt}' if attempt else 'it'}; run `harness bench` first"
        )
    folder = folders[(attempt or len(folders)) - 1]
    for name in ("stdout.log", "stderr.log"):
        path = folder / name
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        click.echo(f"==> {folder.name}/{name} <==")
        click.echo("\n".join(harmless(line) for line in text.splitlines()))
    return 0


@runs.command("verify")
@STUDY
def runs_verify(study: Path) -> int:
    """Check every record and raw file against its checksum; exit 8 if one differs."""
    from harness.store import Store
    from harness.terminal import complain

    store = Store(study)
    problems = []
    planned = store.read_study().planned
    for run in planned:
        try:
            problems += store.verify(run.run_id)
        except StudyError as error:
            problems.append(str(error))
    for problem in problems:
        complain(problem)
    if not problems:
        click.echo(f"{len(planned)} runs: every record and raw file is as it was sealed")
    return StudyError.exit_code if problems else 0


@click.group(cls=Commands)
def matrix() -> None:
    """Look at the matrices."""


@matrix.command("ls")
@JSON
def matrix_ls(is_json: bool) -> int:
    """List the shipped matrices."""
    from harness.matrix import expand, load_matrix, shipped_matrices

    for name in shipped_matrices():
        loaded = load_matrix(name).matrix
        runs = len(expand(loaded))
        line = {"name": name, "title": loaded.title, "pairs": len(loaded.pairs), "runs": runs}
        click.echo(json.dumps(line) if is_json else f"{name:12} {runs:4} runs  {loaded.title}")
    return 0


@matrix.command("show")
@click.argument("name", shell_complete=complete_matrix)
@BUDGET
@JSON
def matrix_show(name: str, budget: str | None, is_json: bool) -> int:
    """Show a matrix: every arm's arguments, and where each comes from."""
    from harness.matrix import expand as expand_matrix
    from harness.matrix import load_matrix
    from harness.rehearsal import adapt

    loaded = adapt(load_matrix(name).matrix, budget)
    specs = expand_matrix(loaded)
    if is_json:
        for spec in specs:
            click.echo(json.dumps(_as_line(loaded, spec)))
        return 0
    length = f"\nbudget {loaded.budget}" if loaded.budget else ""
    click.echo(f"{loaded.name}: {loaded.title}\nseeds {', '.join(map(str, loaded.seeds))}{length}")
    shown = set()
    for spec in specs:
        if (spec.pair, spec.arm) not in shown:
            shown.add((spec.pair, spec.arm))
            _show_arm(loaded, spec)
    return 0


def _as_line(loaded: Matrix, spec: RunSpec) -> dict[str, Any]:
    """A run as plain data: its spec, its rate, and where each argument comes from."""
    from harness.matrix import origin

    arm = loaded.pairs[spec.pair].arms[spec.arm]
    return {
        "run_id": spec.run_id,
        **spec.model_dump(mode="json"),
        "revision_policy": revision_policy(spec),
        "learning_rate": spec.trainer.get("learning_rate"),
        "learning_rate_from": arm.rate_reason or origin(loaded, spec, "learning_rate", {}),
        "origin": {k: origin(loaded, spec, k, {}) for k in spec.trainer},
    }


def revision_policy(spec: RunSpec) -> str:
    """Say which commit of its repositories a run reads."""
    model, dataset = spec.model.revision or "main", spec.dataset.revision or "main"
    return f"model {model}, dataset {dataset}; resolved to commits when fetched, kept for the study's life"


def _show_arm(loaded: Matrix, spec: RunSpec) -> None:
    from harness.matrix import origin

    pair, arm = loaded.pairs[spec.pair], loaded.pairs[spec.pair].arms[spec.arm]
    click.echo(
        f"\n{spec.pair}.{spec.arm}: {spec.task} of {spec.model.shown} on {spec.dataset.name}"
    )
    if spec.model.source != spec.model.shown or spec.model.reason:
        why = f" ({spec.model.reason})" if spec.model.reason else ""
        click.echo(f"  repository {spec.model.source}{why}")
    if spec.lora:
        scaled = " rank-stabilised" if spec.lora.use_rslora else ""
        click.echo(
            f"  LoRA r={spec.lora.r} alpha={spec.lora.lora_alpha:g}{scaled} on {spec.lora.target_modules}"
        )
    if spec.task == "grpo":
        rewards = " + ".join((str(spec.reward), *spec.other_rewards))
        click.echo(f"  reward {rewards}, objective {pair.objective}")
    if spec.parallel:
        click.echo(f"  {spec.parallel.processes} processes, {spec.parallel.strategy}")
    if arm.again_of:
        click.echo(f"  trains {arm.again_of} once more, the same to the last bit")
    if spec.probe:
        checks = ", ".join(spec.probe.checks)
        click.echo(f"  probed{f'; after training: {checks}' if checks else ''}")
    if arm.rate_reason:
        click.echo(f"  learning rate from {arm.rate_reason}")
    for key, value in sorted(spec.trainer.items()):
        click.echo(f"  {key} = {value}   [{origin(loaded, spec, key, {})}]")


def _find_run(study: Path, wanted: str) -> tuple[RunView, list[str]]:
    """Find a run by id or cell, and what is wrong with its files."""
    from harness.store import Store
    from harness.view import load_view

    view = load_view(Store(study))
    matching = [
        r for r in view.every_run
        if wanted in (r.planned.run_id, r.planned.cell)
    ]  # fmt: skip
    if matching:
        run_id = matching[0].planned.run_id
        return matching[0], [p for p in view.problems if run_id in p]
    known = [r.planned.run_id for r in view.every_run]
    raise ConfigError(
        f"run {wanted!r} is not in this study{did_you_mean(wanted, known)}; `harness runs ls` lists them"
    )
