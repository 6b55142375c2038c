"""What a user of TRL will notice after the upgrade, a sentence each, the gravest first.

Sentences speak of training, not of probes: larger gradients, other data, costs. A sentence stands once
for all cells of a task that show the same. What this leaves out: why (`suspects`), and each difference
(the page).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby

from harness import text
from harness.compare.boundaries import BOUNDARIES
from harness.compare.boundary import is_crossed
from harness.compare.evidence import CellEvidence, Evidence
from harness.compare.factors import (
    REWARD_STD,
    Factor,
    find_factors,
    is_divided_by_group,
    measured,
)
from harness.compare.model import Difference, Kind
from harness.compare.side import RunSide
from harness.spec import Task

TASKS: tuple[Task, ...] = ("sft", "grpo")
TRAINING: frozenset[Kind] = frozenset({"data", "sampling", "reward", "loss", "gradient", "weights"})
MIB = 2**20
GROWTH_STEPS = 4  # steps below which a slope of memory says nothing
GROWTH_BYTES = MIB // 4  # a step
NAMED_MAX = 4
# A part of what a difference is called → its kind, and what a user sees.
COSTS: dict[str, tuple[Kind, str]] = {
    "growth": ("memory", "Training needs {how} memory above what loading takes"),
    "peak": ("memory", "Training peaks at {how} memory"),
    "step": ("speed", "A step takes {how} of the processor's time"),
    "construct": ("speed", "Building the trainer takes {how} time"),
    "tokens": ("speed", "Training makes {how} tokens a second"),
}
TIMES = {2.0: "twice", 0.5: "half"}


def list_notices(evidence: Evidence) -> tuple[str, ...]:
    """Say in sentences what changed for somebody who trains."""
    found: list[str] = []
    for task in TASKS:
        cells = [c for c in evidence.cells if c.cell.task == task and c.cell.word == "changed"]
        if cells:
            found += _task_notices(task, cells)
    found += _costs(evidence)
    found += _redefined(evidence)
    found += _no_runs(evidence)
    if any(d.kind == "evaluation" for d in _grave(evidence)) and not _trains_otherwise(evidence):
        found.append("Evaluation changed, training did not: the same weights get another score.")
    if any(d.word == "changed" for d in evidence.comparison.replay):
        found.append(
            "Rewards, chat templates or tokens of the same texts are not what they were: see "
            "what was replayed."
        )
    alarms = sum(control.alarms for control in evidence.comparison.controls)
    if alarms:
        found.append(
            f"{text.plural(alarms, 'rerun')} of one and the same side differed, so what is above "
            "may be this "
            "machine's noise."
        )
    return tuple(dict.fromkeys(found))


def _task_notices(task: Task, cells: Sequence[CellEvidence]) -> Iterable[str]:
    yield from _factors(task, cells)
    yield from _advantages(task, cells)
    name = task.upper()
    for kinds, sentence in (
        (
            {"data"},
            f"{name} trains on other tokens: batches hold other ids, masks or labels{{where}}.",
        ),
        ({"sampling"}, "GRPO samples other completions{where}."),
        ({"reward"}, f"{name} gets other rewards or advantages for the same completions{{where}}."),
        ({"checkpoint"}, f"What {name} saves, loads or merges is not what it trained{{where}}."),
    ):
        touched = [c for c in cells if c.root in kinds]
        if touched:
            yield sentence.format(where=_where(touched, cells))
    quiet = [
        c
        for c in cells
        if "weights" in c.kinds and c.kinds <= {"gradient", "weights", "checkpoint"}
    ]
    if quiet:
        yield f"In {name} the losses are the same and the weights are not{_where(quiet, cells)}."
    logged = [c for c in cells if c.kinds and c.kinds <= {"metric"}]
    if logged:
        names = sorted({d.what.split("/", 1)[-1] for c in logged for d in c.grave})
        shown = ", ".join(text.clean(n, 60) for n in names[:NAMED_MAX])
        yield (
            f"{name} trains as before and logs otherwise ({shown}): curves of the two releases "
            "can't be laid "
            f"over one another{_where(logged, cells)}."
        )
    if {c.cell.method for c in cells} == {"lora"}:
        yield f"Only LoRA changed in {name}: full fine-tuning is as it was."


def _factors(task: Task, cells: Sequence[CellEvidence]) -> Iterable[str]:
    """The first measure that is scaled, once for all cells in which it is scaled by the same."""
    told = []
    for cell in cells:
        factors = {f.measure: f for f in find_factors(cell)}
        first = factors.get("gradient norm") or factors.get("loss")
        if first and (first.exact is not None or first.names):
            told.append((_factor_sentence(task, first, factors, cell), cell))
    told.sort(key=lambda each: each[0])
    for sentence, group in groupby(told, key=lambda each: each[0]):
        yield sentence.format(where=_where([cell for _, cell in group], cells))


def _factor_sentence(
    task: Task, factor: Factor, factors: dict[str, Factor], cell: CellEvidence
) -> str:
    subject = {"gradient norm": "gradients are", "loss": "losses are"}.get(factor.measure, "")
    steps = "at every step" if factor.is_steady else f"from step {factor.step}"
    if factor.step == 1 and not factor.is_steady:
        steps = "from step 1"
    because = _because(factor, cell)
    sentence = f"{task.upper()} {subject} {_times(factor)} as large {steps}{because}{{where}}"
    if factor.measure == "loss":
        return sentence + ": losses of the two releases can't be compared."
    moved = factors.get("distance moved")
    return sentence + _consequence(factor.ratio, moved.ratio if moved else None, cell)


def _consequence(ratio: float, moved_ratio: float | None, cell: CellEvidence) -> str:
    """What larger or smaller gradients do to the weights, as far as that was measured."""
    if moved_ratio is not None and not 0.98 < moved_ratio < 1.02:
        return f": the same learning rate trains {_pace(moved_ratio)}."
    is_measured = cell.base is not None and any(measured(cell.base, "distance moved"))
    evened = (
        "their weights have moved as far as before, since Adam evens out a constant factor"
        if is_measured
        else "Adam evens out a constant factor"
    )
    when = "earlier" if ratio > 1 else "later"
    return (
        f": {evened}; clipping by max_grad_norm sets in {when}, and other optimizers train "
        f"{_pace(ratio)} "
        "at the same learning rate."
    )


def _pace(ratio: float) -> str:
    return "faster and less stably" if ratio > 1 else "more slowly"


def _times(factor: Factor) -> str:
    """How many times as large, in words where it is a number of its own."""
    value = factor.exact
    if value is None:
        return f"about {factor.ratio:.2g} times"
    if value in TIMES:
        return f"exactly {TIMES[value]}"
    whole = round(1 / value)
    if value < 1 and abs(value * whole - 1) < 1e-9:
        return f"exactly 1/{whole}"
    return f"exactly {value:.4g} times" if value == round(value) else f"{value:.4g} times"


def _because(factor: Factor, cell: CellEvidence) -> str:
    if factor.names == (REWARD_STD,):
        way = "no longer divided" if _shrinks(factor, cell) else "divided"
        return f", about as much as if advantages were {way} by the rewards' deviation"
    return f" ({', '.join(factor.names)})" if factor.names else ""


def _shrinks(factor: Factor, cell: CellEvidence) -> bool:
    """Whether a ratio is the rewards' deviation, and not one over it."""
    for run in (cell.base, cell.candidate):
        values = run.series.get(REWARD_STD, ()) if run else ()
        value = values[factor.step - 1] if len(values) >= factor.step else None
        if value:
            return abs(factor.ratio - value) < abs(factor.ratio - 1 / value)
    return factor.ratio < 1


