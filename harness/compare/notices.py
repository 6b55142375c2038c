"""What a user of TRL will notice after the upgrade, a sentence each, the gravest first.

Sentences speak of training, not of probes: larger gradients, other data, costs. A sentence stands once
for all cells of a task that show the same. What this leaves out: why (`suspects`), and each difference
(the page).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from harness import text
from harness.compare.boundaries import BOUNDARIES
from harness.compare.boundary import is_crossed
from harness.compare.evidence import CellEvidence, Evidence, where
from harness.compare.model import Difference, Kind
from harness.compare.numbers import became
from harness.compare.place import kinds_of
from harness.compare.scaling import advantages, scaled
from harness.compare.side import RunSide
from harness.compare.tracks import FORWARDS
from harness.spec import Task

TASKS: tuple[Task, ...] = ("sft", "grpo")
TRAINING: frozenset[Kind] = frozenset({"data", "sampling", "reward", "loss", "gradient", "weights"})
MIB = 2**20
LOGS_MAX = 4  # names of logs in a sentence
GROWTH_STEPS = 4  # steps below which a slope of memory says nothing
GROWTH_BYTES = MIB // 4  # a step
# A part of what a difference is called → its kind, and what a user sees.
COSTS: dict[str, tuple[Kind, str]] = {
    "growth": ("memory", "Training needs {how} memory above what loading takes"),
    "peak": ("memory", "Training peaks at {how} memory"),
    "step": ("speed", "A step takes {how} of the processor's time"),
    "construct": ("speed", "Building the trainer takes {how} time"),
    "tokens": ("speed", "Training makes {how} tokens a second"),
}
REPLAYED: dict[Kind, str] = {
    "reward": "The same completions get other rewards: reward curves can't be laid over one another.",
    "data": "The same rows become other tokens, by the chat template or the tokenizer.",
    "loss": "The same batch of the same weights has another loss.",
    "evaluation": "The same checkpoint evaluates otherwise: a held-out metric that moved is no "
    "change of training.",
}


def list_notices(evidence: Evidence) -> tuple[str, ...]:
    """Say in sentences what changed for somebody who trains."""
    found: list[str] = []
    for task in TASKS:
        cells = [c for c in evidence.cells if c.cell.task == task and c.cell.word == "changed"]
        if cells:
            found += _task_notices(task, cells, evidence)
    found += _costs(evidence)
    found += _redefined(evidence)
    found += _no_runs(evidence)
    if any(d.kind == "evaluation" for d in _grave(evidence)) and not _trains_otherwise(evidence):
        found.append("Evaluation changed, training did not: the same weights get another score.")
    replayed = {d.kind for d in evidence.comparison.replay if d.word == "changed"}
    found += [sentence for kind, sentence in REPLAYED.items() if kind in replayed]
    alarms = sum(control.alarms for control in evidence.comparison.controls)
    if alarms:
        kinds = {kind for control in evidence.comparison.controls for kind in control.kinds}
        what = "what is above"
        if kinds and kinds <= {"memory", "speed"}:
            what = f"what is said of {' and '.join(sorted(kinds))}"
        found.append(
            f"Reruns of one and the same side gave {text.plural(alarms, 'alarm')}, so {what} may be "
            "this machine's noise."
        )
    return tuple(dict.fromkeys(found))


def _task_notices(task: Task, cells: Sequence[CellEvidence], evidence: Evidence) -> Iterable[str]:
    name = task.upper()
    every = [c for c in evidence.cells if c.cell.task == task]
    factors = [*scaled(task, cells, evidence), *advantages(task, cells)]
    yield from factors
    if not factors:
        yield from _losses(name, cells, every)
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
            yield sentence.format(where=where(touched, every))
    yield from _tokens(name, cells)
    yield from _steps(name, cells)
    yield from _passes(name, cells)
    quiet = [
        c
        for c in cells
        if "weights" in c.kinds and c.kinds <= {"gradient", "weights", "checkpoint"}
    ]
    if quiet:
        yield f"In {name} the losses are the same and the weights are not{where(quiet, cells)}."
    logged = [c for c in cells if c.kinds and c.kinds <= {"metric"}]
    if logged:
        names = sorted({d.what.split("/", 1)[-1] for c in logged for d in c.grave})
        shown = ", ".join(text.clean(n, 60) for n in names[:LOGS_MAX])
        yield (
            f"{name} trains as before and logs otherwise ({shown}): curves of the two releases "
            f"can't be laid over one another{where(logged, cells)}."
        )
    methods = {c.cell.method for c in evidence.cells if c.cell.task == task}
    if {c.cell.method for c in cells} == {"lora"} and "full" in methods:
        yield f"Only LoRA changed in {name}: full fine-tuning is as it was."


def _tokens(name: str, cells: Sequence[CellEvidence]) -> Iterable[str]:
    """Say of the first cell that shows it on how many tokens a step trains."""
    for cell in cells:
        if cell.root != "data":  # other weights sample completions of other lengths
            continue
        for d in cell.grave:
            if d.kind == "data" and "trained_tokens" in d.what and _is_ratio(d.base, d.candidate):
                yield (
                    f"{name} trains on {d.candidate:,.9g} tokens instead of {d.base:,.9g} in step "
                    f"{d.step} of "
                    f"{cell.cell.pair}.{cell.cell.arm}."
                )
                return


def _steps(name: str, cells: Sequence[CellEvidence]) -> Iterable[str]:
    """Say of the first cell that shows it how many optimizer steps the same run takes."""
    for cell in cells:
        for d in cell.grave:
            if d.what == "steps" and isinstance(d.candidate, int):
                touched = [c for c in cells if any(o.what == "steps" for o in c.grave)]
                yield (
                    f"{name} takes {text.plural(d.candidate, 'optimizer step')} where it took "
                    f"{d.base}{where(touched, ())}."
                )
                return


def _passes(name: str, cells: Sequence[CellEvidence]) -> Iterable[str]:
    """Say how often a step passes through the model, where nothing else explains it."""
    touched = [
        (c, d)
        for c in cells
        for d in c.grave
        if d.what == FORWARDS and "speed" in kinds_of(c.cell) and _is_ratio(d.base, d.candidate)
    ]
    if touched:
        cell, d = touched[0]
        often = "more often" if d.candidate > d.base else "less often"
        yield (
            f"{name} passes through the model {often}, {d.candidate} times instead of {d.base} in step "
            f"{d.step} of {cell.cell.pair}.{cell.cell.arm}{_others(len(touched) - 1)}: a step takes "
            f"{'more' if d.candidate > d.base else 'less'} time."
        )


def _losses(
    name: str, cells: Sequence[CellEvidence], every: Sequence[CellEvidence]
) -> Iterable[str]:
    """Say that losses can't be compared, where what differs first is the loss of the same rows."""
    touched = [c for c in cells if c.root == "loss"]
    shown = [d for c in touched for d in c.grave if d.kind == "loss" and d.what == "log/loss"]
    if touched and shown:
        yield (
            f"{name} has other losses on the same rows ({became(shown[0].base, shown[0].candidate)} at "
            f"step {shown[0].step}){where(touched, every)}: loss curves can't be laid over one another."
        )


