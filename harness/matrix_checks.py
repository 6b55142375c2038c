"""What a matrix asks for that can't be: names nobody knows, arguments that don't fit together.

Works on the plain data of a file, not on the parsed model, and passes over whatever has the wrong
shape: so a file with a misspelt key is still told of its misspelt dataset, in one pass. What this
leaves out: shapes and types, which are the models' (`spec`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from harness.arguments import (
    check_arguments,
    check_batches,
    check_translation,
    known_arguments,
)
from harness.catalog import HEAD, MODELS, TARGETS, TIED_HEAD
from harness.errors import did_you_mean
from harness.objective import contradictions, objective_arguments
from harness.releases import head_problem, installed_versions
from harness.settings import DATASETS, REWARDS
from harness.spec import Pair, Task

_EMBEDDED = Path(__file__).parent / "worker" / "assets"
_Data = dict[str, Any]
_Update = tuple[int, int | None]  # processes, sequences an update
_Layer = tuple[str, _Data]  # where it stands, its arguments


def check_matrix(
    data: _Data,
    where: str,
    overrides: _Data | None = None,
    *,
    is_whole: bool = True,
    asks_trl: bool = True,
) -> list[str]:
    """List what a matrix asks for that can't be, one sentence each.

    `is_whole` is False where values were left out that the file does give. `asks_trl` is False where
    the installed TRL need not know its arguments: a study that another release trained is read.
    """
    problems: list[str] = []
    shared = _map(data.get("trainer"))
    for task in get_args(Task):
        arguments = shared.get(task)
        if arguments and asks_trl:
            problems += check_arguments(task, _map(arguments), f"{where}: trainer.{task}")
    for name, pair in _map(data.get("pairs")).items():
        at = f"{where}: pairs.{name}"
        problems += _check_names(_map(pair), at)
        for task in get_args(Task):
            if _map(pair).get("task") == task:
                layer = {} if pair.get("leaves_defaults") is True else _map(shared.get(task))
                layers = ((f"{where}: trainer.{task}", layer), ("--set", overrides or {}))
                problems += _check_trainer(task, layers, pair, at, is_whole)
                if asks_trl:
                    problems += _check_release(task, layers, pair, at)
    return problems


def applied_overrides(task: Task, overrides: _Data) -> _Data:
    """Keep the overrides that a task's config knows."""
    known = known_arguments(task)
    return {k: v for k, v in overrides.items() if not known or k in known}


def embedded_models() -> list[str]:
    """The names that 'embedded:NAME' may take."""
    return (
        sorted(p.parent.name for p in _EMBEDDED.glob("*/config.json")) if _EMBEDDED.is_dir() else []
    )


def _check_names(pair: _Data, at: str) -> Iterator[str]:
    dataset = _map(pair.get("dataset")).get("name")
    if isinstance(dataset, str) and dataset not in DATASETS:
        yield _unknown(f"{at}.dataset.name", dataset, sorted(DATASETS))
    source = _map(pair.get("model")).get("source")
    kind, _, model = source.partition(":") if isinstance(source, str) else ("", "", "")
    if kind == "embedded" and model not in embedded_models():
        known = [f"embedded:{name}" for name in embedded_models()]
        yield _unknown(f"{at}.model.source", str(source), known)
    reward = pair.get("reward")
    if pair.get("task") == "grpo" and reward not in REWARDS:
        if reward is None or isinstance(reward, str):
            yield _unknown(f"{at}.reward", reward, REWARDS)
    elif pair.get("task") == "sft" and reward is not None:
        yield f"{at}.reward: found {reward!r}, but an sft pair has no reward; remove it"
    yield from _check_other_rewards(pair, at)
    arms = _map(pair.get("arms"))
    baseline = pair.get("baseline", Pair.model_fields["baseline"].default)
    if arms and isinstance(baseline, str) and baseline not in arms:
        yield _unknown(f"{at}.baseline", baseline, list(arms), "one of its arms: ")
    if pair.get("task") == "sft" and pair.get("objective", "trl") != "trl":
        yield f"{at}.objective: found {pair['objective']!r}, but an sft pair has none; remove it"
    for name, arm in arms.items():
        first = _map(arm).get("again_of")
        if isinstance(first, str) and (first not in arms or first == name):
            known = [other for other in arms if other != name]
            yield _unknown(f"{at}.arms.{name}.again_of", first, known, "another arm of the pair: ")
        if _map(arm).get("parallel") is not None and pair.get("probe") is not None:
            yield f"{at}.arms.{name}.parallel: a probed run has one process; remove this or the probe"
        asked = _map(_map(arm).get("lora")).get("target_modules")
        yield from _check_targets(asked, source, f"{at}.arms.{name}.lora.target_modules")


def _check_other_rewards(pair: _Data, at: str) -> Iterator[str]:
    others = pair.get("other_rewards")
    if not isinstance(others, list | tuple) or not others:
        return
    if pair.get("task") == "sft":
        yield f"{at}.other_rewards: an sft pair has no reward; remove it"
        return
    for name in others:
        if isinstance(name, str) and name not in REWARDS:
            yield _unknown(f"{at}.other_rewards", name, REWARDS)