def _advantages(task: Task, cells: Sequence[CellEvidence]) -> Iterable[str]:
    if task != "grpo":
        return
    for before, words in (
        (
            True,
            "no longer divided by their group's deviation: prompts with varied rewards weigh more",
        ),
        (
            False,
            "divided by their group's deviation, which they were not: every prompt weighs the same",
        ),
    ):
        touched = [
            c
            for c in cells
            if c.base
            and c.candidate
            and (is_divided_by_group(c.base), is_divided_by_group(c.candidate))
            == (before, not before)
        ]
        if touched:
            yield f"GRPO's advantages are {words}{_where(touched, cells)}."


def _redefined(evidence: Evidence) -> Iterable[str]:
    """What is logged under an old name and means something else."""
    tasks = {c.cell.task for c in evidence.cells}
    for boundary in BOUNDARIES:
        if not boundary.series or tasks.isdisjoint(boundary.tasks):
            continue
        versions = (
            side.packages.get(boundary.package) for side in (evidence.base, evidence.candidate)
        )
        if is_crossed(boundary, *versions):
            names = " and ".join(task.upper() for task in boundary.tasks)
            yield (
                f"{boundary.sentence} ({names}, from TRL {boundary.release} on): its curves under "
                "the two "
                "releases can't be laid over one another."
            )