def _others(count: int) -> str:
    return f" and {text.plural(count, 'cell')} more" if count else ""


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
    grown: list[tuple[CellEvidence, float]] = []
    for cell in evidence.cells:
        if any(d.kind == "memory" and d.word == cell.cell.word for d in cell.grave):
            base, candidate = growth_bytes(cell.base), growth_bytes(cell.candidate)
            if base is not None and candidate is not None and candidate - base >= GROWTH_BYTES:
                grown.append((cell, candidate - base))
    if grown:
        most = f"{max(more for _, more in grown) / MIB:.1f} MiB a step"
        upto = "up to " if len(grown) > 1 else ""
        yield (
            f"Memory grows by {upto}{most}{where([cell for cell, _ in grown], evidence.cells)}: a "
            "long run ends out of memory."
        )
    for what, (kind, words) in COSTS.items():
        ratios = [
            d.candidate / d.base
            for c in evidence.cells
            for d in c.cell.differences
            if d.kind == kind and d.word == "changed" and what in d.what.split("/")
            if kind in kinds_of(c.cell)  # other rows and completions take other time
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
            yield f"{task.upper()} can't train here{where(lost, cells)}: {lost[0].cell.sentence}"
    missing = [d for d in _grave(evidence) if d.kind == "missing" and d.layer == "missing"]
    if missing:
        more = f" (and {text.plural(len(missing) - 1, 'finding')} more)" if missing[1:] else ""
        yield f"One side lacks what the other has: {missing[0].sentence}{more}."


def _grave(evidence: Evidence) -> list[Difference]:
    return [d for c in evidence.cells if c.cell.word == "changed" for d in c.grave]


def _trains_otherwise(evidence: Evidence) -> bool:
    return any(d.kind in TRAINING for d in _grave(evidence))


def _is_ratio(base: object, candidate: object) -> bool:
    return all(
        isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in (base, candidate)
    )
