"""Hand-made sides and comparisons: four cells (SFT and GRPO, full and LoRA) in which one thing is planted.

A planted fault scales, replaces or drops what a run of the candidate measured; the comparison then says
`changed` of the cells in which it did, as an engine would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.compare.model import (
    Cell,
    Comparison,
    Control,
    Curve,
    Difference,
    Kind,
    Place,
    Word,
)
from harness.compare.side import RunSide, Side
from harness.probe import Probe, ProbeStep
from harness.record import Status

HOSTILE = (
    "<script>alert(1)</script> {{7*7}} | `x` [a](javascript:1) \x1b[31mred\x1b[0m \x00\x08 \u2028\ufffe\"'&"
    " ]]> :: @someone #12 %0A, ::error::x \n::error title=x::y"
)
STEPS = 10
CELLS = (("sft", "full"), ("sft", "lora"), ("grpo", "full"), ("grpo", "lora"))
ARGUMENTS: dict[str, dict[str, Any]] = {
    "sft": {"gradient_accumulation_steps": 3, "loss_type": "nll", "per_device_train_batch_size": 4},
    "grpo": {
        "gradient_accumulation_steps": 2, "steps_per_generation": 2, "num_generations": 4, "beta": 0.0,
        "temperature": 0.7, "loss_type": "dapo", "scale_rewards": "group", "use_vllm": False,
        "per_device_train_batch_size": 4,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Both sides and what comparing them came to."""

    comparison: Comparison
    base: Side
    candidate: Side

    @property
    def all(self) -> tuple[Comparison, Side, Side]:
        return self.comparison, self.base, self.candidate


@dataclass
class Run:
    """What one run measures; a fault changes it in place."""

    task: str
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    losses: list[float | None] = field(default_factory=list)
    gradients: list[float | None] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    series: dict[str, list[float | None]] = field(default_factory=dict)


def make_run(task: str, method: str) -> Run:
    """A plain run: every number is of its step alone."""
    steps = range(1, STEPS + 1)
    run = Run(task, method, dict(ARGUMENTS[task]))
    run.losses = [2.5 - 0.05 * s for s in steps] if task == "sft" else [1e-9 * s for s in steps]
    run.gradients = [0.8 + 0.013 * s for s in steps]
    run.updates = [0.01 * s for s in steps]
    run.rss_bytes = [400 * 2**20 + 1000 * s for s in steps]
    if task == "grpo":
        # Two groups of four: divided by their deviation, their squares sum to two times three.
        run.advantages = [6**0.5] * STEPS
        run.series["reward_std"] = [0.45 + 0.01 * (s % 3) for s in steps]
    return run


def as_side(
    runs: Iterable[Run], label: str, packages: dict[str, str | None], **fields: Any
) -> Side:
    made = tuple(_run_side(run) for run in runs)
    return Side(
        label=label,
        matrix_name="upgrade",
        harness_version="0.1.0",
        created_utc="2026-01-02T03:04:05Z",
        packages=packages,
        runs=made,
        runs_count=len(made),
        **{"matrix_hash": "0" * 64, "installed_sha256": "1" * 64, **fields},
    )


def _run_side(run: Run) -> RunSide:
    steps = tuple(
        ProbeStep(
            step=number,
            cpu_s=0.1,
            rss_bytes=run.rss_bytes[number - 1],
            losses=(run.losses[number - 1],),
            batches=("b",),
            numbers={"advantages/l2": run.advantages[number - 1]} if run.advantages else {},
            gradient={"attention": run.gradients[number - 1]},
            update={"attention": run.updates[number - 1]},
            sha256="c" * 64,
        )
        for number in range(1, STEPS + 1)
    )
    lora = {"lora": {"default": {"r": 8, "lora_alpha": 32}}} if run.method == "lora" else {}
    return RunSide(
        cell=f"{run.task}-plain.{run.method}.s0",
        pair=f"{run.task}-plain",
        arm=run.method,
        seed=0,
        task=run.task,
        method=run.method,
        spec_sha256="2" * 64,
        status=Status.OK,
        config={"arguments": run.arguments, **lora},
        series={name: tuple(values) for name, values in run.series.items()},
        probe=Probe(
            construct_cpu_s=1.0, dtypes={"float32": 10}, initial_sha256="d" * 64, steps=steps
        ),
    )


