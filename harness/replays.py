"""`replay.json`: what the stack of a study made of the harness's frozen corpus, beside the study's runs.

What this leaves out: playing the corpus back, which needs the ML libraries (`worker/replay`), asking for it
(`replaying`), and what a difference means (`compare/replay`).
"""

from __future__ import annotations

from pathlib import Path

from harness.frozen import Frozen
from harness.probe import Value
from harness.store import read_model

FORMAT = 1
FILE = "replay.json"


class Played(Frozen):
    """What the worker's program answers."""

    format: int = FORMAT
    values: dict[str, Value]
    absent: tuple[str, ...] = ()  # functions that this stack does not have
    notes: tuple[str, ...] = ()


class Replay(Played):
    """What a study keeps of it."""

    fingerprint: str  # of what was installed: another needs another replay


def read_replay(study_dir: Path) -> dict[str, Value]:
    """Return a study's replay, item → value; empty if it has none.

    Raises: StudyError if it is there and can't be read.
    """
    path = study_dir / FILE
    return dict(read_model(path, Replay).values) if path.is_file() else {}
