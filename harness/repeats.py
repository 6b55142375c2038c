"""The same matrix on other seeds: do its verdicts repeat?

`repeats.json` beside a study's records keeps the verdicts of other studies of the same matrix, one a seed
block. A claim that is supported in one and refuted in another contradicts itself; one that is decided in
one and inconclusive in another does not. What this leaves out: two releases of TRL (`compare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import text
from harness.errors import ConfigError
from harness.frozen import Count, Frozen
from harness.record import FORMAT
from harness.report_tables import Table, make_table
from harness.rule import Word
from harness.store import Store, read_model
from harness.view import StudyView, load_view

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


def keep_repeats(store: Store, view: StudyView, others: Sequence[Path]) -> tuple[Repeat, ...]:
    """Read other studies of the same matrix and keep their verdicts with this one.

    Raises: ConfigError if one is of another matrix, or shares seeds with this study.
    """
    problems = []
    views = [load_view(Store(other)) for other in others]
    for other, each in zip(views, others, strict=True):
        if other.study.matrix_hash != view.study.matrix_hash:
            problems.append(
                f"{str(each)!r} was made by another matrix, or with other settings; expected the same on "
                "other seeds (--seed-block)"
            )
        shared = sorted(set(_seeds(other)) & set(_seeds(view)))
        if shared:
            problems.append(
                f"{str(each)!r} shares seeds {shared} with this study; expected other ones (--seed-block)"
            )
    if problems:
        raise ConfigError(*problems)
    repeats = Repeats(
        repeats=tuple(sorted(map(_repeat_of, views), key=lambda r: (r.seed_block, r.study)))
    )
    store.write_json(store.root / FILE, repeats.model_dump(mode="json"))
    return repeats.repeats


def contradictions(view: StudyView, repeats: Sequence[Repeat]) -> list[str]:
    """Name the claims that are supported on some seeds and refuted on others."""
    words: dict[str, set[Word]] = {v.claim: {v.word} for v in view.verdicts}
    for repeat in repeats:
        for verdict in repeat.verdicts:
            words.setdefault(verdict.claim, set()).add(verdict.word)
    return [claim for claim, found in words.items() if {"supported", "refuted"} <= found]


def repeats_table(view: StudyView, repeats: Sequence[Repeat]) -> Table:
    """Set a study's verdicts beside those on other seeds: a row a claim, a column a block."""
    columns = ("Claim", _title(_repeat_of(view)), *(_title(repeat) for repeat in repeats))
    by_block = [{v.claim: v for v in repeat.verdicts} for repeat in (_repeat_of(view), *repeats)]
    rows = [
        (verdict.claim, *(_cell(block.get(verdict.claim)) for block in by_block))
        for verdict in view.verdicts
    ]
    against = contradictions(view, repeats)
    said = f"contradicting: {', '.join(against)}" if against else "no claim contradicts itself"
    return make_table(f"The same matrix on other seeds: {said}", columns, rows)


def _repeat_of(view: StudyView) -> Repeat:
    verdicts = tuple(
        RepeatedVerdict(
            claim=verdict.claim,
            word=verdict.word,
            value=verdict.effect.value if verdict.effect else None,
            low=verdict.effect.low if verdict.effect else None,
            high=verdict.effect.high if verdict.effect else None,
        )
        for verdict in view.verdicts
    )
    return Repeat(
        study=view.name,
        seed_block=view.study.seed_block,
        seeds=tuple(_seeds(view)),
        verdicts=verdicts,
    )


def _seeds(view: StudyView) -> list[int]:
    return sorted({run.planned.seed for run in view.every_run})


def _title(repeat: Repeat) -> str:
    return f"block {repeat.seed_block} ({repeat.study})"


def _cell(verdict: RepeatedVerdict | None) -> str:
    if verdict is None:
        return text.MISSING
    if verdict.low is None or verdict.high is None:
        return verdict.word
    return f"{verdict.word} ({verdict.low:.3g} to {verdict.high:.3g})"
