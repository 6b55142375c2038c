"""Reads a matrix file, refuses what can't run, and expands it to runs.

YAML 1.2 through ruamel's safe loader (so `1e-4` is a number and a tag that would build an object is
an error), then strict pydantic models. Every problem of a file is listed at once, with its line.
Arguments are layered, the later winning: the harness's own, the matrix's for the task, the pair's,
the arm's, `--set`. What this leaves out: anything about the machine.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from harness.arguments import check_arguments, check_batches, known_arguments
from harness.errors import ConfigError, did_you_mean
from harness.spec import DATASETS, REWARDS, Arm, Matrix, Pair, RunSpec, content_hash

# What every run gets unless a matrix says otherwise: one log line a step, no files that nobody asked
# for, and a NaN that is seen rather than filtered out of the log.
HARNESS_ARGUMENTS: dict[str, Any] = {
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "save_strategy": "no",
    "eval_strategy": "no",
    "report_to": "none",
}
_SHIPPED = (
    Path(__file__).parent / "benchmarks",  # an installed wheel
    Path(__file__).parent.parent / "benchmarks",  # a checkout
)


@dataclass(frozen=True)
class LoadedMatrix:
    """A matrix and the text it came from."""

    matrix: Matrix
    text: str
    where: str  # how messages call it: a shipped name or the path as given


def shipped_matrices() -> dict[str, Path]:
    """Return name → file of the matrices that come with the harness."""
    for folder in _SHIPPED:
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load_matrix(name_or_path: str) -> LoadedMatrix:
    """Load a shipped matrix by name, or a file by path.

    Raises: ConfigError listing everything that is wrong with it.
    """
    shipped = shipped_matrices()
    path = shipped.get(name_or_path, Path(name_or_path))
    if name_or_path not in shipped and path.suffix not in (".yaml", ".yml") and not path.exists():
        raise ConfigError(
            f"matrix {name_or_path!r} is unknown{did_you_mean(name_or_path, shipped)}; expected one "
            f"of {', '.join(shipped) or 'none shipped'}, or the path of a .yaml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"matrix file {name_or_path!r} can't be read: {what}; expected a readable YAML file"
        ) from None
    return LoadedMatrix(parse_matrix(text, path.name), text, name_or_path)


def parse_matrix(text: str, where: str) -> Matrix:
    """Parse and check a matrix's text; `where` names it in messages.

    Raises: ConfigError listing everything that is wrong with it.
    """
    data, root = _read_yaml(text, where)
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: found {type(data).__name__}, expected a mapping of keys")
    try:
        matrix = Matrix.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems = [_explain(detail, where, root) for detail in error.errors()]
        problems += _misused_arguments(data, where)
        raise ConfigError(*dict.fromkeys(problems)) from None
    except (TypeError, ValueError) as error:  # keys or values that JSON has no form for
        raise ConfigError(
            f"{where}: {error}; expected plain text, numbers, lists and maps"
        ) from None
    problems = check_matrix(matrix, where)
    if problems:
        raise ConfigError(*problems)
    return matrix


def check_matrix(matrix: Matrix, where: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """List what a well-formed matrix asks for that can't be."""
    problems: list[str] = []
    for task, arguments in matrix.trainer.items():
        problems += check_arguments(task, arguments, f"{where}: trainer.{task}")
    for name, pair in matrix.pairs.items():
        problems += _check_pair(matrix, name, pair, f"{where}: pairs.{name}", overrides or {})
    return problems


def with_overrides(matrix: Matrix, overrides: dict[str, Any]) -> None:
    """Check `--set` arguments against every task of the matrix.

    Raises: ConfigError for an argument that no task knows, or an impossible value.
    """
    tasks = {pair.task for pair in matrix.pairs.values()}
    problems = []
    for key, value in overrides.items():
        homes = [t for t in tasks if not known_arguments(t) or key in known_arguments(t)]
        found = [check_arguments(t, {key: value}, "--set") for t in sorted(homes or tasks)]
        problems += found[0] if not homes else [p for ps in found for p in ps]
    problems += [p for p in check_matrix(matrix, "--set", overrides) if p not in problems]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def expand(
    matrix: Matrix, overrides: dict[str, Any] | None = None, seeds: Sequence[int] | None = None
) -> list[RunSpec]:
    """Return every run in the order it will run: arms A B, then B A, so that drift hits both."""
    specs = []
    for name, pair in matrix.pairs.items():
        for position, seed in enumerate(seeds if seeds is not None else matrix.seeds):
            arms = list(pair.arms) if position % 2 == 0 else list(reversed(pair.arms))
            specs += [_resolve(matrix, name, pair, arm, seed, overrides or {}) for arm in arms]
    return specs


