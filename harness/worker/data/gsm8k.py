r"""gsm8k: school word problems in plain numbers (GRPO on the page).

7,473 train and 1,319 test rows, MIT licence. The answer is a worked solution whose last line is
`#### 72`; the gold answer is what stands after `####`, commas stripped, boxed. The calculator marks
in the working (`<<48/2=24>>`) are read by nobody: only the answer is used.

Splits: test rows from the repository's own test split, validation and train from its train split.
Length policy: a prompt of more than `max_prompt_tokens` is left out; completions are the trainer's.

Options:
    instruction   text after each question (null: none); by default it asks for \boxed{}, because
                  the rewards read an answer in LaTeX alone
"""

from __future__ import annotations

import re

from harness.worker.data import Request, Splits
from harness.worker.data.answers import (
    INSTRUCTION,
    asked_note,
    chosen_instruction,
    question_row,
)
from harness.worker.data.cutting import Row, Unusable, cut_rows, text_of
from harness.worker.data.repository_rows import read_splits

SAMPLE = {
    "question": (
        "A bakery fills 48 boxes with rolls in the morning and half as many in the afternoon. "
        "How many boxes does it fill that day?"
    ),
    "answer": (
        "In the afternoon it fills 48/2 = <<48/2=24>>24 boxes.\n"
        "That day it fills 48+24 = <<48+24=72>>72 boxes.\n"
        "#### 72"
    ),
}

NAME = "openai/gsm8k"
NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?")


def load(request: Request) -> Splits:
    """Load question → boxed number rows.

    Raises: ConfigError on another task, an unknown option or what is wrong with the folder.
    """
    instruction = chosen_instruction(NAME, request, INSTRUCTION)

    def convert(raw: Row) -> Row:
        return question_row(text_of(raw, "question"), final_number(raw), instruction)

    train, test = read_splits(NAME, ("train", "test"), request)
    return cut_rows(NAME, request, convert, train, test, asked_note(instruction))


def final_number(raw: Row) -> str:
    """Return the number after `####`, commas stripped, boxed.

    Raises: Unusable if there is no such number.
    """
    _, mark, result = text_of(raw, "answer").rpartition("####")
    number = result.strip().replace(",", "").removeprefix("$")
    if not mark:
        raise Unusable("its `answer` has no line '#### number'")
    if not NUMBER.fullmatch(number):
        raise Unusable(f"what follows '####' is no number: {number[:60]!r}")
    return f"\\boxed{{{number}}}"
