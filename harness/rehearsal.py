"""A matrix made shorter or smaller: a named training budget, or a rehearsal that any laptop runs.

A rehearsal trains every arm of a matrix for two steps on the CPU without a network: the same
architecture at toy size with random weights, rows of the dataset's own schema in our own words, and
the matrix's own arguments but for lengths and batches, which are scaled down and said. It finds what
breaks when TRL, transformers or a schema changes, before a GPU hour is spent. It measures nothing.

What this leaves out: the toy models and the rows themselves (`worker/models`, `worker/data`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.catalog import DATASETS, MODELS
from harness.claim_checks import MOST_SEED
from harness.errors import ConfigError, did_you_mean
from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import Arm, Matrix, Pair, Task

STEPS = 2
BLOCK = 10_000  # between the seeds of one seed block and the next
TOY = "toy:"
# Highest value in a rehearsal; an argument below it keeps its own.
LENGTHS = {"max_length": 1024, "max_completion_length": 16}
ROWS = {"train_rows": 16, "validation_rows": 2, "test_rows": 4}
PROMPT_TOKENS = 1024  # a toy's tokens are bytes
ACCUMULATION = 2  # sft; in grpo as many as whole groups need
TIMEOUT_S, STALL_S = 600, 300


def adapt(
    matrix: Matrix, budget: str | None = None, *, rehearses: bool = False, seed_block: int = 0
) -> Matrix:
    """Return the matrix as a command runs it: its training budget, other seeds, or a rehearsal.

    Raises: ConfigError for a budget that the matrix does not have, or a model that has no toy.
    """
    adapted = with_seed_block(with_budget(matrix, budget), seed_block)
    return rehearsal_of(adapted) if rehearses else adapted


def with_seed_block(matrix: Matrix, block: int) -> Matrix:
    """Move every seed by `block` times BLOCK: the same study again, with nothing of its luck.

    Raises: ConfigError if a seed would leave what numpy takes.
    """
    if not block:
        return matrix
    shift = block * BLOCK
    offsets = [arm.seed_offset for pair in matrix.pairs.values() for arm in pair.arms.values()]
    chosen_on = matrix.selection.seeds if matrix.selection else ()
    if max((*matrix.seeds, *chosen_on)) + max(offsets) + shift > MOST_SEED:
        raise ConfigError(f"--seed-block {block}: expected seeds to stay below 2^32 with it")
    update: dict[str, Any] = {"seeds": tuple(seed + shift for seed in matrix.seeds)}
    if matrix.selection:
        seeds = tuple(seed + shift for seed in matrix.selection.seeds)
        update["selection"] = matrix.selection.model_copy(update={"seeds": seeds})
    return matrix.model_copy(update=update)


def with_budget(matrix: Matrix, name: str | None) -> Matrix:
    """Give every pair that has budgets the named one, or the matrix's own where none is named.

    Raises: ConfigError if a name was asked for that a pair does not have.
    """
    wanted = name or matrix.budget
    has = {n: pair for n, pair in matrix.pairs.items() if pair.budgets}
    if wanted is None:
        return matrix
    if not has:
        raise ConfigError(
            f"--budget {wanted}: matrix {matrix.name!r} has no budgets; set max_steps with --set "
            "max_steps=N instead"
        )
    missing = [n for n, pair in has.items() if wanted not in pair.budgets]
    if missing:
        known = sorted({b for pair in has.values() for b in pair.budgets})
        raise ConfigError(
            f"--budget {wanted!r} is unknown{did_you_mean(wanted, known)} to pair "
            f"{', '.join(missing)} of matrix {matrix.name!r}; expected one of {', '.join(known)}"
        )
    pairs = {n: _budgeted(pair, wanted) if n in has else pair for n, pair in matrix.pairs.items()}
    return matrix.model_copy(update={"budget": wanted, "pairs": pairs})


def rehearsal_of(matrix: Matrix) -> Matrix:
    """Return a matrix that rehearses another.

    Raises: ConfigError naming every model of which there is no toy.
    """
    no_toy = [
        f"pairs.{name}.model.source: no toy of {pair.model.source!r}"
        f"{did_you_mean(pair.model.source, MODELS)}; a rehearsal knows {', '.join(MODELS)}"
        for name, pair in matrix.pairs.items()
        if not _ships(pair.model) and pair.model.source not in MODELS
    ]
    if no_toy:
        raise ConfigError(*no_toy)
    notes = " ".join(rehearsal_notes(matrix))
    return matrix.model_copy(
        update={
            "title": f"Rehearsal of {matrix.name}: {matrix.title}",
            "description": f"Every arm for {STEPS} steps, to see that it runs. {notes}",
            "scale": "rehearsal",
            "device": "cpu",
            "timeout_s": TIMEOUT_S,
            "stall_s": STALL_S,
            "warmup_steps_excluded": 0,
            "trainer": {},
            "selection": None,
            "pairs": {n: _rehearsed(matrix, pair) for n, pair in matrix.pairs.items()},
        }
    )


def rehearsal_notes(matrix: Matrix) -> list[str]:
    """Say in sentences what a rehearsal of a matrix changes."""
    notes = []
    if not all(_ships(pair.model) for pair in matrix.pairs.values()):
        notes.append(
            "Models are toys of the same architecture with random weights and a byte tokenizer of "
            "their own."
        )
    if any(pair.dataset.name in DATASETS for pair in matrix.pairs.values()):
        notes.append("Rows of repositories are our own words in the dataset's schema.")
    if any(pair.task == "grpo" and not _ships(pair.model) for pair in matrix.pairs.values()):
        notes.append(
            "A toy earns no reward, so in training each completion's reward gets a small amount by its "
            "text on top: without it every advantage would be zero and nothing would be updated."
        )
    changed: dict[str, set[str]] = {}
    for pair in matrix.pairs.values():
        for arm in pair.arms.values():
            merged = {**pair.shared(matrix.trainer), **pair.trainer, **arm.trainer}
            for key, new in _scaled(pair.task, merged).items():
                old = merged.get(key)
                if old is not None and old != new:
                    changed.setdefault(key, set()).add(f"{old} → {new}")
            if arm.parallel:
                changed.setdefault("processes", set()).add(f"{arm.parallel.processes} → 1")
    scaled = "; ".join(f"{key} {', '.join(sorted(how))}" for key, how in sorted(changed.items()))
    return [*notes, f"Scaled down: {scaled}." if scaled else "No argument was scaled."]


def _budgeted(pair: Pair, name: Any) -> Pair:
    budget = pair.budgets[name]
    rows = budget.train_rows or pair.dataset.train_rows
    return pair.model_copy(
        update={
            "dataset": pair.dataset.model_copy(update={"train_rows": rows}),
            "trainer": {**pair.trainer, "max_steps": budget.max_steps},
            "evaluation": pair.evaluation.model_copy(update={"every_steps": budget.every_steps}),
        }
    )


def _rehearsed(matrix: Matrix, pair: Pair) -> Pair:
    layers = {**pair.shared(matrix.trainer), **pair.trainer}
    return pair.model_copy(
        update={
            "model": _toy(pair.model),
            "dataset": _few_rows(pair.dataset),
            "trainer": {**layers, **_scaled(pair.task, layers)},
            "evaluation": _short(pair.evaluation),
            "arms": {name: _alone(pair, arm, layers) for name, arm in pair.arms.items()},
        }
    )


def _alone(pair: Pair, arm: Arm, layers: Mapping[str, Any]) -> Arm:
    """The arm in one process, at one rate of its grid, its own arguments scaled like the pair's."""
    scaled = _scaled(pair.task, {**layers, **arm.trainer})
    own = {key: scaled.get(key, value) for key, value in arm.trainer.items()}
    rates = pair.arms[arm.rate_of].rates if arm.rate_of else arm.rates
    if rates:
        own["learning_rate"] = rates[len(rates) // 2]
    update = {"parallel": None, "trainer": own, "rates": (), "rate_of": None}
    return arm.model_copy(update=update)


def _scaled(task: Task, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a rehearsal gives another value."""
    new: dict[str, Any] = {"max_steps": STEPS}
    for name, most in LENGTHS.items():
        if isinstance(arguments.get(name), int):
            new[name] = min(arguments[name], most)
    if arguments.get("use_vllm"):
        new["use_vllm"] = False
    accumulation = arguments.get("gradient_accumulation_steps", 1)
    if task == "sft":
        new["gradient_accumulation_steps"] = min(accumulation, ACCUMULATION)
    elif not arguments.get("steps_per_generation") and not arguments.get("generation_batch_size"):
        batch = arguments.get("per_device_train_batch_size", 8)
        group = arguments.get("num_generations", 8)
        new["gradient_accumulation_steps"] = min(accumulation, math.lcm(batch, group) // batch)
    return new


def _toy(model: Model) -> Model:
    if _ships(model):
        return model
    label = f"toy of {model.shown}"
    return model.model_copy(update={"source": TOY + model.source, "label": label, "revision": None})


def _few_rows(dataset: DatasetSpec) -> DatasetSpec:
    update: dict[str, Any] = {
        "train_rows": min(dataset.train_rows or ROWS["train_rows"], ROWS["train_rows"]),
        "validation_rows": min(dataset.validation_rows, ROWS["validation_rows"]),
        "test_rows": min(dataset.test_rows, ROWS["test_rows"]),
    }
    if dataset.name in DATASETS:
        update |= {"rows_from": "fixture", "revision": None}
    if dataset.max_prompt_tokens is not None:
        update["max_prompt_tokens"] = min(dataset.max_prompt_tokens, PROMPT_TOKENS)
    return dataset.model_copy(update=update)


def _short(evaluation: Evaluation) -> Evaluation:
    update = {
        "every_steps": min(evaluation.every_steps, 1),
        "batch_size": min(evaluation.batch_size, ROWS["test_rows"]),
        "samples_per_prompt": 1,
    }
    return evaluation.model_copy(update=update)


def _ships(model: Model) -> bool:
    return model.source.startswith(("embedded:", TOY))
