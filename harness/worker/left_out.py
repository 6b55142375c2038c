"""What of a dataset was not trained on, and how a result says so.

Rows that can't be used are found when the splits are made; rows that TRL cuts at max_length, or drops
since nothing of their completion is left, are seen on what the trainer made of them.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from transformers import Trainer

from harness.files import write_atomically
from harness.worker.progress import LISTED

UNUSABLE_FILE = "unusable_rows.txt"


def keep_unusable(attempt: Path, unusable: tuple[str, ...]) -> None:
    """Write every sentence into the attempt's folder, if there are more than a result lists."""
    if len(unusable) > LISTED:
        lines = (" ".join(sentence.split()) for sentence in unusable)
        content = "".join(f"{line}\n" for line in lines)
        write_atomically(attempt / UNUSABLE_FILE, content.encode("utf-8", "backslashreplace"))


def length_notes(trainer: Trainer, rows: int) -> tuple[str, ...]:
    """Say how many of the supervised training rows TRL cut at max_length, and how many it dropped.

    `rows` is how many the trainer was given. Packed rows have no length of their own, and GRPO cuts
    none.
    """
    limit = getattr(trainer.args, "max_length", None)
    if limit is None or getattr(trainer.args, "packing", False):
        return ()
    prepared = trainer.train_dataset
    if "input_ids" not in prepared.column_names:
        return ()
    full = 0
    for batch in prepared.select_columns(["input_ids"]).with_format("arrow").iter(1_000):
        lengths = pc.list_value_length(batch["input_ids"])
        full += pc.sum(pc.equal(lengths, limit)).as_py() or 0
    notes = []
    if full:
        notes.append(
            f"{full:,} of {rows:,} training rows fill max_length ({limit:,} tokens): TRL cut what "
            "they had beyond it."
        )
    if len(prepared) < rows:
        notes.append(
            f"{rows - len(prepared):,} of {rows:,} training rows were dropped by TRL: nothing of "
            f"their completion stands within max_length ({limit:,} tokens)."
        )
    return tuple(notes)
