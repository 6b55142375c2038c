"""`harness export`: a study's numbers for other programs.

What this leaves out: the formats (`export`, `benchmark_json`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.errors import StudyError
from harness.options import STUDY

if TYPE_CHECKING:
    from harness.view import StudyView

EXIT_NOTHING = 6
FORMATS = ("pytest-benchmark", "json", "csv")
EXAMPLES = """\b
Examples:
  harness export results/cpu --format pytest-benchmark -o before.json
  pytest-benchmark compare before.json after.json --group-by name
  harness export results/cpu --format csv | head
"""


@click.command(epilog=EXAMPLES)
@STUDY
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    help="pytest-benchmark: step times of each arm; json, csv: data.json and runs.csv of the report",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="default: stdout"
)
def export(study: Path, form: str, output: Path | None) -> int:
    """Write a study's numbers for other programs. Exit 6 if it has none."""
    from harness.files import disk_errors, write_atomically
    from harness.store import Store
    from harness.terminal import complain
    from harness.view import load_view

    view = load_view(Store(study))
    for problem in view.problems:
        complain(problem)
    content = convert(view, form)
    if content is None:
        complain(
            f"{str(study)!r} has no run that ended ok with a step after warm-up "
            f"({view.matrix.warmup_steps_excluded} steps); see `harness runs ls {study}`"
        )
        return EXIT_NOTHING
    if output is None:
        click.echo(content, nl=False)
    else:
        with disk_errors(output):
            write_atomically(output, content)
    return StudyError.exit_code if view.problems else 0


def convert(view: StudyView, form: str) -> bytes | None:
    """Write a study in a format; None if it has nothing to say in it."""
    from harness.benchmark_json import benchmark_json
    from harness.export import data_json, runs_csv
    from harness.recovery import utc_text
    from harness.series import learning_curves
    from harness.traces import memory_trace

    if form == "pytest-benchmark":
        return benchmark_json(view)
    if form == "csv":
        return runs_csv(view)
    figures = {p: (learning_curves(view, p), memory_trace(view, p)) for p in view.matrix.pairs}
    return data_json(view, figures, utc_text(datetime.now(UTC)))
