"""The tables below the first screen, as text: what was compared, and every figure of an arm.

The HTML page and the Markdown render the same tables. Figures of an arm are means over its runs
that ended ok. What this leaves out: the first screen (`findings`), the tables with a row per run
(`run_tables`), environment and commands (`provenance`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness import text
from harness.record import ParameterCounts, Result
from harness.series import is_ok
from harness.spec import Pair
from harness.summary import RunSummary
from harness.view import RunView, StudyView

NOT_APPLICABLE = "\u2013"


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row, columns in `numeric` align right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    is_long: bool = False  # folded away at first


@dataclass(frozen=True)
class Column:
    """A figure that a table shows only where some run has it."""

    name: str
    read: Callable[[RunSummary], float | None]
    write: Callable[[float | None], str]


GPU_COLUMNS = (
    Column("GPU energy", lambda s: s.energy_j, lambda v: text.scaled(v, "J")),
    Column("Energy per token", lambda s: s.joules_per_token, lambda v: text.scaled(v, "J")),
    Column("GPU power (mean)", lambda s: s.power_w_mean, lambda v: text.scaled(v, "W")),
    Column(
        "GPU use (mean)",
        lambda s: s.utilization_percent_mean,
        lambda v: text.percent(None if v is None else v / 100),
    ),
    Column(
        "GPU temperature (highest)",
        lambda s: s.temperature_c_max,
        lambda v: text.MISSING if v is None else f"{v:.0f} \u00b0C",
    ),
)


def cell(run: RunView) -> str:
    """Name a run as selectors do."""
    return run.planned.cell


def runs_of(view: StudyView, pair: str, arm: str) -> list[RunView]:
    """List the runs of one arm, in planned order."""
    return [r for r in view.runs if (r.planned.pair, r.planned.arm) == (pair, arm)]


def arms_of(view: StudyView) -> list[tuple[str, str]]:
    """List (pair, arm) with each pair's baseline first."""
    return [
        (name, arm)
        for name, pair in view.matrix.pairs.items()
        for arm in sorted(pair.arms, key=lambda a: a != pair.baseline)
    ]


def mean(values: Iterable[float | None]) -> float | None:
    """Average what was measured; None if nothing was."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _task(pair: Pair) -> str:
    """A pair's task, with its reward and objective in reinforcement learning."""
    if pair.task == "sft":
        return "SFT"
    rewards = " + ".join((str(pair.reward), *pair.other_rewards))
    return f"GRPO, {rewards}, objective {pair.objective}"


def pairs_table(view: StudyView) -> Table:
    """Say what each pair is."""
    rows = []
    for name, pair in view.matrix.pairs.items():
        model, data = pair.model, pair.dataset
        source = model.source + (f" @ {model.revision}" if model.revision else "")
        unit = "nats per completion token" if pair.task == "sft" else "reward"
        train = "all left" if data.train_rows is None else data.train_rows
        split = f"{train} / {data.validation_rows} / {data.test_rows}"
        rows.append(
            (
                name,
                _task(pair),
                f"{model.shown} ({source}, {model.dtype})",
                data.name,
                split,
                pair.baseline,
                f"{pair.margin:g} {unit}: {pair.margin_reason}",
            )
        )
    columns = (
        "Pair", "Task", "Model", "Dataset", "Rows: train / validation / test", "Baseline",
        "Margin, changed after the first run" if view.post_hoc else "Margin, fixed before the first run",
    )  # fmt: skip
    return make_table("Pairs", columns, rows)


def arms_table(view: StudyView) -> Table:
    """Say how each arm trains: learning rate, adapter, trainable parameters."""
    every = [arm for pair in view.matrix.pairs.values() for arm in pair.arms.values()]
    has_reasons = any(arm.rate_reason for arm in every)
    rows = []
    for pair, arm in arms_of(view):
        spec = view.matrix.pairs[pair].arms[arm]
        parameters = arm_parameters(view, pair, arm)
        lora = spec.lora
        targets = NOT_APPLICABLE
        if lora:
            modules = lora.target_modules
            targets = modules if isinstance(modules, str) else ", ".join(modules)
        rows.append(
            (
                pair,
                arm,
                spec.method,
                argument(view, pair, arm, "learning_rate"),
                *([text.clean(spec.rate_reason or text.MISSING)] if has_reasons else []),
                str(lora.r) if lora else NOT_APPLICABLE,
                f"{lora.lora_alpha:g}" if lora else NOT_APPLICABLE,
                targets,
                text.count(parameters.trainable if parameters else None),
                text.share(parameters.trainable / parameters.total if parameters else None),
            )
        )
    columns = (
        "Pair", "Arm", "Method", "Learning rate", *(["Rate from"] if has_reasons else []), "Rank",
        "Alpha", "Target modules", "Trainable parameters", "Share of all",
    )  # fmt: skip
    numbers = ("Learning rate", "Rank", "Alpha", "Trainable parameters", "Share of all")
    return make_table("Arms", columns, rows, numeric={columns.index(n) for n in numbers})


