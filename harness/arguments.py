"""The arguments of TRL's configs, read from their source text without importing them.

The supervisor has to refuse `learning_rat=1e-4` before a worker spends ten seconds importing TRL, and
it may not import an ML library. So the dataclass fields of the installed SFTConfig, GRPOConfig and
TrainingArguments are read with `ast`: names and the plain types in their annotations. Ranges that
those classes leave to a crash in mid-run (a learning rate of -1) are checked here too. An argument
that the installed release has under another name, or can do without, is known as well (`translation`).

What this leaves out: defaults and cross-field rules of TRL, which the worker meets for real.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import did_you_mean
from harness.releases import installed_versions
from harness.spec import Task
from harness.translation import CONFIGS, resolve, translatable

# Class by class, the nearest first: (package, file, class).
_SOURCES: dict[Task, tuple[str, str, str]] = {
    "sft": ("trl", "trainer/sft_config.py", CONFIGS["sft"]),
    "grpo": ("trl", "trainer/grpo_config.py", CONFIGS["grpo"]),
}
_SHARED = (
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/base_config.py", "BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)
# Arguments that a matrix may not set, and why: the harness sets them, or they would break what a
# record stands for.
RESERVED = {
    "output_dir": "is set by the attempt's folder",
    "seed": "is set by the matrix's `seeds`",
    "data_seed": "is set by the matrix's `seeds`",
    "use_cpu": "is set by the device the launcher chose",
    "model_init_kwargs": "is set by the pair's `model`",
    "disable_tqdm": "is set by the supervisor's own display",
    "logging_steps": "is 1 in every run: a row of steps.jsonl holds one step's tokens and time",
    "logging_strategy": "is 'steps' in every run: a row of steps.jsonl is one step",
    "logging_nan_inf_filter": "is off in every run: a loss that is not a number has to be seen",
    "eval_strategy": "would evaluate within the time of training; use the pair's `evaluation`",
    "eval_steps": "would evaluate within the time of training; use `evaluation.every_steps`",
    "eval_on_start": "would evaluate within the time of training; step 0 is evaluated anyway",
    "resume_from_checkpoint": "would continue another run: every attempt starts from its model",
    "push_to_hub": "would upload from within a measured run",
    "hub_model_id": "would upload from within a measured run",
    "hub_token": "is a secret, and a study's files are made to be published",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}
# (lowest allowed, whether it is itself allowed, highest allowed or None)
_RANGES: dict[str, tuple[float, bool, float | None]] = {
    "learning_rate": (0, False, None),
    "per_device_train_batch_size": (1, True, None),
    "per_device_eval_batch_size": (1, True, None),
    "gradient_accumulation_steps": (1, True, None),
    "logging_steps": (1, True, None),
    "max_steps": (1, True, None),
    "num_train_epochs": (0, False, None),
    "max_length": (1, True, None),
    "max_completion_length": (1, True, None),
    "num_generations": (2, True, None),
    "num_iterations": (1, True, None),
    "steps_per_generation": (1, True, None),
    "generation_batch_size": (1, True, None),
    "temperature": (0, False, None),
    "top_p": (0, False, 1),
    "weight_decay": (0, True, None),
    "max_grad_norm": (0, True, None),
    "warmup_steps": (0, True, None),
    "beta": (0, True, None),
}


@cache
def installed_arguments(task: Task) -> dict[str, str]:
    """Return name → annotation for a task's TRL config; empty where TRL is not installed."""
    fields: dict[str, str] = {}
    for package, file, class_name in (_SOURCES[task], *_SHARED):
        for name, annotation in _dataclass_fields(package, file, class_name).items():
            fields.setdefault(name, annotation)
    return fields


@cache
def known_arguments(task: Task) -> frozenset[str]:
    """Name what a matrix may give a task: what is installed has, or a translation is written for."""
    installed = installed_arguments(task)
    return frozenset(installed) | translatable(task) if installed else frozenset()


def check_arguments(task: Task, arguments: dict[str, Any], where: str) -> list[str]:
    """List what is wrong with trainer arguments, one sentence each.

    What depends on several arguments together is `check_translation`'s.
    """
    known = known_arguments(task)
    problems = []
    for name, value in arguments.items():
        at = f"{where}.{name}"
        if name in RESERVED:
            problems.append(f"{at}: {RESERVED[name]}; remove it")
        elif known and name not in known:
            hint = did_you_mean(name, known)
            problems.append(f"{at}: the installed TRL's {CONFIGS[task]} has no such argument{hint}")
        else:
            problems += _check_value(task, at, name, value)
    return problems