def select(specs: Sequence[RunSpec], patterns: Iterable[str]) -> list[RunSpec]:
    """Keep the runs whose cell `pair.arm.sSEED` matches a pattern; a bare name matches a pair or arm.

    Raises: ConfigError if a pattern matches nothing.
    """
    patterns = list(patterns)
    if not patterns:
        return list(specs)
    missed = [p for p in patterns if not any(_matches(s, p) for s in specs)]
    if missed:
        words = sorted({w for s in specs for w in (s.pair, s.arm, s.cell)})
        raise ConfigError(
            *(
                f"--filter {p!r} matches no run{did_you_mean(p, words)}; expected a pattern over "
                f"pair.arm.sSEED such as {specs[0].cell!r} or '{specs[0].pair}.*'"
                for p in missed
            )
        )
    return [s for s in specs if any(_matches(s, p) for p in patterns)]


def origin(matrix: Matrix, spec: RunSpec, argument: str, overrides: dict[str, Any]) -> str:
    """Say which layer an argument of a run came from."""
    pair = matrix.pairs[spec.pair]
    layers = (
        ("--set", overrides),
        (f"pairs.{spec.pair}.arms.{spec.arm}.trainer", pair.arms[spec.arm].trainer),
        (f"pairs.{spec.pair}.trainer", pair.trainer),
        (f"trainer.{spec.task}", matrix.trainer.get(spec.task, {})),
    )
    return next((name for name, layer in layers if argument in layer), "harness")


def matrix_hash(matrix: Matrix, overrides: dict[str, Any]) -> str:
    """Hash what a study is made of, seeds and limits left out: more seeds make the same study."""
    content = matrix.model_dump(mode="json", exclude={"seeds", "timeout_s", "stall_s"})
    return content_hash({"matrix": content, "overrides": overrides})


def margins_hash(matrix: Matrix) -> str:
    """Hash the margins alone."""
    return content_hash({name: [p.margin, p.baseline] for name, p in matrix.pairs.items()})


def _resolve(
    matrix: Matrix, name: str, pair: Pair, arm_name: str, seed: int, overrides: dict[str, Any]
) -> RunSpec:
    arm = pair.arms[arm_name]
    known = known_arguments(pair.task)
    applied = {k: v for k, v in overrides.items() if not known or k in known}
    return RunSpec(
        pair=name,
        arm=arm_name,
        seed=seed,
        task=pair.task,
        method=arm.method,
        model=pair.model,
        dataset=pair.dataset,
        reward=pair.reward,
        lora=arm.lora,
        trainer={
            **HARNESS_ARGUMENTS,
            **matrix.trainer.get(pair.task, {}),
            **pair.trainer,
            **arm.trainer,
            **applied,
        },
        evaluation=pair.evaluation,
    )


def _matches(spec: RunSpec, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(word, pattern) for word in (spec.cell, spec.pair, spec.arm, spec.run_id)
    )


