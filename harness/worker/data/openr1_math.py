"""openr1_math: competition mathematics whose answers were verified (GRPO on the page).

About 94,000 train rows and no test split; the parent dataset's licence is Apache-2.0. The gold
answer is the whole worked `solution`, as the page's own script passes it: math-verify reads the
boxed result out of it. `answer` is the short form of the same and is not read, nor are the sampled
`generations`, most of the download.

Splits: cut from the train split by the dataset seed, test first. Length policy: a prompt of more
than `max_prompt_tokens` is left out (the page: 1,024); completions are the trainer's.

Options:
    instruction   text after each problem (null: none). None by default: the page passes the problem
                  alone, and SmolLM3 boxes its answers unasked
"""

from __future__ import annotations

from harness.worker.data import Request, Splits
from harness.worker.data.answers import (
    asked_note,
    chosen_instruction,
    question_row,
    worked_solution,
)
from harness.worker.data.cutting import Row, cut_rows, text_of
from harness.worker.data.repository_rows import read_splits

SAMPLE = {
    "problem": (
        "A tank is filled by one pipe in 6 hours and by another in 3 hours. In how many hours do "
        "both pipes fill it together?"
    ),
    "solution": (
        "Per hour the pipes fill $\\frac{1}{6} + \\frac{1}{3} = \\frac{1}{2}$ of the tank, so both "
        "need $\\boxed{2}$ hours."
    ),
    "answer": "2",
    "problem_type": "Algebra",
    "question_type": "math-word-problem",
    "source": "olympiads",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "is_reasoning_complete": [True],
    "generations": [
        "<think>\n1/6 + 1/3 is 1/2.\n</think>\n\nTogether they need $\\boxed{2}$ hours."
    ],
    "correctness_math_verify": [True],
    "correctness_llama": None,
    "finish_reasons": ["stop"],
    "correctness_count": 1,
    "messages": [
        {"role": "user", "content": "A tank is filled by one pipe in 6 hours ..."},
        {"role": "assistant", "content": "<think>\n...\n</think>\n\n... $\\boxed{2}$ hours."},
    ],
}

NAME = "HuggingFaceH4/OpenR1-Math-220k-default-verified"


def load(request: Request) -> Splits:
    """Load problem → worked solution rows.

    Raises: ConfigError on another task, an unknown option or what is wrong with the folder.
    """
    instruction = chosen_instruction(NAME, request, None)

    def convert(raw: Row) -> Row:
        problem = text_of(raw, "problem")
        return question_row(problem, worked_solution(raw, "solution"), instruction)

    (rows,) = read_splits(NAME, ("train",), request)
    return cut_rows(NAME, request, convert, rows, notes=asked_note(instruction))
