"""`harness bench`: run a matrix, here or in containers, with one or several releases of TRL.

What this leaves out: the stages of a bench (`bench`), and which image a version means (`stacks`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.options import (
    BUDGET,
    FILTER,
    JSON,
    MAP,
    MATRIX,
    OFFLINE,
    POSITIVE,
    SEEDS,
    SETTINGS,
    gib_to_bytes,
)

if TYPE_CHECKING:
    from harness.bench import Outcome
    from harness.launch import Launcher
    from harness.plan import Plan, Request
    from harness.spec import RunSpec
    from harness.stacks import Stack

BENCH_EXAMPLES = """\b
Examples:
  harness bench
  harness bench --matrix cpu --filter grpo-arithmetic --seeds 0,1,2
  harness bench --matrix my.yaml --set learning_rate=3e-4 --output-dir results/mine
  harness bench --matrix smollm2 --dry-run
  harness bench --matrix blog --rehearse        see that every arm runs, without a GPU
  harness bench --matrix blog --budget short
  harness bench --launcher docker --trl 1.14.2 --trl 1.16.0
"""


# Options that bench() does not name are fields of plan.Request, by their names there.
@click.command(epilog=BENCH_EXAMPLES)
@MATRIX
@SETTINGS
@FILTER
@SEEDS
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="study folder; default results/MATRIX",
)
@click.option("--jobs", "-j", type=POSITIVE, help="runs side by side; default one a core, or a GPU")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True
)
@click.option(
    "--retry-failed",
    "retries_failed",
    is_flag=True,
    help="try runs again that ended nan, diverged or out of memory",
)
@click.option("--timeout", "timeout_s", type=POSITIVE, metavar="SECONDS", help="limit of a run")
@click.option(
    "--stall", "stall_s", type=POSITIVE, metavar="SECONDS", help="end a run silent for so long"
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="between SIGTERM and SIGKILL",
)
@click.option(
    "--memory-limit",
    "memory_limit_bytes",
    type=click.FloatRange(min=0, min_open=True),
    callback=gib_to_bytes,
    metavar="GIB",
    help="limit on a worker's private memory",
)
@click.option(
    "--sampler-hz",
    type=click.FloatRange(1, 1000),
    default=20.0,
    show_default=True,
    help="memory samples a second",
)
@click.option(
    "--report/--no-report",
    "renders_report",
    default=True,
    help="whether to render the report at the end",
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "docker"]),
    default="local",
    show_default=True,
    help="where runs execute: processes of this machine, or a container each",
)
@click.option(
    "--image",
    metavar="NAME",
    help="the image of --launcher docker; {trl} stands for the version; default what `make image` "
    "or `make image-cpu` builds",
)
@click.option(
    "--trl",
    "versions",
    multiple=True,
    metavar="VERSION",
    help="the TRL release that the image has to hold; several: a study for each",
)
@BUDGET
@click.option(
    "--until-decided",
    is_flag=True,
    help="add seeds, in the matrix's looks, until no claim is inconclusive; the looks share the error rate",
)
@click.option(
    "--max-seeds",
    type=POSITIVE,
    metavar="N",
    help="where --until-decided ends; default the last look",
)
@click.option(
    "--seed-block",
    type=click.IntRange(min=0, max=1000),
    default=0,
    metavar="N",
    help="the same matrix on other seeds: every seed plus N times 10,000, in a study of its own",
)
@click.option(
    "--rehearse",
    "rehearses",
    is_flag=True,
    help="every arm for two steps on the CPU, offline: toys, rows of our own; no GPU hour is spent",
)
@click.option("--cold", "is_cold", is_flag=True, help="a fresh interpreter per run, not a fork")
@click.option("--dry-run", is_flag=True, help="list the runs and stop")
@MAP
@OFFLINE
@JSON
@click.option("--quiet", "-q", is_flag=True, help="problems only")
def bench(
    launcher: str,
    image: str | None,
    versions: tuple[str, ...],
    is_cold: bool,
    dry_run: bool,
    is_json: bool,
    quiet: bool,
    **asked: Any,
) -> int:
    """Run a matrix; the same command again goes on where it stopped."""
    from harness.plan import Request, command_text, make_plan
    from harness.stacks import find_stacks

    command = command_text(asked, launcher, image, versions)
    request = Request(**asked, command=command)
    plan = make_plan(request)
    has_gpu = bool(plan.slots[0].gpu)
    stacks = find_stacks(launcher, image, versions, request.output_dir, plan.output_dir, has_gpu)
    if dry_run:
        return _list_runs(plan.specs, stacks, is_json)
    launchers = [_launcher(stack, is_cold) for stack in stacks]
    if len(stacks) > 1:
        _check_all(stacks, launchers, plan, request)
    code = 0
    for stack, each in zip(stacks, launchers, strict=True):
        outcome = _run(replace(request, output_dir=stack.output_dir), each, is_json, quiet)
        code = max(code, outcome.exit_code)
        if outcome.interrupted_by is not None:
            return outcome.exit_code
    return code


def _check_all(
    stacks: Sequence[Stack], launchers: Sequence[Launcher], plan: Plan, request: Request
) -> None:
    """Look at every image that is still needed, before the first run trains."""
    from harness.bench import unfinished
    from harness.store import Store

    for stack, launcher in zip(stacks, launchers, strict=True):
        pending = unfinished(Store(stack.output_dir or plan.output_dir), plan.foreseen, request)
        if pending:
            launcher.check(pending)


def _launcher(stack: Stack, is_cold: bool) -> Launcher:
    if stack.image is None:
        from harness.launch.local import LocalLauncher

        return LocalLauncher(is_cold=is_cold)
    from harness.launch.docker import DockerLauncher

    return DockerLauncher(stack.image, trl=stack.trl)


def _run(request: Request, launcher: Launcher, is_json: bool, is_quiet: bool) -> Outcome:
    from harness.bench import bench as run_matrix
    from harness.progress import choose_display

    outcome = run_matrix(request, launcher, choose_display(is_json=is_json, is_quiet=is_quiet))
    _tell(outcome, is_json)
    return outcome


def _list_runs(specs: Sequence[RunSpec], stacks: Sequence[Stack], is_json: bool) -> int:
    for stack in stacks:
        for spec in specs:
            line = {"run_id": spec.run_id, "cell": spec.cell, "task": spec.task, "seed": spec.seed}
            line |= {"trl": stack.trl} if stack.trl else {}
            told = f"{spec.run_id}  {stack.name}" if len(stacks) > 1 else spec.run_id
            click.echo(json.dumps(line) if is_json else told)
    return 0


def _tell(outcome: Outcome, is_json: bool) -> None:
    """Print what a study came to."""
    from harness.terminal import complain, print_findings

    if outcome.view is not None and not is_json:
        print_findings(outcome.view)
        click.echo(f"report: {outcome.store.report_dir / 'index.html'}")
    failed = sum(s is None or s.value != "ok" for s in outcome.statuses.values())
    if failed and outcome.interrupted_by is None:
        complain(
            f"{failed} of {len(outcome.statuses)} runs did not end ok; see `harness runs ls "
            f"{outcome.store.root}` and `harness runs logs`"
        )
