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

from harness.errors import MachineError
from harness.measure.pace import HZ
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
    Seconds,
    WithNegatives,
    gib_to_bytes,
)

if TYPE_CHECKING:
    from harness.bench import Outcome
    from harness.plan import Plan, Request
    from harness.progress import Display
    from harness.ready import Ready
    from harness.spec import RunSpec
    from harness.stacks import Stack

EXCLUSIVE_WAIT_S = 600

BENCH_EXAMPLES = """\b
Examples:
  harness bench
  harness bench --matrix cpu --filter grpo-arithmetic --seeds 0,1,2
  harness bench --matrix my.yaml --set learning_rate=3e-4 --output-dir results/mine
  harness bench --matrix smollm2 --dry-run
  harness bench --matrix blog --rehearse        see that every arm runs, without a GPU
  harness bench --matrix blog --budget short
  harness bench --trl 1.14.2 --trl 1.16.0                    a study for each, in an environment for each
  harness bench --trl ../trl --with transformers==4.57.6     an edited TRL, an older transformers
  harness bench --matrix smollm3 --trl 1.14.2 --trl 1.16.0 --interleave     seed by seed, A B then B A
  harness bench --launcher docker --trl 1.14.2 --trl 1.16.0
"""


# Options that bench() does not name are fields of plan.Request, by their names there.
@click.command(cls=WithNegatives, epilog=BENCH_EXAMPLES)
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
    default=HZ,
    show_default=True,
    help="memory samples a second; fewer where they would take more than 1 % of a core for each 50",
)
@click.option(
    "--exclusive",
    "exclusive_wait_s",
    type=Seconds(),
    is_flag=False,
    flag_value=EXCLUSIVE_WAIT_S,
    metavar="SECONDS",
    help="train only on GPUs that no other program uses: wait so long for one (600 unless said), and try a "
    "run again whose GPU a stranger came to",
)
@click.option(
    "--report/--no-report",
    "renders_report",
    default=True,
    help="whether to render the report at the end",
)
@click.option(
    "--forecast/--no-forecast",
    "forecasts_memory",
    default=True,
    help="whether to forecast each arm's memory before the report: seconds an arm, once",
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
    metavar="VERSION|PATH",
    help="the TRL to train with: a release, 'current', a wheel, or a folder with its source; several: a "
    "study for each. With --launcher docker the release that the image has to hold",
)
@click.option(
    "--with",
    "extras",
    multiple=True,
    metavar="NAME==VERSION|PATH",
    help="another package in each environment, e.g. transformers==4.57.6, or peft=PATH",
)
@click.option(
    "--interleave",
    "is_interleaved",
    is_flag=True,
    help="with several --trl: seed by seed in turn, A B then B A, so that what disturbs the machine falls "
    "on all of them",
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
    extras: tuple[str, ...],
    is_interleaved: bool,
    is_cold: bool,
    dry_run: bool,
    is_json: bool,
    quiet: bool,
    **asked: Any,
) -> int:
    """Run a matrix; the same command again goes on where it stopped."""
    from harness.installed import look
    from harness.plan import Request, command_text, make_plan
    from harness.progress import choose_display
    from harness.stacks import Asked, find_stacks
    from harness.turns import in_turn

    command = command_text(asked, launcher, image, versions, extras)
    request = Request(**asked, command=command).with_matrix()
    plan = make_plan(request)
    has_gpu = bool(plan.slots[0].gpu)
    stacks = find_stacks(
        Asked(launcher, image, versions, extras),
        request.output_dir,
        plan.output_dir,
        has_gpu=has_gpu,
        here=look().versions if versions or extras else {},
    )
    if dry_run:
        return _list_runs(plan.specs, stacks, is_json)
    ready = _make_ready(stacks, plan, choose_display(is_json=is_json, is_quiet=quiet), is_cold)
    if len(stacks) > 1:
        _check_all(ready, plan, request)
    turns = (
        in_turn(ready, request, plan.loaded.matrix)
        if is_interleaved
        else [(each, request) for each in ready]
    )
    return _run_all(turns, is_json, quiet)


def _run_all(turns: Sequence[tuple[Ready, Request]], is_json: bool, is_quiet: bool) -> int:
    """Run the matrix with every stack; an environment that can't even start leaves the others theirs."""
    from harness.progress import choose_display
    from harness.terminal import complain

    codes: dict[str, int] = {}
    lost: set[str] = set()
    for each, request in turns:
        name = each.stack.name
        if name in lost:
            continue
        own = replace(request, output_dir=each.stack.output_dir, stack=each.stack.label)
        try:
            outcome = _run(own, each, choose_display(is_json=is_json, is_quiet=is_quiet), is_json)
        except MachineError as error:
            if not each.stack.packages:
                raise
            complain(f"{name}: {error}")
            codes[name] = error.exit_code
            lost.add(name)
            continue
        codes[name] = outcome.exit_code
        if outcome.interrupted_by is not None:
            return outcome.exit_code
    return max(codes.values(), default=0)


def _make_ready(
    stacks: Sequence[Stack], plan: Plan, display: Display, is_cold: bool
) -> list[Ready]:
    """Make every environment that is asked for, before the first run trains."""
    from harness.progress import Event
    from harness.ready import make_ready

    def tell(text: str) -> None:
        display.emit(Event("note", text, {}))

    return [make_ready(stack, plan.foreseen, tell, is_cold=is_cold) for stack in stacks]


def _check_all(ready: Sequence[Ready], plan: Plan, request: Request) -> None:
    """Look at every image or environment that is still needed, before the first run trains."""
    from harness.bench import unfinished
    from harness.store import Store

    for each in ready:
        store = Store(each.stack.output_dir or plan.output_dir)
        pending = unfinished(store, plan.foreseen, request)
        if pending:
            each.launcher.check(pending)


def _run(request: Request, ready: Ready, display: Display, is_json: bool) -> Outcome:
    from harness.bench import bench as run_matrix
    from harness.progress import Event

    for note in ready.notes:
        display.emit(Event("note", f"{ready.stack.name}: {note}", {"stack": ready.stack.name}))
    outcome = run_matrix(request, ready.launcher, display, ready.preflight)
    _tell(outcome, is_json)
    return outcome


def _list_runs(specs: Sequence[RunSpec], stacks: Sequence[Stack], is_json: bool) -> int:
    for stack in stacks:
        for spec in specs:
            line = {"run_id": spec.run_id, "cell": spec.cell, "task": spec.task, "seed": spec.seed}
            line |= {"trl": stack.trl} if stack.trl else {}
            line |= {"stack": stack.label} if stack.label else {}
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
