"""Where training changed: tasks, methods, kinds, and the pairs if not all of a task's.

In a cell the kinds of the first step that differs count: what comes later follows from it. Arguments and
what one side lacks follow from nothing and count by themselves. What is looked at after training (a merged
adapter, an evaluation), memory and speed count only where training itself is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.model import Cell, Difference, Kind, Place, Word
from harness.spec import Method, Task

# In this order a change runs through a step.
CHAIN: tuple[Kind, ...] = (
    "configuration", "data", "sampling", "reward", "loss", "gradient", "weights", "checkpoint",
    "metric", "evaluation", "memory", "speed", "missing", "dependency", "machine",
)  # fmt: skip
NAMES: dict[Kind, str] = {
    "configuration": "arguments",
    "data": "training data",
    "sampling": "sampled completions",
    "reward": "rewards",
    "loss": "loss",
    "gradient": "gradients",
    "weights": "weights",
    "checkpoint": "saving and loading",
    "metric": "logged metrics",
    "evaluation": "evaluation",
    "memory": "memory",
    "speed": "speed",
    "missing": "missing results",
    "dependency": "packages",
    "machine": "machine",
}
TASK_NAMES: dict[Task, str] = {"sft": "SFT", "grpo": "GRPO"}
METHODS: tuple[Method, ...] = ("full", "lora")
MOST_PAIRS = 4
_TRAINED: tuple[Kind, ...] = ("data", "sampling", "reward", "loss", "gradient", "weights")
_BY_THEMSELVES: tuple[Kind, ...] = ("memory", "speed", "configuration", "missing")
# What a reader looks at first; said to be the same where it is.
_HEADLINE: dict[Task, tuple[Kind, Kind]] = {"sft": ("loss", "data"), "grpo": ("reward", "sampling")}


def find_place(cells: Sequence[Cell], word: Word = "changed") -> Place | None:
    """Say where cells have a word; None if none has. What was accepted counts only if all of it was.

    Cells that differ in memory or speed alone are told apart from those that train otherwise.
    """
    seen = [cell for cell in cells if counted(cell, word)]
    seen = seen or [cell for cell in cells if cell.word == word]
    if not seen:
        return None
    heavier = [cell for cell in seen if set(kinds_of(cell, word)) <= {"memory", "speed"}]
    others = [cell for cell in seen if cell not in heavier]
    main = others or heavier
    tasks = _tasks(main)
    sentence = _merged([_task_text(task, cells, main, word) for task in tasks])
    if others and heavier:
        more = _merged([_task_text(task, cells, heavier, word) for task in _tasks(heavier)])
        sentence += f"; besides {more}"
    found = {kind for cell in seen for kind in kinds_of(cell, word)}
    certain = [*main, *(cell for cell in heavier if _is_counted_exactly(cell, word))]
    return Place(
        tasks=_tasks(certain),
        methods=tuple(m for m in METHODS if any(cell.method == m for cell in certain)),
        kinds=tuple(kind for kind in CHAIN if kind in found),
        sentence=sentence,
    )


def _is_counted_exactly(cell: Cell, word: Word) -> bool:
    """Whether what a cell takes more of was counted (passes, live tensors), not measured."""
    return any(d.what.startswith(("count/", "held/")) for d in counted(cell, word))


def _tasks(cells: Sequence[Cell]) -> tuple[Task, ...]:
    return tuple(task for task in TASK_NAMES if any(cell.task == task for cell in cells))


def counted(cell: Cell, word: Word) -> list[Difference]:
    """Return the differences of a word that nobody accepted."""
    return [d for d in cell.differences if d.word == word and d.accepted is None]


def kinds_of(cell: Cell, word: Word = "changed") -> tuple[Kind, ...]:
    """Return the kinds in which a cell differs where it first does."""
    ours = counted(cell, word) or [d for d in cell.differences if d.word == word]
    stepped = [d for d in ours if _is_of_training(d)]
    kinds = {d.kind for d in ours if d.kind in _BY_THEMSELVES and not _is_of_training(d)}
    first = _first_step(stepped)
    at_first = {d.kind for d in stepped if d.step == first}
    if "gradient" in at_first:
        at_first -= {"weights"}  # they follow in the same step
    kinds |= at_first | {d.kind for d in ours if d.step == 0}
    if stepped:  # other completions take other time
        kinds -= {"memory", "speed"}
    if not kinds:
        kinds = {d.kind for d in ours}
    return tuple(kind for kind in CHAIN if kind in kinds)


def first_step(cell: Cell, word: Word = "changed") -> int | None:
    """Return the first optimizer step at which a cell differs."""
    ours = counted(cell, word) or [d for d in cell.differences if d.word == word]
    return _first_step([d for d in ours if _is_of_training(d)])


def _first_step(found: Sequence[Difference]) -> int | None:
    return min((d.step for d in found if d.step), default=None)


def _is_of_training(found: Difference) -> bool:
    is_trained = found.kind in _TRAINED or found.what.startswith("log/")
    return (
        found.layer in ("exact", "trajectory")
        and found.step is not None
        and is_trained
        and not found.what.startswith(("check/", "evaluation/"))
    )


def _task_text(
    task: Task, cells: Sequence[Cell], seen: Sequence[Cell], word: Word
) -> tuple[str, ...]:
    """Return the task's name, where in it, and what; the last two may be shared by tasks."""
    ours = [cell for cell in seen if cell.task == task]
    where = _method_text([c for c in cells if c.task == task], ours)
    pairs = list(dict.fromkeys(cell.pair for cell in ours))
    compared = [cell for cell in cells if cell.task == task and cell.word in _COMPARED]
    named = [_pair_name(pair, compared, ours) for pair in pairs]
    pair_text = ""
    if named != list(dict.fromkeys(cell.pair for cell in compared)):
        shown = ", ".join(named[:MOST_PAIRS])
        more = f" and {len(pairs) - MOST_PAIRS} more" if len(pairs) > MOST_PAIRS else ""
        pair_text = f", in {shown}{more} only" if len(pairs) == 1 else f", in {shown}{more}"
    return TASK_NAMES[task], where + pair_text, _kind_text(task, ours, word)


