"""The answer: the overall word, a sentence, the place, and the exit code of a gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from harness.compare.accepting import is_accepted
from harness.compare.model import Cell, Comparison, Word
from harness.compare.place import find_place
from harness.compare.words import gravest
from harness.text import plural

EXIT_CHANGED, EXIT_UNDECIDED, EXIT_UNSUPPORTED = 4, 6, 7
# What a gate may be asked to fail on; by default all of it.
FAILURES: dict[str, Word] = {
    "changed": "changed",
    "undecided": "undecided",
    "not-comparable": "not comparable",
    "unsupported": "unsupported here",
}
_HEADS: dict[Word, str] = {
    "undecided": "Undecided",
    "unsupported here": "Not all can be trained here",
    "not comparable": "Not comparable",
}


def conclude(comparison: Comparison) -> Comparison:
    """Fill in word, sentence and place from the cells and the replay."""
    words = [*(c.word for c in comparison.cells), *(d.word for d in comparison.replay)]
    word = gravest(words) if comparison.cells else "not comparable"
    place = find_place(comparison.cells)
    settled = comparison.model_copy(update={"word": word, "place": place})
    return settled.model_copy(update={"sentence": _sentence(settled)})


def exit_code(comparison: Comparison, fail_on: Collection[str] = tuple(FAILURES)) -> int:
    """Return the exit code of a gate that fails on some words.

    4 for a change that nobody acknowledged, 7 if the candidate can't train at all, 6 where evidence is
    missing, else 0.
    """
    words = {FAILURES[name] for name in fail_on}
    if "changed" in words and not is_accepted(comparison):
        return EXIT_CHANGED
    cells = comparison.cells
    if "unsupported here" in words and cells and all(map(_candidate_cannot, cells)):
        return EXIT_UNSUPPORTED
    left = {d.word for cell in cells for d in cell.differences} | {
        d.word for d in comparison.replay
    }
    left -= {"changed"}
    if not cells:
        left = {"not comparable"}
    return EXIT_UNDECIDED if left & words else 0


def _candidate_cannot(cell: Cell) -> bool:
    """Whether the candidate's releases can't train a cell."""
    return cell.word == "unsupported here" and any(
        d.what == "run" and d.word == cell.word and d.candidate not in (None, "ok")
        for d in cell.differences
    )


def _sentence(comparison: Comparison) -> str:
    between = f"from {comparison.base} to {comparison.candidate}"
    cells, word, place = comparison.cells, comparison.word, comparison.place
    if not cells:
        return f"Nothing to compare {between}: no runs on either side."
    if word == "changed":
        first = next((d.sentence for d in comparison.replay if d.word == "changed"), "")
        what = place.sentence if place else f"what is made of a frozen corpus: {first}"
        known = "; every change was acknowledged" if is_accepted(comparison) else ""
        return f"Changed {between}: {what}{known}."
    counts = _counts(cells)
    if word == "same":
        return f"The same {between}: {counts}, every number identical."
    if word == "rounding":
        sizes = [d.relative or 0.0 for c in cells for d in c.differences if d.word == "rounding"]
        largest = max(sizes, default=0.0)
        return f"The same up to rounding {between}: {counts}, at most {largest:.1e} apart."
    told = [f"{cell.pair}.{cell.arm}: {cell.sentence}" for cell in cells if cell.word == word]
    told += [d.sentence[:1].upper() + d.sentence[1:] for d in comparison.replay if d.word == word]
    if not any(cell.word == word for cell in cells):  # the replay alone has the word
        counts += " the same" if {cell.word for cell in cells} == {"same"} else ""
    return f"{_HEADS[word]} {between}: {counts}. {told[0]}."


def _counts(cells: Sequence[Cell]) -> str:
    """Count the cells by word, where they differ in it."""
    words = [cell.word for cell in cells]
    if len(set(words)) == 1:
        return plural(len(cells), "cell")
    return ", ".join(
        f"{words.count(w)} of {len(words)} {w}" for w in sorted(set(words), key=words.index)
    )
