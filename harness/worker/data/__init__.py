"""The datasets a pair may name, one module each, behind one small contract.

A dataset module shows one raw row first (`SAMPLE`) and has `load(request) -> Splits`. It maps the
raw columns onto the ones TRL's trainers take:

* sft:  `prompt` and `completion`, both lists of chat messages; TRL then trains on the completion.
* grpo: `prompt`, a list of chat messages, and `solution`, the gold answer as text.

Splits depend on the dataset seed alone, never on a run's seed, so that every run of a pair trains
and is judged on the same rows. They are disjoint, but for the facts of `micro_facts`: what is
memorised shows on trained rows. Rows are generated, or read from the local folder of a repository, or
from the fixture: a few rows of the repository's schema in our own words, shipped here for rehearsals.
What this leaves out: tokenisation, which is TRL's, and downloads, which are the supervisor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.settings import DATASETS, DatasetSpec
from harness.spec import RunSpec

if TYPE_CHECKING:
    from datasets import Dataset

FIXTURES = Path(__file__).parent.parent / "assets" / "fixtures"


@dataclass(frozen=True)
class Splits:
    """The rows of a pair: train, validation (choices are made on it), test (judged on it, once)."""

    train: Dataset
    validation: Dataset
    test: Dataset
    unusable: tuple[str, ...] = field(default=())  # one sentence per row that could not be used
    notes: tuple[str, ...] = field(default=())  # what a reader of the result must know


@dataclass(frozen=True)
class Request:
    """What a pair asks of a dataset module."""

    task: str
    train_rows: int | None  # None is all that the held-out splits leave
    validation_rows: int
    test_rows: int
    seed: int
    options: dict[str, Any]
    folder: str | None = None  # where a repository's files lie; None for generated rows
    max_prompt_tokens: int | None = None
    tokenizer: Any = None  # the pair's, to count a prompt's tokens as it will be fed
    is_fixture: bool = False  # the folder is the shipped fixture


def limited(spec: RunSpec) -> DatasetSpec:
    """Return a run's dataset, with the trainer's `max_prompt_length` as a limit on its rows too.

    TRL cut longer prompts up to 0.27 and lets them through since; left out, they are the same rows
    under every release.
    """
    limits = (spec.dataset.max_prompt_tokens, spec.trainer.get("max_prompt_length"))
    given = [limit for limit in limits if isinstance(limit, int)]
    return spec.dataset.model_copy(update={"max_prompt_tokens": min(given, default=None)})


def load_splits(
    task: str, dataset: DatasetSpec, places: Mapping[str, str] | None = None, tokenizer: Any = None
) -> Splits:
    """Load the rows of a pair; `places` says in which folder a repository's files lie.

    Raises: ConfigError if the dataset has no module here or refuses the request.
    """
    module_name = DATASETS.get(dataset.name)
    if module_name is None:
        raise ConfigError(
            f"dataset {dataset.name!r} is unknown; expected one of {', '.join(sorted(DATASETS))}"
        )
    module = import_module(f"{__name__}.{module_name}")
    fixture = FIXTURES / module_name
    is_fixture = dataset.rows_from == "fixture" and fixture.is_dir()  # generated rows have none
    request = Request(
        task=task,
        train_rows=dataset.train_rows,
        validation_rows=dataset.validation_rows,
        test_rows=dataset.test_rows,
        seed=dataset.seed,
        options=dict(dataset.options),
        folder=str(fixture) if is_fixture else (places or {}).get(dataset.name),
        max_prompt_tokens=dataset.max_prompt_tokens,
        tokenizer=tokenizer,
        is_fixture=is_fixture,
    )
    splits: Splits = module.load(request)
    return splits