def _pair_name(pair: str, compared: Sequence[Cell], seen: Sequence[Cell]) -> str:
    """Name a pair, with its arms where others that train the same way are unchanged."""
    arms = {cell.arm: cell.method for cell in seen if cell.pair == pair}
    like = {c.arm for c in compared if c.pair == pair and c.method in arms.values()}
    return pair if like <= arms.keys() else f"{pair} ({', '.join(arms)})"


def _method_text(cells: Sequence[Cell], seen: Sequence[Cell]) -> str:
    """Say which methods changed, among those that were compared in the pairs that did."""
    pairs = {cell.pair for cell in seen}
    compared = {c.method for c in cells if c.pair in pairs and c.word in _COMPARED}
    methods = {cell.method for cell in seen}
    if methods == {"full", "lora"}:
        return "full and LoRA alike"
    only, other = ("LoRA", "full") if methods == {"lora"} else ("full", "lora")
    name = "LoRA" if only == "LoRA" else "full fine-tuning"
    return f"{name} only" if other in compared else f"{name} (the only method compared there)"


_COMPARED: tuple[Word, ...] = ("same", "rounding", "undecided", "changed")


def _kind_text(task: Task, seen: Sequence[Cell], word: Word) -> str:
    kinds = {kind for cell in seen for kind in kinds_of(cell, word)}
    named = [NAMES[kind] for kind in CHAIN if kind in kinds]
    steps = [step for cell in seen if (step := first_step(cell, word)) is not None]
    text = _listed(named)
    if not steps:
        return text
    text += f" from step {min(steps)}"
    headline, before = _HEADLINE[task]
    if not kinds & {headline, before, "configuration", "data"}:
        text += f", {NAMES[headline]} the same"
    return text


def _merged(parts: Sequence[tuple[str, ...]]) -> str:
    """Say once what is the same of several tasks."""
    if len(parts) > 1 and len({part[1:] for part in parts}) == 1:
        names = " and ".join(part[0] for part in parts)
        return f"{names}, {parts[0][1]}: {parts[0][2]}"
    return "; ".join(f"{name}, {where}: {what}" for name, where, what in parts)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
