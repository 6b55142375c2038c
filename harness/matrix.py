"""Loads a matrix, refuses what can't run, and expands it to runs.

YAML (`matrix_file`), then strict pydantic models. Every problem of a file is listed at once, with its
line; what a request means is checked on plain data, so that a file that is malformed in one place is
still checked in the others. Arguments are layered, the later winning: the harness's own, the matrix's
for the task, the pair's, the arm's, `--set`; a pair's objective adds to them, and a layer that
contradicts it is an error. What this leaves out: anything about the machine.
"""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.again import fill_in
from harness.arguments import check_arguments, known_arguments
from harness.claim_checks import check_claims
from harness.errors import ConfigError, did_you_mean
from harness.frozen import content_hash
from harness.matrix_checks import applied_overrides, check_matrix
from harness.matrix_file import as_mapping, explain_all, keep_plain, place, read_yaml
from harness.objective import objective_arguments
from harness.spec import Matrix, RunSpec, Stage

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


Choices = Mapping[tuple[str, str], float]  # (pair, arm) → the learning rate chosen for it


@dataclass(frozen=True)
class LoadedMatrix:
    """A matrix and the text it came from."""

    matrix: Matrix
    text: str
    where: str  # how messages call it: a shipped name or the path as given

    @property
    def named(self) -> str:
        """How a command is given it, as a shell reads it."""
        return shlex.quote(self.where)


def shipped_matrices() -> dict[str, Path]:
    """Return name → file of the matrices that come with the harness."""
    for folder in _SHIPPED:
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load_matrix(name_or_path: str, *, asks_trl: bool = True) -> LoadedMatrix:
    """Load a shipped matrix by name, or a file by path; `asks_trl` as for `parse_matrix`.

    Raises: ConfigError listing everything that is wrong with it.
    """
    shipped = shipped_matrices()
    if not name_or_path.strip():
        raise ConfigError(
            f"--matrix is empty; expected one of {', '.join(shipped) or 'none shipped'}, or the path of a "
            ".yaml file"
        )
    path = shipped.get(name_or_path, Path(name_or_path))
    if name_or_path not in shipped and path.suffix not in (".yaml", ".yml") and not _exists(path):
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
    return LoadedMatrix(parse_matrix(text, path.name, asks_trl=asks_trl), text, name_or_path)


def parse_matrix(text: str, where: str, *, asks_trl: bool = True) -> Matrix:
    """Parse and check a matrix's text; `where` names it in messages.

    `asks_trl` says whether the installed TRL has to know its arguments.

    Raises: ConfigError listing everything that is wrong with it.
    """
    data, root = read_yaml(text, where)
    data, unplain = keep_plain(as_mapping(data, where))
    data, mistaken = fill_in(data)
    unplain |= mistaken
    problems = [f"{place(path, where, root)}: {what}" for path, what in unplain.items()]
    matrix = None
    try:
        matrix = Matrix.model_validate_json(json.dumps(data))
    except ValidationError as error:
        problems += explain_all(error.errors(), where, root, Matrix, unplain)
    problems += check_matrix(data, where, is_whole=not unplain, asks_trl=asks_trl)
    if matrix is not None:
        problems += [f"{place(at, where, root)}: {what}" for at, what in check_claims(matrix)]
    if problems or matrix is None:
        raise ConfigError(*dict.fromkeys(problems))
    return matrix