def _costs(evidence: Evidence) -> Iterable[str]:
    for cell in evidence.cells:
        name = f"{cell.cell.pair}, {cell.cell.arm}"
        if any(
            d.kind == "memory" and d.word in ("changed", "undecided") for d in cell.cell.differences
        ):
            base, candidate = growth_bytes(cell.base), growth_bytes(cell.candidate)
            if base is not None and candidate is not None and candidate - base >= GROWTH_BYTES:
                yield (
                    f"Memory grows by {(candidate - base) / MIB:.1f} MiB a step in {name}: a long "
                    "run ends out "
                    "of memory."
                )
    for what, (kind, words) in COSTS.items():
        ratios = [
            d.candidate / d.base
            for c in evidence.cells
            for d in c.cell.differences
            if d.kind == kind and d.word == "changed" and what in d.what.split("/")
            if _is_ratio(d.base, d.candidate)
        ]
        for is_more in (True, False):
            found = [ratio for ratio in ratios if (ratio > 1) is is_more]
            if found:
                share = f"{abs(statistics.median(found) - 1):.0%} {'more' if is_more else 'less'}"
                median = ", in the median" if len(found) > 1 else ""
                yield f"{words.format(how=share)} in {text.plural(len(found), 'cell')}{median}."


def growth_bytes(run: RunSide | None) -> float | None:
    """How much the worker's memory grows with each step, over the second half of a probed run."""
    steps = run.probe.steps if run and run.probe else ()
    if len(steps) < 2 * GROWTH_STEPS:
        return None
    late = steps[len(steps) // 2 :]
    slope, _ = statistics.linear_regression([s.step for s in late], [s.rss_bytes for s in late])
    return slope


def _no_runs(evidence: Evidence) -> Iterable[str]:
    for task in TASKS:
        cells = [c for c in evidence.cells if c.cell.task == task]
        lost = [c for c in cells if c.cell.word == "unsupported here"]
        if lost:
            yield f"{task.upper()} can't train here{_where(lost, cells)}: {lost[0].cell.sentence}"
    missing = [d for d in _grave(evidence) if d.kind == "missing" and d.layer == "missing"]
    if missing:
        count = text.plural(len(missing), "thing")
        yield f"{count} that one side has the other lacks: {missing[0].sentence}"


def _grave(evidence: Evidence) -> list[Difference]:
    return [d for c in evidence.cells if c.cell.word == "changed" for d in c.grave]


def _trains_otherwise(evidence: Evidence) -> bool:
    return any(d.kind in TRAINING for d in _grave(evidence))


def _where(touched: Sequence[CellEvidence], cells: Sequence[CellEvidence]) -> str:
    """Name the cells, unless they are all."""
    if len(touched) == len(cells):
        return ""
    names = [f"{c.cell.pair}.{c.cell.arm}" for c in touched]
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f" in {', '.join(names[:NAMED_MAX])}{more}"


def _is_ratio(base: object, candidate: object) -> bool:
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in (base, candidate)
    )
