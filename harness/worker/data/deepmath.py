r"""deepmath: hard mathematics with a short final answer (GRPO on the page).

103,022 train rows and no test split, MIT licence; an earlier revision had 103,110 rows and leaked
some answers in its questions, so a run records the commit that it read. The gold answer is
`final_answer`, boxed; `r1_solution_1` to `_3`, most of the download, are never read.

Splits: cut from the train split by the dataset seed, test first. Length policy: a prompt of more
than `max_prompt_tokens` is left out; completions are the trainer's (the blog caps them at 8,192).

Options:
    instruction   text after each question (null: none); by default it asks for \boxed{}, because
                  the rewards read an answer in LaTeX alone
"""

from __future__ import annotations

from harness.worker.data import Request, Splits
from harness.worker.data.answers import (
    INSTRUCTION,
    asked_note,
    boxed_answer,
    chosen_instruction,
    question_row,
)
from harness.worker.data.cutting import Row, cut_rows, text_of
from harness.worker.data.repository_rows import read_splits

SAMPLE = {
    "question": "Evaluate the limit \\( \\lim_{x \\to 0} \\frac{1 - \\cos(3x)}{x^2} \\).",
    "final_answer": "\\dfrac{9}{2}",
    "difficulty": 4.0,
    "topic": "Mathematics -> Calculus -> Limits",
    "r1_solution_1": "Near 0, cos(3x) is 1 - 9x^2/2, so the quotient tends to **9/2**.",
    "r1_solution_2": "With 1 - cos(u) = 2 sin^2(u/2) the limit is 2 (3/2)^2 = **9/2**.",
    "r1_solution_3": "L'Hopital twice: 9 cos(3x) / 2 at x = 0 gives **9/2**.",
}

NAME = "zwhe99/DeepMath-103K"


def load(request: Request) -> Splits:
    """Load question → boxed final answer rows.

    Raises: ConfigError on another task, an unknown option or what is wrong with the folder.
    """
    instruction = chosen_instruction(NAME, request, INSTRUCTION)

    def convert(raw: Row) -> Row:
        question = text_of(raw, "question")
        return question_row(question, boxed_answer(raw, "final_answer"), instruction)

    (rows,) = read_splits(NAME, ("train",), request)
    return cut_rows(NAME, request, convert, rows, notes=asked_note(instruction))
