"""What the datasets of the embedded model share: a problem, its rows, and three disjoint splits.

A dataset of the embedded model is a finite list of problems, each with a prompt of its own.
Splitting is a seeded shuffle of that list cut in three, so no prompt can stand in two splits. What
this leaves out: which problems there are; `micro_arithmetic` and `micro_steps` say that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from harness.errors import ConfigError
from harness.worker.data import Request, Splits
from harness.worker.data.refusals import open_ended

TASKS = ("grpo", "sft")


@dataclass(frozen=True)
class Problem:
    """A question, the working that leads to its answer, and the answer."""

    question: str
    working: str
    answer: int

    @property
    def completion(self) -> str:
        """The text that an assistant should answer with."""
        return completion_text(self.working, self.answer)

    @property
    def solution(self) -> str:
        """The gold answer in a form that math-verify parses."""
        return boxed(self.answer)


def boxed(answer: int) -> str:
    """Write an answer the way the rewards look for it."""
    return f"\\boxed{{{answer}}}"


def completion_text(working: str, answer: int) -> str:
    """Write working and answer as one assistant message."""
    return f"<think>{working}</think>{boxed(answer)}"


def row(problem: Problem, task: str) -> dict[str, Any]:
    """Turn a problem into the columns that TRL's trainer for this task takes.

    The supervised rows keep `solution` too: a held-out answer can then be checked for being right,
    not only for being likely.
    """
    columns: dict[str, Any] = {
        "prompt": [{"role": "user", "content": problem.question}],
        "solution": problem.solution,
    }
    if task == "sft":
        columns["completion"] = [{"role": "assistant", "content": problem.completion}]
    return columns


def split(name: str, problems: Sequence[Problem], request: Request) -> Splits:
    """Draw the three splits that a pair asks for.

    Raises: ConfigError if the task or an option is unknown, or if there are too few problems.
    """
    refused = refusals(name, len(problems), request)
    if refused:
        raise ConfigError(*refused)
    shuffled = list(problems)
    random.Random(request.seed).shuffle(shuffled)
    # One table, so that a split without rows still has the columns.
    rows = Dataset.from_list([row(problem, request.task) for problem in shuffled])
    # Held-out rows are cut first: a pair that later trains on more rows is judged on the same ones.
    test_end = request.test_rows
    validation_end = test_end + request.validation_rows
    train_end = validation_end + (request.train_rows or 0)  # refused above if null
    return Splits(
        train=rows.select(range(validation_end, train_end)),
        validation=rows.select(range(test_end, validation_end)),
        test=rows.select(range(test_end)),
    )


def refusals(name: str, available: int, request: Request) -> list[str]:
    """List what a request asks for that these problems cannot give."""
    found = []
    if request.task not in TASKS:
        found.append(f"dataset {name!r}: task {request.task!r} is unknown; expected grpo or sft")
    if request.options:
        given = ", ".join(sorted(request.options))
        found.append(f"dataset {name!r} takes no options, found {given}; remove them")
    if request.train_rows is None:
        return [*found, open_ended(name)]
    wanted = request.train_rows + request.validation_rows + request.test_rows
    if wanted > available:
        found.append(
            f"dataset {name!r} has {available} distinct rows, but the splits ask for {wanted} "
            f"({request.train_rows} train + {request.validation_rows} validation "
            f"+ {request.test_rows} test); ask for fewer"
        )
    return found
