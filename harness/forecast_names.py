"""What a file of runs names, looked up before a step is traced: models, layers, optimizers, GPUs.

A trace takes libraries and half a minute; a name is known at once. What this leaves out: shapes that no
library would build, which the trace itself refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.catalog import ATTENTION_LAYERS, HEAD, MLP_LAYERS, TARGETS, TIED_HEAD, ModelFacts
from harness.errors import ConfigError, did_you_mean
from harness.forecast_file import AskedRun
from harness.rates import RateCard
from harness.subject import is_traced, untraced

LAYERS = (*ATTENTION_LAYERS, *MLP_LAYERS, HEAD)


def check_names(runs: Mapping[str, AskedRun], card: RateCard, file: str) -> None:
    """Look up every name of the runs.

    Raises: ConfigError listing every name that is unknown.
    """
    problems = [p for name, run in runs.items() for p in _unknown(run, card, f"{file}: {name}")]
    if problems:
        raise ConfigError(*problems)


def _unknown(run: AskedRun, card: RateCard, at: str) -> Iterator[str]:
    try:
        facts = run.facts(at)
    except ConfigError as error:
        yield from error.problems
        facts = None
    if not is_traced(run.optim):
        yield f"{at}: {untraced(run.optim)}"
    if run.lora is not None:
        for problem in _unknown_layers(run.lora.target_modules, facts):
            yield f"{at}: lora.target_modules: {problem}"
    if run.gpu is not None and run.gpu not in card.gpus:
        yield (
            f"{at}: gpu: {run.gpu!r} is not on the rate card{did_you_mean(run.gpu, card.gpus)}; expected "
            f"one of {', '.join(map(repr, card.gpus))}, or a card that has it with --rate-card FILE"
        )


def _unknown_layers(asked: str | tuple[str, ...], facts: ModelFacts | None) -> Iterator[str]:
    """Say what of an adapter's layers a model of the catalog's architectures does not have."""
    if isinstance(asked, str) and asked not in TARGETS:
        yield (
            f"found {asked!r}{did_you_mean(asked, TARGETS)}, expected one of {', '.join(TARGETS)}, or a "
            "list of layer names"
        )
        return
    names = (TARGETS[asked] if isinstance(asked, str) else asked) or ()
    for name in names:
        if name.rpartition(".")[2] not in LAYERS:
            guess = did_you_mean(name, LAYERS)
            yield f"found {name!r}{guess}, expected some of {', '.join(LAYERS)}"
    if facts is not None and facts.is_tied and any(n.rpartition(".")[2] == HEAD for n in names):
        yield TIED_HEAD
