"""Studies of one matrix on other seeds, read and set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import text
from harness.errors import ConfigError
from harness.repeats import Repeat, RepeatedVerdict, write_repeats
from harness.report_tables import Table, make_table
from harness.rule import Word
from harness.store import Store
from harness.view import StudyView, load_view


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
    return write_repeats(store, [repeat_of(view) for view in views])


def contradictions(view: StudyView, repeats: Sequence[Repeat]) -> list[str]:
    """Name the claims that are supported on some seeds and refuted on others."""
    words: dict[str, set[Word]] = {v.claim: {v.word} for v in view.verdicts}
    for repeat in repeats:
        for verdict in repeat.verdicts:
            words.setdefault(verdict.claim, set()).add(verdict.word)
    return [claim for claim, found in words.items() if {"supported", "refuted"} <= found]


def repeats_table(view: StudyView, repeats: Sequence[Repeat]) -> Table:
    """Set a study's verdicts beside those on other seeds: a row a claim, a column a block."""
    columns = ("Claim", _title(repeat_of(view)), *(_title(repeat) for repeat in repeats))
    by_block = [{v.claim: v for v in repeat.verdicts} for repeat in (repeat_of(view), *repeats)]
    rows = [
        (verdict.claim, *(_cell(block.get(verdict.claim)) for block in by_block))
        for verdict in view.verdicts
    ]
    against = contradictions(view, repeats)
    said = f"contradicting: {', '.join(against)}" if against else "no claim contradicts itself"
    return make_table(f"The same matrix on other seeds: {said}", columns, rows)


def repeat_of(view: StudyView) -> Repeat:
    """Keep of a study what another one shows of it."""
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
