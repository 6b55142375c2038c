"""openthoughts: long reasoning traces on mathematics, code, science and puzzles (SFT on the page).

113,957 train rows and no test split, Apache-2.0. The blog trained on OpenThoughts3, a later and
larger set; the page names this one. Its turns are called `from` and `value`, and are renamed. The
instruction to think first stands in a column of its own, `system`, which TRL's conversion leaves
behind: it is prepended here as the system turn.

Splits: cut from the train split by the dataset seed, test first. Length policy: traces have
thousands of tokens, and TRL cuts a row at `max_length`, which the run's notes count; a prompt of
more than `max_prompt_tokens` is left out.

Options:
    prepend_system   whether the `system` column becomes the system turn (default true)
"""

from __future__ import annotations

from harness.worker.data import Request, Splits
from harness.worker.data.conversations import answered_row, chat_turns
from harness.worker.data.cutting import Row, cut_rows
from harness.worker.data.refusals import (
    refuse_other_task,
    refuse_unknown_options,
    refuse_wrong_types,
)
from harness.worker.data.repository_rows import read_splits

SAMPLE = {
    "system": (
        "Think the question through before you answer. Write your thoughts between "
        "<|begin_of_thought|> and <|end_of_thought|>, and the answer between "
        "<|begin_of_solution|> and <|end_of_solution|>."
    ),
    "conversations": [
        {"from": "user", "value": "Is 91 a prime number?"},
        {
            "from": "assistant",
            "value": (
                "<|begin_of_thought|>\n\n91 is odd and 9+1 is no multiple of 3. 7 times 13 is "
                "91.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nNo: 91 = 7 × 13."
                "\n\n<|end_of_solution|>"
            ),
        },
    ],
}

NAME = "open-thoughts/OpenThoughts-114k"
OPTION_TYPES: dict[str, type | tuple[type, ...]] = {"prepend_system": bool}


def load(request: Request) -> Splits:
    """Load question → reasoning trace rows.

    Raises: ConfigError on another task, an unknown option or what is wrong with the folder.
    """
    refuse_other_task(NAME, request.task, "sft")
    refuse_unknown_options(NAME, request.options, OPTION_TYPES)
    refuse_wrong_types(NAME, request.options, OPTION_TYPES)
    has_system = request.options.get("prepend_system", True)

    def convert(raw: Row) -> Row:
        turns = chat_turns(raw["conversations"], "conversations", "from", "value")
        system = raw["system"] if has_system else None
        if isinstance(system, str) and system.strip():
            turns = [{"role": "system", "content": system}, *turns]
        return answered_row(turns)

    (rows,) = read_splits(NAME, ("train",), request)
    return cut_rows(NAME, request, convert, rows)
