"""The command: play the corpus back, or say what is installed."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.files import write_atomically
from harness.launch.local import FIXED_VARIABLES, thread_variables
from harness.measure.environment import installed_distributions

if TYPE_CHECKING:
    from harness.worker.replay.items import Items

FORMAT = 1
PARTS = ("rewards", "chats", "rows", "numbers", "checkpoint")
# These are edited in place, so a version does not tell which code it is.
EDITED = ("trl", "transformers", "peft", "math_verify", "latex2sympy2_extended", "harness")


def fingerprint() -> str:
    """Hash what is installed, and the times of the files that somebody may have edited."""
    seen = hashlib.sha256(str(installed_distributions()["sha256"]).encode())
    for package in EDITED:
        found = find_spec(package)
        for place in sorted((found and found.submodule_search_locations) or ()):
            for path in sorted(Path(place).rglob("*")):
                if path.suffix in (".py", ".jinja", ".jsonl"):
                    facts = path.stat()
                    where = path.relative_to(place)
                    seen.update(f"{package} {where} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def replay(checkpoint: str | None, wanted: Collection[str] = PARTS) -> Items:
    """Play parts of the corpus back."""
    import datasets
    import torch
    import transformers

    from harness.worker.replay.chats import MODEL, replay_chats
    from harness.worker.replay.checkpoint import replay_checkpoint
    from harness.worker.replay.corpus import read_corpus
    from harness.worker.replay.items import Items
    from harness.worker.replay.numbers import replay_numbers
    from harness.worker.replay.patience import without_time_limits
    from harness.worker.replay.rows import replay_rows
    from harness.worker.replay.scoring import replay_rewards

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    corpus, items = read_corpus(), Items()
    items.put("corpus/sha256", corpus.sha256)
    parts: dict[str, Callable[[], None]] = {
        "rewards": lambda: replay_rewards(items, corpus),
        "chats": lambda: replay_chats(items, corpus),
        "rows": lambda: replay_rows(items, corpus),
        "numbers": lambda: replay_numbers(items),
        "checkpoint": lambda: replay_checkpoint(items, checkpoint or MODEL),
    }
    for what in wanted:
        try:
            with without_time_limits():
                parts[what]()
        except Exception as error:  # noqa: BLE001 - the other parts still say what they found
            traceback.print_exc()
            items.notes.append(f"{what} ended with {type(error).__name__}: {error}"[:500])
    return items


def main() -> int:
    """Write what was found to a file."""
    parser = argparse.ArgumentParser(prog="python -m harness.worker.replay", description=__doc__)
    parser.add_argument("output", nargs="?", type=Path, help="the JSON file to write")
    parser.add_argument("--checkpoint", help="a saved model to evaluate; the embedded one without")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="a part to play back; several; all without"
    )
    parser.add_argument(
        "--fingerprint", action="store_true", help="say what is installed, and stop"
    )
    asked = parser.parse_args()
    if asked.fingerprint:
        print(fingerprint())  # noqa: T201 - the contract's answer
        return 0
    if asked.output is None:
        parser.error("name the file to write")
    # Before torch is imported: thread pools and the Hub's client read them once.
    os.environ.update({**thread_variables(1), **FIXED_VARIABLES, "HF_HUB_OFFLINE": "1"})
    items = replay(asked.checkpoint, asked.only or PARTS)
    found = {
        "format": FORMAT,
        "values": dict(sorted(items.values.items())),
        "absent": sorted(items.absent),
        "notes": items.notes,
    }
    write_atomically(asked.output, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