def _check_targets(asked: Any, source: Any, at: str) -> Iterator[str]:
    """Check the layers of an adapter; names in a list only where the model's layers are known."""
    if isinstance(asked, str) and asked not in TARGETS:
        yield _unknown(at, asked, list(TARGETS), "a list of layer names or one of ")
        return
    names = TARGETS.get(asked) if isinstance(asked, str) else asked
    if not isinstance(names, list | tuple) or not isinstance(source, str):
        return
    repository = source.removeprefix("toy:")
    layers = TARGETS["all-linear+lm_head"] or ()
    if repository in MODELS or source == "smollm2" or source.startswith("embedded:"):
        for name in names:
            if isinstance(name, str) and name.rpartition(".")[2] not in layers:
                yield _unknown(at, name, layers, "layers of this model: ")
    if HEAD in names and repository in MODELS and MODELS[repository].is_tied:
        yield f"{at}: {TIED_HEAD}"


def _check_trainer(
    task: Task, outer: tuple[_Layer, _Layer], pair: _Data, at: str, is_whole: bool
) -> Iterator[str]:
    own = _map(pair.get("trainer"))
    below, (_, overrides) = outer
    applied = applied_overrides(task, overrides)
    updates: dict[str, _Update] = {}
    for name, arm in _map(pair.get("arms")).items():
        where = f"{at}.arms.{name}"
        arguments = _map(_map(arm).get("trainer"))
        merged = {**below[1], **own, **arguments, **applied}
        if task == "grpo":
            objective = pair.get("objective", "trl")
            against = list(contradictions(objective, merged, where))
            yield from against
            merged |= {} if against else objective_arguments(objective, merged)
        processes = _map(_map(arm).get("parallel")).get("processes")
        count = processes if isinstance(processes, int) and processes > 0 else 1
        yield from check_batches(task, merged, where, count)
        updates[name] = _update(merged, count)
        yield from _check_difference(pair, arguments, where)
        lasts = {"max_steps", "num_train_epochs"} & merged.keys() or _map(pair.get("budgets"))
        if is_whole and not lasts:
            yield f"{where}: has neither max_steps nor num_train_epochs; set one, or budgets"
    yield from _check_updates(updates, at)


def _check_release(task: Task, outer: tuple[_Layer, _Layer], pair: _Data, at: str) -> Iterator[str]:
    """Check the arguments of a pair and its arms against the installed TRL."""
    own, objective = _map(pair.get("trainer")), pair.get("objective", "trl")
    below, (override, overrides) = outer
    applied = applied_overrides(task, overrides)
    yield from check_arguments(task, own, f"{at}.trainer")
    for name, arm in _map(pair.get("arms")).items():
        where = f"{at}.arms.{name}.trainer"
        arguments = _map(_map(arm).get("trainer"))
        yield from check_arguments(task, arguments, where)
        problem = head_problem(installed_versions()) if _adapts_head(arm) else None
        if problem:
            yield f"{at}.arms.{name}.lora.target_modules: {problem}"
        merged = {**below[1], **own, **arguments, **applied}
        goal = objective_arguments(objective, merged) if task == "grpo" else {}
        layers = (below, (f"{at}.trainer", own), (where, arguments), (override, applied))
        yield from check_translation(task, (*layers, (f"{at}.objective", goal)))


def _adapts_head(arm: Any) -> bool:
    asked = _map(_map(arm).get("lora")).get("target_modules")
    names = TARGETS.get(asked) if isinstance(asked, str) else asked
    return isinstance(names, list | tuple) and HEAD in names


def _update(arguments: _Data, processes: int) -> _Update:
    """Count the sequences of one update, over all processes; None where a value is no number."""
    batch = arguments.get("per_device_train_batch_size", 8)
    accumulation = arguments.get("gradient_accumulation_steps", 1)
    is_known = isinstance(batch, int) and isinstance(accumulation, int)
    return processes, batch * accumulation * processes if is_known else None


def _check_updates(updates: dict[str, _Update], at: str) -> Iterator[str]:
    """Arms in different numbers of processes have updates of one size, or more GPUs would win."""
    sizes = {name: size for name, (_, size) in updates.items() if size is not None}
    if len({count for count, _ in updates.values()}) > 1 and len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield (
            f"{at}: arms in different numbers of processes learn from different numbers of sequences "
            f"an update ({found}); make per_device_train_batch_size × gradient_accumulation_steps × "
            "processes equal, and declare the difference"
        )


def _check_difference(pair: _Data, arguments: _Data, where: str) -> Iterator[str]:
    default = Pair.model_fields["declared_differences"].default
    declared = pair.get("declared_differences", default)
    if not isinstance(declared, list | tuple) or not all(isinstance(d, str) for d in declared):
        return  # said already, by the model
    for key in sorted(set(arguments) - set(declared)):
        yield (
            f"{where}.trainer.{key}: arms may differ only in {', '.join(declared)}; move it to the "
            "pair, or add it to declared_differences"
        )


def _unknown(
    at: str, found: str | None, known: list[str] | tuple[str, ...], one_of: str = "one of "
) -> str:
    hint = did_you_mean(found or "", known)
    return f"{at}: found {found!r}{hint}, expected {one_of}{', '.join(known) or '(none here)'}"


def _map(value: Any) -> _Data:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
