"""The commands: parse, call one function, print, map errors to exit codes.

stdout is the answer; progress and messages go to stderr. Modules that do the work are imported
inside the commands, so that `harness --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.browse import matrix, runs
from harness.errors import EXIT_INTERRUPTED, ConfigError, HarnessError, StudyError
from harness.exchange import fetch, publish
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
    STUDY,
    Commands,
    gib_to_bytes,
)
from harness.planning import plan

if TYPE_CHECKING:
    from harness.bench import Outcome
    from harness.plan import Request

EXAMPLES = """\b
Examples:
  harness bench                                 run the embedded default matrix
  harness bench --matrix smollm2 --jobs 2       SmolLM2-135M on real text
  harness bench --filter 'grpo-*' --seeds 0-2   some of its runs
  harness bench --set max_steps=20 --output-dir results/short
  harness runs ls results/cpu                   what ran, and how it ended
  harness report results/cpu                    render the report again
"""
BENCH_EXAMPLES = """\b
Examples:
  harness bench
  harness bench --matrix cpu --filter grpo-arithmetic --seeds 0,1,2
  harness bench --matrix my.yaml --set learning_rate=3e-4 --output-dir results/mine
  harness bench --matrix smollm2 --dry-run
  harness bench --matrix blog --rehearse        see that every arm runs, without a GPU
  harness bench --matrix blog --budget short
"""
DOCTOR_EXAMPLES = """\b
Examples:
  harness doctor --matrix blog
  harness doctor --all                          what every matrix needs, and what fits here
  harness doctor --matrix blog --image lora-harness:cuda
"""


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        answer = cli.main(args=list(arguments), prog_name="harness", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except HarnessError as error:
        from harness.terminal import complain

        complain(str(error))
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0


@click.group(
    cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Does LoRA match full fine-tuning, at what memory?

    Trains every pair of a matrix both ways with TRL's own trainers, watches memory from outside, and
    renders a report with a finding per pair.
    """


for command in (runs, matrix, plan, fetch, publish):
    cli.add_command(command)


# Every option but launcher, cold, dry-run, json and quiet is a field of bench.Request, by its name there.
@cli.command(epilog=BENCH_EXAMPLES)
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
    type=click.Choice(["local"]),
    default="local",
    show_default=True,
    help="where runs execute",
)
@BUDGET
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
    launcher: str, is_cold: bool, dry_run: bool, is_json: bool, quiet: bool, **asked: Any
) -> int:
    """Run a matrix; the same command again goes on where it stopped."""
    from harness.bench import bench as run_matrix
    from harness.launch.local import LocalLauncher
    from harness.plan import Request, command_text
    from harness.progress import choose_display

    request = Request(**asked, command=command_text(asked))
    if dry_run:
        return _list_runs(request, is_json)
    launchers = {"local": LocalLauncher}
    display = choose_display(is_json=is_json, is_quiet=quiet)
    outcome = run_matrix(request, launchers[launcher](is_cold=is_cold), display)
    _tell(outcome, is_json)
    return outcome.exit_code


@cli.command()
@STUDY
@JSON
def report(study: Path, is_json: bool) -> int:
    """Render a study's report again from its raw files."""
    from harness.bench import write_report
    from harness.store import Store
    from harness.terminal import complain, print_findings

    store = Store(study)
    view = write_report(store)
    for problem in view.problems:
        complain(problem)
    if is_json:
        click.echo((store.report_dir / "data.json").read_text(encoding="utf-8"), nl=False)
    else:
        print_findings(view)
        click.echo(f"report: {store.report_dir / 'index.html'}")
    return StudyError.exit_code if view.problems else 0


@cli.command(epilog=DOCTOR_EXAMPLES)
@MATRIX
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="study folder whose disk is looked at; default results/MATRIX",
)
@MAP
@OFFLINE
@click.option(
    "--image", metavar="NAME", help="the image that is to train: is it there, does it fit"
)
@click.option("--all", "lists_all", is_flag=True, help="every shipped matrix too, a line each")
@JSON
def doctor(is_json: bool, **asked: Any) -> int:
    """Check this machine: driver, GPUs, disk, token, Docker, and what a matrix needs."""
    from harness.doctor import Asked, examine
    from harness.doctor_text import print_checks

    checks = examine(Asked(**asked))
    if is_json:
        for check in checks:
            click.echo(json.dumps(check.as_dict()))
    else:
        print_checks(checks, asked["matrix"])
    return max((check.exit_code for check in checks), default=0)


@cli.command()
def env() -> int:
    """Print versions, machine and GPUs as JSON, as a record keeps them."""
    from harness.measure.environment import capture_environment

    click.echo(json.dumps(capture_environment(), indent=1))
    return 0


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print shell completion; e.g. eval "$(harness completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"no completion for {shell!r}")
    click.echo(found(cli, {}, "harness", "_HARNESS_COMPLETE").source())
    return 0


def _list_runs(request: Request, is_json: bool) -> int:
    from harness.plan import make_plan

    for spec in make_plan(request).specs:
        line = {"run_id": spec.run_id, "cell": spec.cell, "task": spec.task, "seed": spec.seed}
        click.echo(json.dumps(line) if is_json else spec.run_id)
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


if __name__ == "__main__":
    main()
