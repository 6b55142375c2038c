"""Rows in which a silent change of data handling shows: uneven, multi-turn, too long, in several forms.

The other datasets of the embedded model have rows of nearly one length and one form, and a fault in
padding, packing, masking or truncation would leave them as they are. Here a sum has two to eight digits,
so that micro-batches differ in their tokens; conversations have up to three turns and now and then a
system turn; and a few rows are longer than any limit of a probe. What this leaves out: a task to become
good at.

Options:
    form        chat (prompt and completion, as messages), conversation (messages, several turns), text,
                or continuation (prompt and completion as plain text); grpo prompts are chat
    over_long   how many of the trained rows are some hundred tokens long
"""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset

from harness.errors import ConfigError, did_you_mean
from harness.worker.data import Request, Splits
from harness.worker.data.micro import boxed, completion_text
from harness.worker.data.refusals import open_ended, refuse_unknown_options, refuse_wrong_types

SAMPLE = {
    "prompt": [{"role": "user", "content": "8+4+7=?"}],
    "completion": [
        {"role": "assistant", "content": "<think>8+4=12;12+7=19</think>\\boxed{19}"},
    ],
}

NAME = "micro-probes"
FORMS = ("chat", "conversation", "text", "continuation")
DIGITS = (2, 8)  # of a sum: the fewest and the most
LONG_DIGITS = 36
MOST_TURNS = 3
SYSTEM = "add up"


def load(request: Request) -> Splits:
    """Draw the rows of a pair.

    Raises: ConfigError on an unknown option, a form that the task can't have, or all rows.
    """
    refuse_unknown_options(NAME, request.options, ("form", "over_long"))
    refuse_wrong_types(NAME, request.options, {"form": str, "over_long": int})
    form, over_long = request.options.get("form", "chat"), request.options.get("over_long", 0)
    if request.train_rows is None:
        raise ConfigError(open_ended(NAME))
    problems = _refusals(request.task, form, over_long, request.train_rows)
    if problems:
        raise ConfigError(*problems)
    draw = random.Random(request.seed)
    held_out = request.test_rows + request.validation_rows
    rows = [
        _row(draw, request.task, form, is_long=held_out <= i < held_out + over_long)
        for i in range(held_out + request.train_rows)
    ]
    table = Dataset.from_list(rows)
    return Splits(
        train=table.select(range(held_out, len(rows))),
        validation=table.select(range(request.test_rows, held_out)),
        test=table.select(range(request.test_rows)),
    )


def _row(draw: random.Random, task: str, form: str, *, is_long: bool) -> dict[str, Any]:
    """Draw one row in a form."""
    if form == "conversation":
        return {"messages": _conversation(draw, is_long)}
    question, answer, total = _sum(draw, LONG_DIGITS if is_long else draw.randint(*DIGITS))
    if task == "grpo":
        return {"prompt": [_turn("user", question)], "solution": boxed(total)}
    if form == "text":
        return {"text": f"{question} {answer}"}
    if form == "continuation":
        return {"prompt": f"{question} ", "completion": answer}
    return {"prompt": [_turn("user", question)], "completion": [_turn("assistant", answer)]}


def _conversation(draw: random.Random, is_long: bool) -> list[dict[str, str]]:
    turns = [_turn("system", SYSTEM)] if draw.random() < 0.3 else []
    for _ in range(draw.randint(1, MOST_TURNS)):
        question, answer, _ = _sum(draw, LONG_DIGITS if is_long else draw.randint(2, 4))
        turns += [_turn("user", question), _turn("assistant", answer)]
    return turns


def _sum(draw: random.Random, digits: int) -> tuple[str, str, int]:
    """Draw a sum: its question, its worked answer and what it comes to."""
    terms = [draw.randrange(10) for _ in range(digits)]
    steps, so_far = [], terms[0]
    for term in terms[1:]:
        steps.append(f"{so_far}+{term}={so_far + term}")
        so_far += term
    question = "+".join(map(str, terms)) + "=?"
    return question, completion_text(";".join(steps), so_far), so_far


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _refusals(task: str, form: str, over_long: int, train_rows: int) -> list[str]:
    found = []
    if form not in FORMS:
        found.append(
            f"dataset {NAME!r}: option 'form' is {form!r}{did_you_mean(form, FORMS)}; expected one of "
            f"{', '.join(FORMS)}"
        )
    elif task == "grpo" and form != "chat":
        found.append(f"dataset {NAME!r}: grpo takes the form 'chat', found {form!r}; remove it")
    if not 0 <= over_long <= train_rows:
        found.append(
            f"dataset {NAME!r}: option 'over_long' is {over_long}; expected 0 to train_rows, which is "
            f"{train_rows}"
        )
    return found
