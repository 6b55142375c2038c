"""The commands: parse, call one function, print, map errors to exit codes.

stdout is the answer; progress and messages go to stderr. Modules that do the work are imported
inside the commands, so that `harness --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.errors import EXIT_INTERRUPTED, ConfigError, HarnessError, StudyError, did_you_mean

if TYPE_CHECKING:
    from harness.store import Store
    from harness.view import RunView, StudyView

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
  harness bench --matrix cpu --filter grpo-micro-sum --seeds 0,1,2
  harness bench --matrix my.yaml --set learning_rate=3e-4 --output-dir results/mine
  harness bench --matrix smollm2 --dry-run
"""


class Commands(click.Group):
    """A group that suggests the nearest command and shows errors without a traceback."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, with a suggestion for a misspelt one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            raise click.UsageError(
                f"no command {args[0]!r}{did_you_mean(args[0], known)}; expected one of "
                + ", ".join(known),
                ctx,
            )
        return super().resolve_command(ctx, args)


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        answer = cli.main(args=list(arguments), prog_name="harness", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except HarnessError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
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


def _numbers(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Parse '0,1,4-6' as seeds."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.BadParameter(f"found {text!r}, expected seeds such as 0,1,2 or 0-4")
        if dash and int(last) - int(first) > 10_000:
            raise click.BadParameter(f"found {text!r}, expected at most 10,000 seeds")
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    if not seeds:
        raise click.BadParameter(f"found {text!r}, expected at least one seed")
    return tuple(seeds)


def _settings(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """Parse key=value pairs, values as YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"found {pair!r}, expected key=value, e.g. learning_rate=3e-4")
        try:
            values[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError:
            raise click.BadParameter(f"found {pair!r}, expected a plain value after '='") from None
    return values


def _matrix_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from harness.matrix import shipped_matrices

    return [name for name in shipped_matrices() if name.startswith(incomplete)]


MATRIX = click.option(
    "--matrix",
    "-m",
    default="cpu",
    show_default=True,
    metavar="NAME|PATH",
    shell_complete=_matrix_names,
    help="a shipped matrix, or a YAML file",
)
JSON = click.option("--json", "is_json", is_flag=True, help="machine-readable answer on stdout")
STUDY = click.argument("study", type=click.Path(path_type=Path), default=Path("results/cpu"))
POSITIVE = click.IntRange(min=1)


@cli.command(epilog=BENCH_EXAMPLES)
@MATRIX
@click.option(
    "--set",
    "overrides",
    multiple=True,
    callback=_settings,
    metavar="KEY=VALUE",
    help="a trainer argument, by TRL's own name; for every run that knows it",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="PATTERN",
    help="only runs whose pair.arm.sSEED matches, e.g. 'grpo-*' or '*.full.*'",
)
@click.option(
    "--seeds", callback=_numbers, metavar="LIST", help="instead of the matrix's, e.g. 0,1,2 or 0-4"
)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="study folder; default results/MATRIX",
)
@click.option(
    "--launcher",
    type=click.Choice(["local"]),
    default="local",
    show_default=True,
    help="where runs execute",
)
@click.option("--jobs", "-j", type=POSITIVE, help="runs side by side; default one a core, or a GPU")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True
)
@click.option(
    "--cold", "is_cold", is_flag=True, help="a fresh interpreter per run instead of a fork"
)
@click.option(
    "--retry-failed", is_flag=True, help="try runs again that ended nan, diverged or out of memory"
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
    "memory_gib",
    type=click.FloatRange(min=0, min_open=True),
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
@click.option("--no-report", is_flag=True, help="leave the report for `harness report`")
@click.option("--dry-run", is_flag=True, help="list the runs and stop")
@JSON
@click.option("--quiet", "-q", is_flag=True, help="problems only")
def bench(
    matrix: str, overrides: dict[str, Any], filters: tuple[str, ...], seeds: tuple[int, ...] | None,
    output_dir: Path | None, launcher: str, jobs: int | None, device: Any, is_cold: bool,
    retry_failed: bool, timeout_s: int | None, stall_s: int | None, grace_s: float,
    memory_gib: float | None, sampler_hz: float, no_report: bool, dry_run: bool, is_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Run a matrix; the same command again goes on where it stopped."""
    from harness.bench import Request, make_plan
    from harness.bench import bench as run_matrix
    from harness.launch.local import LocalLauncher
    from harness.progress import choose_display

    request = Request(
        matrix=matrix,
        output_dir=output_dir,
        overrides=overrides,
        filters=filters,
        seeds=seeds,
        jobs=jobs,
        device=device,
        retries_failed=retry_failed,
        sampler_hz=sampler_hz,
        memory_limit_bytes=round(memory_gib * 2**30) if memory_gib else None,
        timeout_s=timeout_s,
        stall_s=stall_s,
        grace_s=grace_s,
        renders_report=not no_report,
        command=_command(matrix, filters, overrides, seeds),
    )
    if dry_run:
        plan = make_plan(request)
        for spec in plan.specs:
            line = {"run_id": spec.run_id, "cell": spec.cell, "task": spec.task, "seed": spec.seed}
            click.echo(json.dumps(line) if is_json else spec.run_id)
        return 0
    display = choose_display(is_json=is_json, is_quiet=quiet)
    launchers = {"local": LocalLauncher}
    outcome = run_matrix(request, launchers[launcher](is_cold=is_cold), display)
    if outcome.report is not None:
        if not is_json:
            _print_findings(outcome.store)
            click.echo(f"report: {outcome.report / 'index.html'}")
        failed = sum(s is None or s.value != "ok" for s in outcome.statuses.values())
        if failed:
            _complain(
                f"{failed} of {len(outcome.statuses)} runs did not end ok; see `harness runs ls "
                f"{outcome.store.root}` and `harness runs logs`"
            )
    return outcome.exit_code


@cli.command()
@STUDY
@JSON
def report(study: Path, is_json: bool) -> int:
    """Render a study's report again from its raw files."""
    from harness.bench import write_report
    from harness.store import Store
    from harness.view import load_view

    store = Store(study)
    view = load_view(store)
    folder = write_report(store)
    for problem in view.problems:
        _complain(problem)
    if is_json:
        click.echo((folder / "data.json").read_text(encoding="utf-8"), nl=False)
    else:
        _print_findings(store)
        click.echo(f"report: {folder / 'index.html'}")
    return StudyError.exit_code if view.problems else 0


@cli.group(cls=Commands)
def runs() -> None:
    """Look at the runs of a study."""


@runs.command("ls")
@STUDY
@JSON
def runs_ls(study: Path, is_json: bool) -> int:
    """List every planned run and how it ended."""
    from harness.store import Store
    from harness.view import load_view

    view = load_view(Store(study))
    if is_json:
        for run in view.runs:
            click.echo(json.dumps(_run_line(run)))
    else:
        _print_runs(view)
    for problem in view.problems:
        _complain(problem)
    return StudyError.exit_code if view.problems else 0


@runs.command("show")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("run")
def runs_show(study: Path, run: str) -> int:
    """Show one run as JSON: spec, record, derived figures. RUN is an id or pair.arm.sSEED."""
    found = _find_run(study, run)
    data = {
        "spec": found.spec.model_dump(mode="json") if found.spec else None,
        "record": found.record.model_dump(mode="json") if found.record else None,
        "summary": found.summary.model_dump(mode="json") if found.summary else None,
    }
    click.echo(json.dumps(data, indent=1))
    return 0


@runs.command("logs")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("run")
@click.option("--attempt", type=POSITIVE, help="which try; default the last")
def runs_logs(study: Path, run: str, attempt: int | None) -> int:
    """Print a run's output and errors, escape codes removed."""
    from harness.store import Store
    from harness.text import harmless

    found = _find_run(study, run)
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

    store = Store(study)
    problems = []
    planned = store.read_study().planned
    for run in planned:
        try:
            problems += store.verify(run.run_id)
        except StudyError as error:
            problems.append(str(error))
    for problem in problems:
        _complain(problem)
    if not problems:
        click.echo(f"{len(planned)} runs: every record and raw file is as it was sealed")
    return StudyError.exit_code if problems else 0


@cli.group(cls=Commands)
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
@click.argument("name", shell_complete=_matrix_names)
@JSON
def matrix_show(name: str, is_json: bool) -> int:
    """Show a matrix: every arm's arguments, and where each comes from."""
    from harness.matrix import expand as expand_matrix
    from harness.matrix import load_matrix, origin

    loaded = load_matrix(name).matrix
    specs = expand_matrix(loaded)
    if is_json:
        for spec in specs:
            origins = {k: origin(loaded, spec, k, {}) for k in spec.trainer}
            line = {"run_id": spec.run_id, **spec.model_dump(mode="json"), "origin": origins}
            click.echo(json.dumps(line))
        return 0
    click.echo(f"{loaded.name}: {loaded.title}\nseeds {', '.join(map(str, loaded.seeds))}")
    shown = set()
    for spec in specs:
        if (spec.pair, spec.arm) in shown:
            continue
        shown.add((spec.pair, spec.arm))
        click.echo(
            f"\n{spec.pair}.{spec.arm}: {spec.task} of {spec.model.shown} on {spec.dataset.name}"
        )
        if spec.lora:
            click.echo(
                f"  LoRA r={spec.lora.r} alpha={spec.lora.lora_alpha:g} on {spec.lora.target_modules}"
            )
        for key, value in sorted(spec.trainer.items()):
            click.echo(f"  {key} = {value}   [{origin(loaded, spec, key, {})}]")
    return 0


@cli.command()
@MATRIX
@JSON
def doctor(matrix: str, is_json: bool) -> int:
    """Check this machine: versions, GPU, memory, disk, and what a matrix needs."""
    from harness.doctor import examine

    checks = examine(matrix)
    for check in checks:
        click.echo(
            json.dumps(check.as_dict()) if is_json else f"{check.word:7} {check.name}: {check.text}"
        )
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


def _find_run(study: Path, wanted: str) -> RunView:
    from harness.store import Store
    from harness.view import load_view

    view = load_view(Store(study))
    matching = [
        r for r in view.runs
        if wanted in (r.planned.run_id, f"{r.planned.pair}.{r.planned.arm}.s{r.planned.seed}")
    ]  # fmt: skip
    if matching:
        return matching[0]
    known = [r.planned.run_id for r in view.runs]
    raise ConfigError(
        f"run {wanted!r} is not in this study{did_you_mean(wanted, known)}; `harness runs ls` lists them"
    )


def _run_line(run: RunView) -> dict[str, Any]:
    record, summary = run.record, run.summary
    return {
        "run_id": run.planned.run_id,
        "pair": run.planned.pair,
        "arm": run.planned.arm,
        "seed": run.planned.seed,
        "status": record.status.value if record else None,
        "reason": record.reason if record else None,
        "attempts": len(record.attempts) if record else 0,
        "metric": summary.metric if summary else None,
        "final_value": summary.final_value if summary else None,
        "wall_s": summary.wall_s if summary else None,
    }


def _print_runs(view: StudyView) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.text import harmless

    table = Table(box=None, pad_edge=False, title=Text(f"study {view.name}"), title_justify="left")
    for name in ("run", "status", "attempts", "metric", "wall s", "reason"):
        table.add_column(name, overflow="fold")
    for run in view.runs:
        line = _run_line(run)
        value = line["final_value"]
        metric = "" if value is None else f"{line['metric']} {value:.4f}"
        wall = "" if line["wall_s"] is None else f"{line['wall_s']:.0f}"
        cells = (line["run_id"], line["status"] or "not run", str(line["attempts"]), metric, wall,
                 harmless(line["reason"] or ""))  # fmt: skip
        table.add_row(*(Text(c) for c in cells))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_findings(store: Store) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.claims import sentence
    from harness.report import findings_rows
    from harness.text import harmless
    from harness.view import load_view

    view = load_view(store)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(Text(harmless(sentence(view.findings)), style="bold"))
    table = Table(box=None, pad_edge=False)
    for name in ("pair", "arm", "worse by", "memory", "tokens/s", "verdict"):
        table.add_column(name)
    for row in findings_rows(view):
        cells = (row.pair, row.arm, row.gap, row.memory, row.speed, row.word)
        table.add_row(*(Text(harmless(c)) for c in cells))
    console.print(table)


def _command(
    matrix: str, filters: Sequence[str], overrides: dict[str, Any], seeds: Sequence[int] | None
) -> str:
    """The command that makes the study again, places left out."""
    import shlex

    words = ["harness", "bench", "--matrix", Path(matrix).name if "/" in matrix else matrix]
    words += [w for f in filters for w in ("--filter", f)]
    words += [w for k, v in overrides.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    words += ["--seeds", ",".join(map(str, seeds))] if seeds else []
    return shlex.join(words)


def _complain(text: str) -> None:
    from harness.text import harmless

    for line in text.splitlines():
        click.echo(
            f"harness: {harmless(line)}" if not line.startswith("  ") else harmless(line), err=True
        )


Command = Callable[..., int]

if __name__ == "__main__":
    main()