def figures_table(view: StudyView) -> Table:
    """Give each arm's absolute figures: quality, times and rates; where a GPU was read, its load."""
    rows = []
    gpu = [
        c
        for c in GPU_COLUMNS
        if any(r.summary and c.read(r.summary) is not None for r in view.runs)
    ]
    for pair, arm in arms_of(view):
        runs = runs_of(view, pair, arm)
        ok = [r.summary for r in runs if is_ok(r) and r.summary]
        over = _averager(ok)
        is_grpo = view.matrix.pairs[pair].task == "grpo"
        generated = text.number(over(lambda s: s.generated_tokens_per_s))
        rows.append(
            (
                pair,
                arm,
                f"{len(ok)} of {len(runs)}",
                text.number(over(lambda s: s.base_value)),
                text.number(over(lambda s: s.final_value)),
                text.duration(over(lambda s: s.step_s_median)),
                text.number(over(lambda s: s.trained_tokens_per_s)),
                generated if is_grpo else NOT_APPLICABLE,
                text.number(over(lambda s: s.samples_per_s)),
                text.scaled(over(lambda s: s.model_flops_per_step), "FLOP"),
                text.duration(over(lambda s: s.wall_s)),
                *(column.write(over(column.read)) for column in gpu),
            )
        )
    columns = (
        "Pair", "Arm", "Runs ok", "Test metric, untrained", "Test metric, trained",
        "Step time (median)", "Tokens/s", "Generated tokens/s", "Samples/s", "FLOPs per step",
        "Wall time", *(column.name for column in gpu),
    )  # fmt: skip
    numeric = set(range(2, len(columns)))
    return make_table("Figures per arm, means over seeds", columns, rows, numeric=numeric)


def arm_parameters(view: StudyView, pair: str, arm: str) -> ParameterCounts | None:
    """Return the parameter counts that the first run of an arm reported."""
    results = [r.record.result for r in runs_of(view, pair, arm) if r.record]
    return next((r.parameters for r in results if r and r.parameters), None)


def argument(view: StudyView, pair: str, arm: str, name: str) -> str:
    """Return a trainer argument as it was resolved, or as the matrix asked for it."""
    for run in runs_of(view, pair, arm):
        asked = run.spec.trainer if run.spec else {}
        for source in (run.resolved_config.get("arguments", {}), asked):
            if name in source:
                value = source[name]
                return f"{value:g}" if isinstance(value, float) else str(value)
    asked_of = view.matrix.pairs[pair]
    layers = (
        asked_of.arms[arm].trainer,
        asked_of.trainer,
        asked_of.shared(view.matrix.trainer),
    )
    for layer in layers:  # an arm that has not run
        if name in layer:
            return f"{layer[name]:g}" if isinstance(layer[name], float) else str(layer[name])
    if name == "learning_rate" and asked_of.arms[arm].is_swept:
        return "not chosen yet"
    return "the trainer's default"


def counted(sentences: Iterable[str]) -> list[str]:
    """Join equal sentences of several runs, saying of how many."""
    return [
        line if n == 1 else f"{line} ({n} times)"
        for line, n in Counter(text.clean(s) for s in sentences).items()
    ]


def rows_left_out(result: Result) -> Iterator[str]:
    """The sentences of a result's unusable rows, and how many there are where not all are listed."""
    if result.unusable_count > len(result.unusable_rows):
        yield (
            f"{result.unusable_count:,} dataset rows were left out in all: the first "
            f"{len(result.unusable_rows)} stand here, all of them in the attempt's unusable_rows.txt"
        )
    yield from result.unusable_rows


def _averager(
    summaries: Sequence[RunSummary],
) -> Callable[[Callable[[RunSummary], float | None]], float | None]:
    return lambda read: mean(read(s) for s in summaries)


def make_table(
    caption: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    numeric: Iterable[int] = (),
    is_long: bool = False,
) -> Table:
    """Build a table whose every cell is safe to show."""
    shown = tuple(tuple(text.clean(value) for value in row) for row in rows)
    return Table(caption, columns, shown, frozenset(numeric), is_long)