def with_overrides(matrix: Matrix, overrides: dict[str, Any], where: str = "--set") -> None:
    """Check `--set` arguments against every task of the matrix, and the matrix with them.

    Raises: ConfigError for an argument that no task knows, or an impossible value.
    """
    tasks = {pair.task for pair in matrix.pairs.values()}
    plain, unplain = keep_plain(overrides)
    problems = [f"--set.{'.'.join(map(str, path))}: {what}" for path, what in unplain.items()]
    plain = {k: v for k, v in plain.items() if all(path[0] != k for path in unplain)}
    for key, value in plain.items():
        homes = [t for t in tasks if not known_arguments(t) or key in known_arguments(t)]
        found = [check_arguments(t, {key: value}, "--set") for t in sorted(homes or tasks)]
        problems += found[0] if not homes else [p for ps in found for p in ps]
    problems += check_matrix(matrix.model_dump(), where, plain)
    swept = [f"{n}.{a}" for n, p in matrix.pairs.items() for a, arm in p.arms.items() if arm.rates]
    if "learning_rate" in plain and swept:
        problems.append(
            f"--set learning_rate={plain['learning_rate']}: {', '.join(swept)} choose theirs from a "
            "grid; change `rates` in a copy of the matrix instead"
        )
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def expand(
    matrix: Matrix,
    overrides: dict[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    chosen: Choices | None = None,
) -> list[RunSpec]:
    """Return every run in the order it will run: arms A B, then B A, so that drift hits both.

    Runs that try the rates of a grid come first. An arm with a grid is judged at the rate that is
    `chosen` for it, and has no other run before there is one.
    """
    specs: list[RunSpec] = []
    for name, pair in matrix.pairs.items():
        for position, seed in enumerate(matrix.selection.seeds if matrix.selection else ()):
            grid = [(arm, rate) for arm in pair.arms for rate in pair.arms[arm].rates]
            specs += [
                _resolve(matrix, name, arm, seed, overrides or {}, rate, "select")
                for arm, rate in (grid if position % 2 == 0 else reversed(grid))
            ]
    for name, pair in matrix.pairs.items():
        rates = {
            arm: (chosen or {}).get((name, each.rate_of or arm)) for arm, each in pair.arms.items()
        }
        arms = [arm for arm, each in pair.arms.items() if not each.is_swept or rates[arm]]
        for position, seed in enumerate(seeds if seeds is not None else matrix.seeds):
            specs += [
                _resolve(matrix, name, arm, seed, overrides or {}, rates[arm], "judge")
                for arm in (arms if position % 2 == 0 else reversed(arms))
            ]
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
    if argument == "max_steps" and argument not in overrides and pair.budgets and matrix.budget:
        return f"pairs.{spec.pair}.budgets.{matrix.budget}"
    layers = (
        (f"objective {pair.objective}", objective_arguments(pair.objective, spec.trainer)),
        ("--set", overrides),
        (f"pairs.{spec.pair}.arms.{spec.arm}.trainer", pair.arms[spec.arm].trainer),
        (f"pairs.{spec.pair}.trainer", pair.trainer),
        (f"trainer.{spec.task}", pair.shared(matrix.trainer)),
    )
    return next((name for name, layer in layers if argument in layer), "harness")


def matrix_hash(matrix: Matrix, overrides: dict[str, Any]) -> str:
    """Hash what a study is made of, seeds and limits left out: more seeds make the same study."""
    content = matrix.model_dump(mode="json", exclude={"seeds", "timeout_s", "stall_s"})
    if matrix.selection:
        content["selection"] = {}
    if matrix.claims:  # words may be mended
        content["claims"] = {name: claim.deciding() for name, claim in matrix.claims.items()}
    return content_hash({"matrix": content, "overrides": overrides})


def margins_hash(matrix: Matrix) -> str:
    """Hash what decides a verdict alone: margins, and the claims without their words."""
    margins: dict[str, Any] = {name: [p.margin, p.baseline] for name, p in matrix.pairs.items()}
    if matrix.claims:
        margins = {
            "pairs": margins,
            "claims": {name: claim.deciding() for name, claim in matrix.claims.items()},
        }
    return content_hash(margins)


def _resolve(
    matrix: Matrix,
    name: str,
    arm_name: str,
    seed: int,
    overrides: dict[str, Any],
    rate: float | None,
    stage: Stage,
) -> RunSpec:
    pair = matrix.pairs[name]
    arm = pair.arms[arm_name]
    trainer = {
        **HARNESS_ARGUMENTS,
        **pair.shared(matrix.trainer),
        **pair.trainer,
        **arm.trainer,
        **({} if rate is None else {"learning_rate": rate}),
        **applied_overrides(pair.task, overrides),
    }
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
        trainer={**trainer, **objective_arguments(pair.objective, trainer)},
        evaluation=pair.evaluation,
        parallel=arm.parallel,
        keeps_adapter=matrix.keeps_adapters and arm.method == "lora" and stage == "judge",
        stage=stage,
        seed_offset=arm.seed_offset,
        other_rewards=pair.other_rewards,
        probe=pair.probe,
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than a file's may be
        return False


def _matches(spec: RunSpec, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(word, pattern) for word in (spec.cell, spec.pair, spec.arm, spec.run_id)
    )
