r"""The frozen corpus: what every stack is given to play back.

{"name": "fraction", "completion": "\\boxed{\\frac{3}{4}}", "solution": "\\frac{3}{4}"}
{"name": "single", "messages": [{"role": "user", "content": "How many legs have three cats?"}]}
{"name": "short", "prompt": [{…}], "completion": [{"role": "assistant", "content": "1"}]}
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "assets" / "replay"
# Raised when the same corpus is asked other questions: values of different layouts are not comparable.
LAYOUT = 1


@dataclass(frozen=True)
class Scored:
    """A completion with the gold answer that it is judged by."""

    name: str
    completion: str
    solution: str | None


@dataclass(frozen=True)
class Corpus:
    """Everything that is played back."""

    scored: tuple[Scored, ...]
    chats: dict[str, list[dict[str, str]]]
    pairs: dict[str, dict[str, list[dict[str, str]]]]  # name → prompt, completion
    sha256: str


def read_corpus(folder: Path = FOLDER) -> Corpus:
    """Read the corpus."""
    seen = hashlib.sha256(f"layout {LAYOUT}".encode())
    for name in ("rewards", "chats", "pairs"):
        seen.update((folder / f"{name}.jsonl").read_bytes())
    return Corpus(
        scored=tuple(
            Scored(
                row["name"],
                row.get("before", "") * row.get("times", 1) + row["completion"],
                row["solution"],
            )
            for row in _rows(folder / "rewards.jsonl")
        ),
        chats={row["name"]: row["messages"] for row in _rows(folder / "chats.jsonl")},
        pairs={row.pop("name"): row for row in _rows(folder / "pairs.jsonl")},
        sha256=seen.hexdigest(),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