def check_translation(task: Task, layers: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """List the arguments that the installed TRL can't be given, each where it was set.

    `layers` are (where, arguments), the later winning. Only arguments that all layers together
    settle are judged here: a vLLM field that the release lacks may be left out without vLLM.
    """
    installed = installed_arguments(task)
    if not installed:
        return []
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, arguments in layers:
        merged.update(arguments)
        origin.update(dict.fromkeys(arguments, where))
    known = known_arguments(task) - RESERVED.keys()
    given = {name: value for name, value in merged.items() if name in known}
    refused = resolve(task, given, installed, installed_versions()).refused
    return [f"{origin[name]}.{sentence}" for name, sentence in refused.items()]


def check_batches(
    task: Task, arguments: dict[str, Any], where: str, processes: int = 1
) -> list[str]:
    """Check what the arguments mean together: a generation batch, of all processes, holds whole groups.

    Source: GRPOConfig, `generation_batch_size` must be divisible by `num_generations`.
    """
    if task != "grpo":
        return []
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_generations")
    batch, accumulation, group = (
        arguments.get(n, d) for n, d in zip(names, (8, 1, 8), strict=True)
    )
    per_generation = arguments.get("steps_per_generation") or accumulation
    size = arguments.get("generation_batch_size")
    if not all(isinstance(v, int) and v > 0 for v in (batch, per_generation, group)):
        return []  # said already, value by value
    times = f" × {processes} processes" if processes > 1 else ""
    if isinstance(size, int) and arguments.get("steps_per_generation") is not None:
        return [
            f"{where}: found generation_batch_size={size} and steps_per_generation={per_generation}, "
            "but TRL takes one of the two; set the other to null"
        ]
    if isinstance(size, int) and size % (batch * processes):
        return [
            f"{where}: generation_batch_size={size} can't be split into batches of "
            f"per_device_train_batch_size={batch}{times}; make the first a multiple of the second"
        ]
    completions = size if isinstance(size, int) else batch * per_generation * processes
    if completions % group:
        return [
            f"{where}: {completions} completions per generation (per_device_train_batch_size × "
            f"steps_per_generation{times}) can't be split into groups of num_generations={group}; make "
            "the first a multiple of the second"
        ]
    return []


def _check_value(task: Task, at: str, name: str, value: Any) -> list[str]:
    """Check a value as the installed release is given it: by another name or spelling, maybe."""
    installed = installed_arguments(task)
    if name not in translatable(task) or not installed:
        return _check_plain(at, name, value, installed.get(name, ""))
    passed = resolve(task, {name: value}, installed, installed_versions()).passed
    return [p for n, v in passed.items() for p in _check_plain(at, n, v, installed[n])]


def _check_plain(at: str, name: str, value: Any, annotation: str) -> list[str]:
    allowed = _plain_types(annotation)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if allowed and (
        (type(value) is bool and bool not in allowed) or not isinstance(value, allowed)
    ):
        return [f"{at}: found {value!r}, expected {annotation.strip()}"]
    if name in _RANGES and is_number:
        low, is_included, high = _RANGES[name]
        if value < low or (value == low and not is_included) or (high is not None and value > high):
            bound = f"{'at least' if is_included else 'above'} {low:g}"
            bound += f" and at most {high:g}" if high is not None else ""
            return [f"{at}: found {value!r}, expected a number {bound}"]
    return []


def _plain_types(annotation: str) -> tuple[type, ...]:
    """The Python types of an annotation such as 'float | None'; empty if any part is not plain."""
    inner = annotation.strip()
    if inner.startswith("Optional[") and inner.endswith("]"):
        inner = inner[len("Optional[") : -1] + " | None"
    types: tuple[type, ...] = ()
    for part in inner.split("|"):
        found = _TYPES.get(part.strip())
        if found is None:
            return ()
        types += found
    return types


def _dataclass_fields(package: str, file: str, class_name: str) -> dict[str, str]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        return {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return {
                statement.target.id: ast.unparse(statement.annotation)
                for statement in node.body
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            }
    return {}
