"""`harness forecast`: the memory of training runs, before anything is downloaded or allocated.

With `--study`, that of the arms of a study that has trained, kept beside it for its report's scorecard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.options import JSON

if TYPE_CHECKING:
    from harness.forecast import Forecast
    from harness.forecast_file import AskedRun
    from harness.memory_trace import Trace
    from harness.rates import RateCard
    from harness.view import StudyView

EXAMPLES = """\b
Examples:
  harness forecast tests/data/forecast-public.yaml
  harness forecast my-runs.yaml --json
  harness forecast --study results/cpu     forecast its arms anew, for the report's scorecard
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="forecast the arms of a study, and keep that as its forecast.json",
)
@click.option(
    "--rate-card",
    "rate_card",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="your own GPUs and their context, instead of the shipped ones",
)
@JSON
def forecast(file: Path | None, study: Path | None, rate_card: Path | None, is_json: bool) -> int:
    """Forecast the peak memory of the runs in FILE, or of a study's arms, by term, with an interval.

    A run's training step is traced through the libraries' own code on tensors without memory, and
    replayed through torch's caching allocator. Of GRPO the file says what samples the completions, or the
    step alone is forecast. Needs torch installed, no GPU and no weights.
    """
    from harness.errors import ConfigError

    if study is not None and file is None and rate_card is None:
        return _forecast_study(study, is_json)
    if study is not None or file is None:
        raise ConfigError("expected a FILE of runs, or --study STUDY alone")
    return _forecast_file(file, rate_card, is_json)


def _forecast_study(study: Path, is_json: bool) -> int:
    """Forecast a study's arms anew, keep that beside it, and print the scorecard."""
    from harness.errors import ConfigError
    from harness.store import Store
    from harness.study_forecast import keep_forecasts
    from harness.terminal import complain
    from harness.view import load_view

    store = Store(study)
    matrix = load_view(store).matrix
    with store.lock():
        made = keep_forecasts(
            store,
            matrix,
            is_anew=True,
            tell=lambda arms: complain(f"forecasting the memory of {arms} arms"),
            progress=lambda done, of: complain(f"traced {done} of {of}"),
        )
    if made is None:
        raise ConfigError(
            f"study {str(study)!r} has no arm whose memory could be forecast; expected one that has "
            "trained, and is neither a probe nor a rehearsal"
        )
    if is_json:
        for arm in made.arms:
            click.echo(json.dumps(arm.model_dump(mode="json")))
    else:
        _print_scorecard(load_view(store))
    return 0


def _print_scorecard(view: StudyView) -> None:
    """Print how far a study's runs lay from what they were forecast to hold."""
    from rich.text import Text

    from harness.scorecard_tables import (
        scorecard_runs_tables,
        scorecard_sentence,
        scorecard_tables,
    )
    from harness.terminal import answer_console, plain_table

    out = answer_console()
    for found in (*scorecard_tables(view), *scorecard_runs_tables(view)):
        out.print(Text(found.caption, style="bold"))
        table = plain_table(*found.columns)
        for row in found.rows:
            table.add_row(*map(Text, row))
        out.print(table)
    out.print(Text(scorecard_sentence(view)))


def _forecast_file(file: Path, rate_card: Path | None, is_json: bool) -> int:
    """Forecast the runs of a file."""
    from harness.errors import ConfigError
    from harness.forecast_file import load_forecast_file
    from harness.forecast_names import check_names
    from harness.forecast_tables import print_forecast, printed
    from harness.gpu_classes import classes
    from harness.rates import load_rates
    from harness.terminal import complain
    from harness.trace_cache import can_trace, traces

    asked = load_forecast_file(file).runs
    card = load_rates(rate_card)
    check_names(asked, card, file.name)
    if not can_trace():
        raise ConfigError(
            "torch, transformers, trl and peft are not all installed: nothing can be traced"
        )
    questions = [
        (run.subject(f"{file.name}: {name}"), run.length.longest) for name, run in asked.items()
    ]
    found = traces(questions, lambda done, of: complain(f"traced {done} of {of}"))
    failed = 0
    for (name, run), trace in zip(asked.items(), found, strict=True):
        if isinstance(trace, str):
            complain(f"{name}: {trace}")
            if is_json:
                click.echo(json.dumps({"run": name, "error": trace}))
            failed += 1
            continue
        made, fits = _forecast(name, run, trace, card, classes(card))
        if is_json:
            click.echo(json.dumps(printed(name, run, made, fits)))
        else:
            print_forecast(name, run, made, fits)
    return ConfigError.exit_code if failed else 0


def _forecast(
    name: str, run: AskedRun, trace: Trace, card: RateCard, classes: Mapping[str, int]
) -> tuple[Forecast, dict[str, str] | None]:
    """Forecast a run on its GPU, and say which classes of GPUs hold it; None where that can't be said."""
    from harness.arm_forecast import beside_training, fit_with_pool
    from harness.estimate import pool_problem
    from harness.forecast import forecast_on_cpu, forecast_training
    from harness.gpu_classes import is_hopper

    facts, load, spec = run.facts(name), run.workload(), run.spec(name)
    gpu, rates = card.gpu(run.gpu)
    if run.device == "cpu":
        step = forecast_on_cpu(trace, run.length.longest)
    else:
        step = forecast_training(
            trace,
            run.length,
            batch=run.batch,
            is_hopper=is_hopper(gpu),
            empties_every=run.empties_cache_every,
            beyond_torch=card.bare_context_bytes.value,
            batches=load.batches,
        )

    def made(size: int) -> Forecast:
        return beside_training(spec, facts, load, step, size)

    size = rates.memory_bytes.value
    whole, problem = made(size), pool_problem(facts, load, size)
    notes = (*whole.notes, *run.notes, *([f"on {gpu}: {problem}"] if problem else []))
    fits = None
    if run.is_whole and run.device == "cuda":
        fits = fit_with_pool(facts, load, made, classes)
    return whole.model_copy(update={"notes": notes}), fits