def make(
    fault: Callable[[Run], None] | None = None,
    *,
    kind: Kind = "gradient",
    what: str = "gradient/attention",
    trl: tuple[str, str] = ("1.15.9", "1.16.0"),
    packages: dict[str, tuple[str | None, str | None]] | None = None,
    both: Callable[[Run], None] | None = None,
    word: Word = "changed",
    base_fields: dict[str, Any] | None = None,
    candidate_fields: dict[str, Any] | None = None,
    asked: tuple[Difference, ...] = (),
    accepted: str | None = None,
    **fields: Any,
) -> Made:
    """Make both sides, plant a fault in the candidate's runs, and say where it was seen."""
    before = [make_run(*cell) for cell in CELLS]
    after = [make_run(*cell) for cell in CELLS]
    for run in (*before, *after):
        (both or (lambda _: None))(run)
    for run in after:
        (fault or (lambda _: None))(run)
    versions = {
        "trl": trl,
        "transformers": ("5.17.0",) * 2,
        "peft": ("0.21.2",) * 2,
        **(packages or {}),
    }
    base = as_side(
        before, f"TRL {trl[0]}", {n: v[0] for n, v in versions.items()}, **(base_fields or {})
    )
    candidate = as_side(
        after, f"TRL {trl[1]}", {n: v[1] for n, v in versions.items()}, **(candidate_fields or {})
    )
    cells = tuple(
        _cell(one, other, kind, what, word if one != other else "same", accepted)
        for one, other in zip(before, after, strict=True)
    )
    is_changed = any(cell.word == word for cell in cells)
    values: dict[str, Any] = {
        "base": base.label,
        "candidate": candidate.label,
        "matrix_name": "upgrade",
        "word": word if is_changed else "same",
        "sentence": f"TRL {trl[1]} trains otherwise than {trl[0]}."
        if is_changed
        else "Nothing changed.",
        "cells": cells,
        "controls": (Control(compared=4, alarms=0),),
        "packages": tuple((n, *v) for n, v in versions.items() if v[0] != v[1]),
        "asked": asked,
        **fields,
    }
    return Made(Comparison(**values), base, candidate)


def _cell(one: Run, other: Run, kind: Kind, what: str, word: Word, accepted: str | None) -> Cell:
    difference = Difference(
        layer="exact",
        kind=kind,
        what=what,
        word=word,
        step=1,
        base=one.gradients[0],
        candidate=other.gradients[0],
        relative=0.5,
        sentence="The gradient norm of attention is another one.",
        accepted=accepted,
    )
    return Cell(
        pair=f"{one.task}-plain",
        arm=one.method,
        task=one.task,
        method=one.method,
        seeds=(0,),
        word=word,
        sentence="It differs from step 1." if word != "same" else "All is the same.",
        differences=() if word == "same" else (difference,),
        curves=()
        if word == "same"
        else (Curve(what=what, base=tuple(one.gradients), candidate=tuple(other.gradients)),),
    )


def only(
    task: str | None = None, method: str | None = None, **changes: Callable[[Any], Any]
) -> Callable[[Run], None]:
    """A fault that maps some of a run's lists, in some of the cells."""

    def plant(run: Run) -> None:
        if (task or run.task, method or run.method) == (run.task, run.method):
            for name, change in changes.items():
                setattr(run, name, [change(value) for value in getattr(run, name)])

    return plant


def every_word() -> Comparison:
    """A comparison with a cell of each word, and something in every field."""
    words: tuple[Word, ...] = (
        "same", "rounding", "not comparable", "unsupported here", "undecided", "changed",
    )  # fmt: skip
    cells = tuple(
        Cell(
            pair=f"pair-{number}",
            arm="full",
            task="sft",
            method="full",
            seeds=(0, 1),
            word=word,
            sentence=f"This one is {word}.",
            differences=()
            if word == "same"
            else (
                Difference(
                    layer="exact", kind="loss", what="log/loss", word=word, step=3, base=None,
                    candidate=0.25, relative=None, sentence=f"The loss is {word}.",
                ),
            ),
            curves=(Curve(what="log/loss", base=(1.0, None, None), candidate=(1.0, 0.5, 0.25)),),
        )
        for number, word in enumerate(words)
    )  # fmt: skip
    return Comparison(
        base="TRL 1.14.2",
        candidate="TRL 1.16.0",
        matrix_name="upgrade",
        word="changed",
        sentence="SFT changed in full fine-tuning: losses from step 3.",
        place=Place(
            tasks=("sft",),
            methods=("full",),
            kinds=("loss",),
            sentence="SFT, full: losses from step 3",
        ),
        cells=cells,
        controls=(Control(compared=6, alarms=0),),
    )


def with_text(value: str, cells: int = 1) -> Made:
    """A comparison in which every text is the given one."""
    difference = Difference(
        layer="exact", kind="loss", what=value, word="changed", step=1, base=value,
        candidate={"a": [value, None]}, sentence=value,
    )  # fmt: skip
    comparison = Comparison(
        base=value,
        candidate=value,
        matrix_name=value,
        word="changed",
        sentence=value,
        place=Place(tasks=("sft",), methods=("full",), kinds=("loss",), sentence=value),
        cells=tuple(
            Cell(
                pair=f"{value}{number}", arm=value, task="sft", method="full", seeds=(0,), word="changed",
                sentence=value, differences=(difference,),
                curves=(Curve(what=value, base=(1.0, 2.0), candidate=(1.0, 3.0)),),
            )
            for number in range(cells)
        ),
        asked=(difference.model_copy(update={"kind": "configuration", "layer": "asked"}),),
        replay=(difference.model_copy(update={"layer": "replay"}),),
        controls=(Control(compared=2, alarms=1, sentences=(value,)),),
        causes=({"kind": "release", "what": value, "sentence": value, "score": 0.5},),
        notices=(value,),
        acknowledged=({"what": value, "reason": value, "version": value, "by": value},),
        packages=((value, value, None),),
        notes=(value,),
    )  # fmt: skip
    side = as_side((), value, {value: value}, platform={value: value}, unreadable=(value,))
    return Made(comparison, side, side)
