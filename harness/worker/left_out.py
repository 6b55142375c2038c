"""What of a dataset was not trained on, and how a result says so.

Rows that can't be used are found when the splits are made; rows that TRL cuts at max_length, or drops
since nothing of their completion is left, are seen on what the trainer made of them.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset
from transformers import Trainer

from harness.errors import ConfigError
from harness.files import write_atomically
from harness.worker.data import Splits
from harness.worker.progress import LISTED

UNUSABLE_FILE = "unusable_rows.txt"


def keep_unusable(attempt: Path, unusable: tuple[str, ...]) -> None:
    """Write every sentence into the attempt's folder, if there are more than a result lists."""
    if len(unusable) > LISTED:
        lines = (" ".join(sentence.split()) for sentence in unusable)
        content = "".join(f"{line}\n" for line in lines)
        write_atomically(attempt / UNUSABLE_FILE, content.encode("utf-8", "backslashreplace"))


def length_notes(trainer: Trainer, splits: Splits) -> list[str]:
    """Say how many of the supervised rows TRL cut at max_length, and how many it dropped.

    Packed rows have no length of their own, and GRPO cuts none.

    Raises: ConfigError if nothing of a split is left: there is nothing to train on, or to judge by.
    """
    limit = getattr(trainer.args, "max_length", None)
    if limit is None or getattr(trainer.args, "packing", False):
        return []
    prepared = {"train": trainer.train_dataset, **(trainer.eval_dataset or {})}
    given = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    notes, emptied = [], []
    for split, rows in prepared.items():
        asked, left = len(given[split]), len(rows)
        within = f"within max_length ({limit:,} tokens)"
        if left == 0:
            emptied.append(
                f"none of the {asked:,} {split} rows has any of its completion {within}: raise "
                "max_length, or set max_prompt_tokens below it"
            )
            continue
        full = _rows_of_length(rows, limit)
        if full:
            notes.append(
                f"{full:,} of {asked:,} {split} rows fill max_length ({limit:,} tokens): "
                "TRL cut what they had beyond it."
            )
        if left < asked:
            notes.append(
                f"{asked - left:,} of {asked:,} {split} rows were dropped by TRL: nothing "
                f"of their completion stands {within}."
            )
    if emptied:
        raise ConfigError(*emptied)
    return notes


def _rows_of_length(rows: Dataset, length: int) -> int:
    if "input_ids" not in rows.column_names:
        return 0
    count = 0
    for batch in rows.select_columns(["input_ids"]).with_format("arrow").iter(1_000):
        equal = pc.equal(pc.list_value_length(batch["input_ids"]), length)
        count += pc.sum(equal).as_py() or 0
    return count
