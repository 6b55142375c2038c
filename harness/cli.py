"""The commands: parse, call one function, print, map errors to exit codes.

stdout is the answer; progress and messages go to stderr. Modules that do the work are imported
inside the commands, so that `harness --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from harness import __version__
from harness.baselining import baseline
from harness.benching import bench
from harness.bisecting import bisect
from harness.browse import matrix, runs
from harness.checkup import doctor
from harness.comparing import compare
from harness.errors import EXIT_INTERRUPTED, ConfigError, HarnessError, StudyError
from harness.exchange import fetch, publish
from harness.exporting import export
from harness.flops import flops
from harness.forecasting import forecast
from harness.housekeeping import environments
from harness.judging import claims, verdict
from harness.options import JSON, STUDY, Commands
from harness.planning import plan

EXAMPLES = """\b
Examples:
  harness bench                                 run the embedded default matrix
  harness bench --matrix smollm2 --jobs 2       SmolLM2-135M on real text
  harness bench --filter 'grpo-*' --seeds 0-2   some of its runs
  harness bench --set max_steps=20 --output-dir results/short
  harness runs ls results/cpu                   what ran, and how it ended
  harness report results/cpu                    render the report again
"""


def main() -> None:
    """Run the command line and exit with the code of what happened."""
    # Or workers, started as `python -m`, would import a `trl` folder that lies where the command was given,
    # such as in a checkout of TRL.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
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


for command in (
    *(bench, compare, bisect, baseline, verdict, claims, runs, matrix, plan),
    *(doctor, fetch, publish, export, flops, forecast, environments),
):
    cli.add_command(command)


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


if __name__ == "__main__":
    main()
