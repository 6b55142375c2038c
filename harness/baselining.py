"""`harness baseline`: save a study as a baseline, look at baselines, replace one, accept a change.

What this leaves out: what is done (`shelf`), what is refused (`promotion`) and the files (`baselines`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.options import JSON, Commands

if TYPE_CHECKING:
    from harness.baseline_card import Acknowledgements, Baseline, Provenance

EXAMPLES = """\b
Examples:
  harness baseline save results/upgrade --name upgrade-trl-1.16.0
  harness baseline list
  harness compare upgrade-trl-1.16.0 results/upgrade-trl-1.17.0
  harness baseline acknowledge upgrade-trl-1.16.0 'grpo-*:loss' --version 'trl 1.17.0' \\
      --reason 'the loss is divided by the number of active tokens now'
  harness baseline promote results/upgrade-trl-1.17.0 upgrade-trl-1.16.0
"""
FOLDER = click.Path(path_type=Path)


@click.group(cls=Commands, epilog=EXAMPLES)
def baseline() -> None:
    """Keep what a study came to, to compare later ones with."""


@baseline.command()
@click.argument("study", type=FOLDER)
@click.option("--name", metavar="NAME", help="default MATRIX-trl-VERSION")
@click.option(
    "--to",
    "home",
    type=FOLDER,
    metavar="DIR",
    help="the folder that holds baselines; default benchmarks/baselines",
)
@JSON
def save(study: Path, name: str | None, home: Path | None, is_json: bool) -> int:
    """Save a study as a new baseline."""
    from harness.baselines import HOME
    from harness.compare.reading import read_side
    from harness.shelf import save_study
    from harness.terminal import complain

    folder = save_study(study, name, home or HOME, read_side, complain)
    click.echo(json.dumps({"baseline": str(folder)}) if is_json else f"baseline: {folder}")
    return 0


@baseline.command("list")
@click.option("--in", "home", type=FOLDER, metavar="DIR", help="list those of this folder alone")
@JSON
def list_command(home: Path | None, is_json: bool) -> int:
    """List the baselines; one that is damaged is named on stderr."""
    from harness.baselines import list_baselines, read_acknowledgements, read_summary
    from harness.errors import StudyError
    from harness.terminal import answer_console, complain, plain_table

    code = 0
    table = plain_table("baseline", "of", "matrix", "recorded", "runs", "tree", "acknowledged")
    for folder in list_baselines((home,) if home else None).values():
        try:
            kept, accepted = read_summary(folder), read_acknowledgements(folder)
        except StudyError as error:
            complain(str(error))
            code = error.exit_code
            continue
        if is_json:
            click.echo(json.dumps(_line(kept, accepted)))
        else:
            table.add_row(*_row(kept, accepted))
    if not is_json:
        answer_console().print(table)
    return code


@baseline.command()
@click.argument("name")
@JSON
def show(name: str, is_json: bool) -> int:
    """Show a baseline: what it was made of, a line a run, and what is acknowledged."""
    from harness.baselines import read_acknowledgements, read_summary, require_baseline

    folder = require_baseline(name)
    kept, accepted = read_summary(folder), read_acknowledgements(folder)
    if is_json:
        data = kept.model_dump(mode="json") | accepted.model_dump(mode="json", exclude={"format"})
        click.echo(json.dumps(data, indent=1))
    else:
        _print(kept, accepted)
    return 0


@baseline.command()
@click.argument("study", type=FOLDER)
@click.argument("name")
@click.option(
    "--across-machines",
    is_flag=True,
    help="take a study of another machine: memory and speed start anew",
)
def promote(study: Path, name: str, across_machines: bool) -> int:
    """Replace a baseline by a study that is fit to be one."""
    from harness.compare.reading import read_side
    from harness.shelf import promote_study
    from harness.terminal import complain

    folder = promote_study(study, name, read_side, complain, across_machines=across_machines)
    click.echo(f"baseline: {folder}")
    return 0


@baseline.command()
@click.argument("name")
@click.argument("what")
@click.option("--reason", default="", help="why the change is right")
@click.option(
    "--version", default="", metavar="'PACKAGE RELEASE'", help="what brought it, e.g. 'trl 1.16.0'"
)
@click.option("--by", default="", help="who accepted it")
@click.option("--remove", "removes", is_flag=True, help="take an acknowledgement back")
def acknowledge(name: str, what: str, reason: str, version: str, by: str, removes: bool) -> int:
    """Accept a change: WHAT is a selector over pair.arm and a kind, e.g. 'sft-*:loss'.

    Comparisons still show it, with its reason; it no longer fails them.
    """
    from harness.baselines import require_baseline
    from harness.compare.model import Acknowledged
    from harness.recovery import utc_text
    from harness.shelf import add_entry, remove_entry

    folder = require_baseline(name)
    now = utc_text(datetime.now(UTC))
    entry = Acknowledged(what=what, reason=reason, version=version, by=by, utc=now)
    kept = remove_entry(folder, what, version) if removes else add_entry(folder, entry)
    click.echo(f"{len(kept.acknowledged)} acknowledged in {folder}")
    return 0


def _line(kept: Baseline, accepted: Acknowledgements) -> dict[str, Any]:
    return {
        "baseline": kept.name,
        "label": kept.label,
        "matrix": kept.matrix_name,
        "matrix_hash": kept.matrix_hash,
        "created_utc": kept.created_utc,
        "made_of": kept.made_of.model_dump(mode="json"),
        "runs": len(kept.runs),
        "runs_ok": _ok(kept),
        "acknowledged": len(accepted.acknowledged),
    }


def _row(kept: Baseline, accepted: Acknowledgements) -> tuple[str, ...]:
    from harness.text import harmless

    cells = (
        kept.name,
        kept.label,
        kept.matrix_name,
        kept.created_utc,
        f"{_ok(kept)} of {len(kept.runs)} ok",
        _tree(kept.made_of),
        str(len(accepted.acknowledged)),
    )
    return tuple(harmless(cell) for cell in cells)


def _ok(kept: Baseline) -> int:
    return sum(run.status == "ok" for run in kept.runs.values())


def _tree(made_of: Provenance) -> str:
    commits = ", ".join(commit[:12] for commit in made_of.commits) or "commit unknown"
    return f"{commits}, dirty" if made_of.is_dirty else commits


def _print(kept: Baseline, accepted: Acknowledgements) -> None:
    """Print a baseline for people."""
    from harness import text
    from harness.terminal import answer_console, plain_table

    shown = text.harmless
    packages = ", ".join(f"{name} {v}" for name, v in sorted(kept.packages.items()) if v)
    facts = {
        "of": kept.label,
        "matrix": f"{kept.matrix_name} {kept.matrix_hash[:12]}",
        "recorded": f"{kept.created_utc} with harness {kept.harness_version}",
        "tree": _tree(kept.made_of),
        "machine": ", ".join(f"{k} {v}" for k, v in kept.platform.items() if v is not None),
        "packages": packages,
    }
    click.echo(kept.name)
    for name, value in facts.items():
        click.echo(f"  {name:10} {shown(value)}")
    table = plain_table("run", "status", "metric", "final", "first loss", "last loss", "growth")
    for cell, run in kept.runs.items():
        growth = next((v for v in run.growth_bytes.values() if v is not None), None)
        table.add_row(
            shown(cell),
            run.status.value if run.status else "not run",
            run.metric or "",
            *(text.number(v, 6) for v in (run.final_value, run.first_loss, run.last_loss)),
            text.memory(growth),
        )
    answer_console().print(table)
    for word, entries in (("acknowledged", accepted.acknowledged), ("retired", accepted.retired)):
        for entry in entries:
            when = f"{entry.version}, {entry.utc}" + (f", {entry.by}" if entry.by else "")
            click.echo(shown(f"{word}: {entry.what} ({when}): {entry.reason}"))
