"""An answer of a search in words: what changed training, how that shows, what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.bisect import Answer, Outcome
from harness.bisect_question import Question
from harness.trial import Trial, label


def sentence(answer: Answer, question: Question) -> str:
    """Say what a search came to."""
    good, bad = label(question.good), label(question.bad)
    if answer.word == "nothing":
        return f"nothing to bisect: training is the same with {good} and {bad}"
    if answer.word == "unknown":
        return f"the ends can't be told apart: {answer.tried[0].outcome.why}"
    if answer.packages:
        moved = (f"{n} {question.good[n]} → {question.bad[n]}" for n in answer.packages)
        return f"training changed with {', '.join(moved)}"
    name = label({question.package: answer.bad or ""})
    if answer.between:
        untried = ", ".join(answer.between)
        return f"training changed between {answer.good} and {name}; {untried} between them can't be tried"
    return f"training changed between {answer.good} and {name}, which are adjacent"


def details(answer: Answer) -> list[str]:
    """Say where the change shows, and what else was seen."""
    outcome = answer.decisive
    lines = [] if outcome.word != "bad" else [f"where: {', '.join(outcome.cells) or 'in no cell'}"]
    if outcome.word == "bad":
        lines.append(f"first difference: {difference_text(outcome)}")
    return [*lines, *(f"note: {note}" for note in answer.notes)]


def difference_text(outcome: Outcome) -> str:
    """Say the gravest difference with both values."""
    found = outcome.difference
    if found is None or found.step is None:
        return outcome.why
    return f"{found.what} at step {found.step}: {found.base} became {found.candidate}"


def next_steps(answer: Answer, question: Question, trial: Trial) -> list[str]:
    """List the commands that show more."""
    folders = folders_of(answer, question, trial)
    steps = [shlex.join(["harness", "compare", *map(str, folders)])] if folders else []
    if answer.word == "nothing" and question.releases:
        steps.append("harness bisect --good-lock OLD.txt --bad-lock NEW.txt")
    if len(answer.packages) == 1:
        name = answer.packages[0]
        package = [] if name == "trl" else ["--package", name]
        ends = ["--good", question.good[name], "--bad", question.bad[name]]
        steps.append(shlex.join(["harness", "bisect", *package, *ends]))
    return steps


def folders_of(answer: Answer, question: Question, trial: Trial) -> tuple[Path, ...]:
    """Return the studies that show the change: before and after it."""
    if answer.packages:
        after = question.mixture(frozenset(answer.packages))
        return trial.folder_of(question.good), trial.folder_of(after)
    if answer.good is None or answer.bad is None:
        return ()
    before, after = question.stack(answer.good), question.stack(answer.bad)
    return trial.folder_of(before), trial.folder_of(after)


def as_json(answer: Answer, question: Question, trial: Trial) -> str:
    """Write an answer as one line of JSON."""
    data: Mapping[str, Any] = {
        **answer.model_dump(mode="json"),
        "sentence": sentence(answer, question),
        "package": question.package if question.releases else None,
        "cells": list(answer.decisive.cells),
        "difference": answer.decisive.model_dump(mode="json")["difference"],
        "commands": next_steps(answer, question, trial),
    }
    return json.dumps(data)
