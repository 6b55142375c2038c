"""`harness forecast FILE`: the memory of training runs, before anything is downloaded or allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.options import JSON

if TYPE_CHECKING:
    from harness.forecast import Forecast
    from harness.forecast_file import AskedRun

EXAMPLES = """\b
Examples:
  harness forecast tests/data/forecast-public.yaml
  harness forecast my-runs.yaml --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--rate-card",
    "rate_card",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="your own GPUs and their context, instead of the shipped ones",
)
@JSON
def forecast(file: Path, rate_card: Path | None, is_json: bool) -> int:
    """Forecast the peak memory of the runs in FILE, by term, with an interval.

    A run's training step is traced through the libraries' own code on tensors without memory, and
    replayed through torch's caching allocator. Needs torch installed, no GPU and no weights.
    """
    from harness.errors import ConfigError
    from harness.forecast_file import load_forecast_file
    from harness.forecast_tables import print_forecast, printed
    from harness.gpu_classes import classes, is_hopper
    from harness.rates import load_rates
    from harness.terminal import complain
    from harness.trace_cache import can_trace, traces

    asked = load_forecast_file(file).runs
    card = load_rates(rate_card)
    gpus = {name: card.gpu(run.gpu)[0] for name, run in asked.items()}
    subjects = {name: run.subject(f"{file.name}: {name}") for name, run in asked.items()}
    if not can_trace():
        raise ConfigError(
            "torch, transformers, trl and peft are not all installed: nothing can be traced"
        )
    questions = [(subjects[name], run.length.longest) for name, run in asked.items()]
    found = traces(questions, lambda done, of: complain(f"traced {done} of {of}"))
    failed = 0
    for (name, run), trace in zip(asked.items(), found, strict=True):
        if isinstance(trace, str):
            complain(f"{name}: {trace}")
            failed += 1
            continue
        made = _forecast(run, trace, card, is_hopper(gpus[name]))
        if is_json:
            click.echo(json.dumps(printed(name, run, made, classes(card))))
        else:
            print_forecast(name, run, made, classes(card))
    return ConfigError.exit_code if failed else 0


def _forecast(run: AskedRun, trace: Any, card: Any, is_hopper: bool) -> Forecast:
    from harness.forecast import forecast_on_cpu, forecast_training

    if run.device == "cpu":
        return forecast_on_cpu(trace, run.length.longest)
    return forecast_training(
        trace,
        run.length,
        batch=run.batch,
        is_hopper=is_hopper,
        empties_every=run.empties_cache_every,
        beyond_torch=card.bare_context_bytes.value,
    )
