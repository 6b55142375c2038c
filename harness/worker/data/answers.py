r"""Gold answers in the form that TRL's rewards parse, and questions that ask for that form.

The rewards parse a gold answer with math-verify's default extractors: bare LaTeX such as `\infty`
is not found at all, and of `2\sqrt{3}` only the 2. Boxed, all of it is read. A row whose gold can't
be parsed would be scored None for every completion: it teaches nothing, so it is left out.

A gold answer is a stranger's text that a computer algebra system is asked to read. It is never
evaluated here, reading it has a limit of time, and absurdly long ones are not read at all.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any

from math_verify import parse

from harness.worker.data import Request
from harness.worker.data.cutting import Row, Unusable, text_of
from harness.worker.data.refusals import (
    refuse_other_task,
    refuse_unknown_options,
    refuse_wrong_types,
)

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
OPTION_TYPES: dict[str, type | tuple[type, ...]] = {"instruction": (str, type(None))}

PARSE_TIMEOUT_S = 5
MOST_ANSWER_CHARACTERS = 1_000  # longer than any real final answer
MOST_NESTED_BRACKETS = 12  # math-verify's time doubles with each: a second here, hours at 30
MOST_SOLUTION_CHARACTERS = 100_000
PLAIN_NUMBER = re.compile(r"-?\d{1,300}(\.\d{1,300})?")


def question_row(question: str, solution: str, instruction: str | None) -> Row:
    """Return TRL's columns: the question, with what it is asked to end in, and the gold answer."""
    asked = f"{question}\n\n{instruction}" if instruction else question
    return {"prompt": [{"role": "user", "content": asked}], "solution": solution}


def chosen_instruction(name: str, request: Request, default: str | None) -> str | None:
    """Return the text that follows each question; refuse what a module of gold answers can't serve.

    Raises: ConfigError on another task than grpo, an unknown option or a wrong value.
    """
    refuse_other_task(name, request.task, "grpo")
    refuse_unknown_options(name, request.options, OPTION_TYPES)
    refuse_wrong_types(name, request.options, OPTION_TYPES)
    return request.options.get("instruction", default)


def asked_note(instruction: str | None) -> tuple[str, ...]:
    """Say in the record what follows each question."""
    return (f"Each question is followed by: {instruction}",) if instruction else ()


def boxed_answer(row: dict[str, Any], column: str) -> str:
    """Return a row's short final answer, boxed.

    Raises: Unusable if it is missing, longer or more nested than any answer, or math-verify can't
    parse it.
    """
    answer = text_of(row, column).strip()
    if len(answer) > MOST_ANSWER_CHARACTERS:
        raise Unusable(f"its `{column}` has {len(answer):,} characters: no final answer")
    if (depth := nesting(answer)) > MOST_NESTED_BRACKETS:
        raise Unusable(f"its `{column}` nests brackets {depth} deep: no final answer")
    gold = f"\\boxed{{{answer}}}"
    if not (PLAIN_NUMBER.fullmatch(answer) or can_be_parsed(gold)):
        raise Unusable(f"math-verify can't parse its `{column}` {answer[:60]!r}")
    return gold


def nesting(text: str) -> int:
    """Return how deep brackets of any kind stand within one another."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def worked_solution(row: dict[str, Any], column: str) -> str:
    """Return a row's worked solution whole; math-verify finds the answer in it.

    Raises: Unusable if it is missing, endless, or holds no answer that math-verify can parse.
    """
    solution = text_of(row, column)
    if len(solution) > MOST_SOLUTION_CHARACTERS:
        raise Unusable(f"its `{column}` has {len(solution):,} characters: no worked solution")
    if not can_be_parsed(solution):
        raise Unusable(f"math-verify finds no answer in its `{column}`")
    return solution


@lru_cache(maxsize=4096)  # a dataset's answers repeat, and parsing one takes milliseconds
def can_be_parsed(gold: str) -> bool:
    """Whether math-verify finds an answer in a text, as the rewards look for it."""
    is_main = threading.current_thread() is threading.main_thread()
    # Its time limit is an alarm signal, which only the main thread may set.
    return len(parse(gold, parsing_timeout=PARSE_TIMEOUT_S if is_main else None)) > 0
