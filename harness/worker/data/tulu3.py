"""tulu3: the mixture of instructions and answers that Tulu 3 was tuned on (SFT on the page).

939,343 train rows and no test split, in many languages and from many sources. Licence ODC-BY as a
whole; some of its parts are for non-commercial use only, `source` says which.

Rows have one or many turns: the last assistant turn is learnt, everything before it is the prompt.
Splits: cut from the train split by the dataset seed, test first. Length policy: TRL cuts a row at
`max_length`, which the run's notes count; a prompt of more than `max_prompt_tokens` is left out.
"""

from __future__ import annotations

from harness.worker.data import Request, Splits
from harness.worker.data.conversations import answered_row, chat_turns
from harness.worker.data.cutting import Row, cut_rows
from harness.worker.data.refusals import refuse_other_task, refuse_unknown_options
from harness.worker.data.repository_rows import read_splits

SAMPLE = {
    "id": "ours_0",
    "messages": [
        {"role": "user", "content": "Name three rivers of France."},
        {"role": "assistant", "content": "The Loire, the Seine and the Rhône."},
        {"role": "user", "content": "Which of them is the longest?"},
        {"role": "assistant", "content": "The Loire, with about 1,000 kilometres."},
    ],
    "source": "ours/questions",
}

NAME = "allenai/tulu-3-sft-mixture"


def load(request: Request) -> Splits:
    """Load conversation → last answer rows.

    Raises: ConfigError on another task, any option or what is wrong with the folder.
    """
    refuse_other_task(NAME, request.task, "sft")
    refuse_unknown_options(NAME, request.options, ())

    def convert(raw: Row) -> Row:
        return answered_row(chat_turns(raw["messages"], "messages", "role", "content"))

    (rows,) = read_splits(NAME, ("train",), request)
    return cut_rows(NAME, request, convert, rows)
