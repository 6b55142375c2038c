"""The same matrix on other seeds: do its verdicts repeat?

`repeats.json` beside a study's records keeps the verdicts of other studies of the same matrix, one a seed
block. A claim that is supported in one and refuted in another contradicts itself; one that is decided in
one and inconclusive in another does not. What this leaves out: reading the other studies, and the table
(`repeat_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.frozen import Count, Frozen
from harness.rule import Word
from harness.samples import FORMAT
from harness.store import Store, read_model

FILE = "repeats.json"


class RepeatedVerdict(Frozen):
    """A claim's verdict in one study."""

    claim: str
    word: Word
    value: float | None
    low: float | None
    high: float | None


class Repeat(Frozen):
    """What a study of the same matrix says on seeds of its own."""

    study: str
    seed_block: Count
    seeds: tuple[int, ...]
    verdicts: tuple[RepeatedVerdict, ...]


class Repeats(Frozen):
    """`repeats.json`."""

    format: int = FORMAT
    repeats: tuple[Repeat, ...]


def read_repeats(store: Store) -> tuple[Repeat, ...]:
    """Read a study's repeats; nothing if it has none.

    Raises: StudyError if they are there and can't be read.
    """
    path = store.root / FILE
    return read_model(path, Repeats).repeats if path.is_file() else ()


def write_repeats(store: Store, repeats: Sequence[Repeat]) -> tuple[Repeat, ...]:
    """Keep repeats with a study, in the order of their seed blocks."""
    kept = Repeats(repeats=tuple(sorted(repeats, key=lambda r: (r.seed_block, r.study))))
    store.write_json(store.root / FILE, kept.model_dump(mode="json"))
    return kept.repeats