def _check_pair(
    matrix: Matrix, name: str, pair: Pair, at: str, overrides: dict[str, Any]
) -> list[str]:
    problems = []
    if pair.dataset.name not in DATASETS:
        hint = did_you_mean(pair.dataset.name, DATASETS)
        problems.append(
            f"{at}.dataset.name: found {pair.dataset.name!r}{hint}, expected one of "
            + ", ".join(sorted(DATASETS))
        )
    if pair.task == "grpo" and pair.reward not in REWARDS:
        hint = did_you_mean(pair.reward or "", REWARDS)
        problems.append(
            f"{at}.reward: found {pair.reward!r}{hint}, expected one of {', '.join(REWARDS)}"
        )
    if pair.task == "sft" and pair.reward is not None:
        problems.append(
            f"{at}.reward: found {pair.reward!r}, but an sft pair has no reward; remove it"
        )
    if pair.baseline not in pair.arms:
        hint = did_you_mean(pair.baseline, pair.arms)
        problems.append(
            f"{at}.baseline: found {pair.baseline!r}{hint}, expected one of its arms: "
            + ", ".join(pair.arms)
        )
    problems += check_arguments(pair.task, pair.trainer, f"{at}.trainer")
    for arm_name, arm in pair.arms.items():
        where = f"{at}.arms.{arm_name}"
        problems += check_arguments(pair.task, arm.trainer, f"{where}.trainer")
        spec = _resolve(matrix, name, pair, arm_name, 0, overrides)
        problems += check_batches(pair.task, spec.trainer, where)
        problems += _check_difference(pair, arm, where)
        if "max_steps" not in spec.trainer and "num_train_epochs" not in spec.trainer:
            problems.append(f"{where}: has neither max_steps nor num_train_epochs; set one")
    return problems


def _check_difference(pair: Pair, arm: Arm, where: str) -> list[str]:
    undeclared = sorted(set(arm.trainer) - set(pair.declared_differences))
    return [
        f"{where}.trainer.{key}: arms may differ only in "
        f"{', '.join(pair.declared_differences)}; move it to the pair, or add it to "
        "declared_differences"
        for key in undeclared
    ]


def _read_yaml(text: str, where: str) -> tuple[Any, Node | None]:
    try:
        data = YAML(typ="safe", pure=True).load(text)
        root = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(f"{where}{line}: not a readable YAML matrix: {what}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not a readable YAML matrix: {error}") from None
    return data, root


def _explain(detail: Any, where: str, root: Node | None) -> str:
    """One sentence for one pydantic error: where, found, expected, what to do."""
    path = [part for part in detail["loc"] if part != "[key]"]
    line = _line(root, path)
    at = f"{where}{f':{line}' if line else ''}: {'.'.join(map(str, path))}"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{at}: is no key of a matrix{did_you_mean(str(path[-1]), _fields_at(path[:-1]))}"
    if kind == "missing":
        return f"{at}: is missing; add it"
    found = detail.get("input")
    shown = "" if isinstance(found, dict | list) else f"found {found!r}, "
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "too_short":
        message = f"at least {detail['ctx']['min_length']} item"
    return f"{at}: {shown}{'' if kind == 'value_error' else 'expected '}{message}"


def _line(node: Node | None, path: Sequence[Any]) -> int | None:
    line = None
    for part in path:
        if isinstance(node, MappingNode):
            pair = next(((k, v) for k, v in node.value if str(k.value) == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _fields_at(path: Sequence[Any]) -> list[str]:
    """The keys that the model at a path takes, for did-you-mean."""
    kind: Any = Matrix
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        options = [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)]
        if options and get_origin(kind) is not dict:
            kind = options[0]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _misused_arguments(data: Any, where: str) -> list[str]:
    """Check trainer arguments of a file that is malformed elsewhere, so that one pass lists all."""
    problems = []

    def check(task: Any, block: Any, at: str) -> None:
        arguments = block.get("trainer") if isinstance(block, dict) else None
        if task in ("sft", "grpo") and isinstance(arguments, dict):
            problems.extend(check_arguments(task, arguments, f"{where}: {at}.trainer"))

    shared = data.get("trainer")
    for task, arguments in shared.items() if isinstance(shared, dict) else ():
        if task in ("sft", "grpo") and isinstance(arguments, dict):
            problems += check_arguments(task, arguments, f"{where}: trainer.{task}")
    pairs = data.get("pairs")
    for name, pair in pairs.items() if isinstance(pairs, dict) else ():
        task = pair.get("task") if isinstance(pair, dict) else None
        check(task, pair, f"pairs.{name}")
        arms = pair.get("arms") if isinstance(pair, dict) else None
        for arm, block in arms.items() if isinstance(arms, dict) else ():
            check(task, block, f"pairs.{name}.arms.{arm}")
    return problems
