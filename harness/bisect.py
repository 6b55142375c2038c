"""Which release, or which package, changed training? The search, without running anything.

A probe answers for a stack: `good` (it trains as the good end does), `bad` (it doesn't) or `skip` (it can't
be told). Releases are searched by halving, as `git bisect` does, and packages by delta debugging: halves,
then what is left without them, until no package can be taken away. What this leaves out: training and
comparing (`trial`), and the command (`bisecting`).

Source of delta debugging: Zeller and Hildebrandt, IEEE Transactions on Software Engineering 28 (2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from harness.compare.model import Cell, Comparison, Difference
from harness.frozen import Frozen

FORMAT = 1
Verdict = Literal["good", "bad", "skip"]


class Outcome(Frozen):
    """What a stack came to, held against the good end."""

    word: Verdict
    why: str = Field(description="a sentence")
    cells: tuple[str, ...] = Field((), description="pair.arm that changed")
    difference: Difference | None = Field(None, description="the gravest")
    is_between: bool = Field(False, description="it differs from both ends")


class Tried(Frozen):
    """A stack that was probed: a release, or the packages that were taken from the bad end."""

    names: tuple[str, ...]
    outcome: Outcome


class Answer(Frozen):
    """What a search came to."""

    format: int = FORMAT
    word: Literal["found", "range", "nothing", "unknown"] = Field(
        description="found: the change lies between `good` and `bad`, or in `packages`; range: somewhere "
        "there, as what lies between can't be tried; nothing: the ends don't differ; unknown: they can't "
        "be told"
    )
    good: str | None = Field(None, description="the last release that trains as the good end")
    bad: str | None = Field(None, description="the first that doesn't")
    between: tuple[str, ...] = Field((), description="releases between them that can't be tried")
    packages: tuple[str, ...] = Field((), description="what changes training, together")
    tried: tuple[Tried, ...]
    notes: tuple[str, ...] = ()

    @property
    def decisive(self) -> Outcome:
        """The outcome that shows the change; that of the bad end where nothing was found."""
        wanted = (self.bad,) if self.bad is not None else self.packages
        found = [t.outcome for t in self.tried if t.names == wanted and t.outcome.word == "bad"]
        return found[-1] if found else self.tried[0].outcome


def search_releases(releases: Sequence[str], probe: Callable[[str], Outcome]) -> Answer:
    """Find the two adjacent releases between which training changed.

    releases: from the good end, which is not probed, to the bad end, which is probed first. Without skips
    it takes one probe and the logarithm of their number to base 2.
    """
    last = len(releases) - 1
    tried = [Tried(names=(releases[last],), outcome=probe(releases[last]))]
    end = tried[0].outcome
    if end.word != "bad":
        return Answer(word="nothing" if end.word == "good" else "unknown", tried=tuple(tried))
    low, high, skipped = 0, last, set[int]()
    while (i := _next(low, high, skipped)) is not None:
        outcome = probe(releases[i])
        tried.append(Tried(names=(releases[i],), outcome=outcome))
        if outcome.word == "good":
            low = i
        elif outcome.word == "bad":
            high = i
        else:
            skipped.add(i)
    between = tuple(releases[low + 1 : high])
    return Answer(
        word="range" if between else "found",
        good=releases[low],
        bad=releases[high],
        between=between,
        tried=tuple(tried),
        notes=_several(tried, end),
    )


def search_packages(
    packages: Sequence[str], likely: Sequence[str], probe: Callable[[frozenset[str]], Outcome]
) -> Answer:
    """Find a smallest set of packages that changes training when it is taken from the bad end.

    probe: the good end with these packages as the bad end has them. `likely` is tried before all others.
    In the set found, no package can be taken away: without it the change is gone, or can't be told.
    """
    search = _Search(probe)
    everything = tuple(packages)
    end = search.ask(everything)
    if end.word != "bad":
        word: Literal["nothing", "unknown"] = "nothing" if end.word == "good" else "unknown"
        return Answer(word=word, tried=tuple(search.tried))
    first = tuple(name for name in packages if name in likely)
    is_enough = 0 < len(first) < len(everything) and search.ask(first).word == "bad"
    found = _minimise(first if is_enough else everything, search.ask)
    smaller = [search.ask(_without(found, (name,))) for name in found] if len(found) > 1 else []
    notes = _loose_ends(found, smaller)
    others = _without(everything, found)
    if others and search.ask(others).word == "bad":
        notes.append(
            f"{', '.join(others)} without {', '.join(found)} change training too: more than one cause; "
            "take the one found as given (--with) and search again"
        )
    is_whole = all(outcome.word == "good" for outcome in smaller)
    return Answer(
        word="found" if is_whole else "range",
        packages=found,
        tried=tuple(search.tried),
        notes=tuple(notes),
    )


def judge(comparison: Comparison, watched: Sequence[str] | None = None) -> Outcome:
    """Say of a comparison with the good end whether the candidate is good.

    watched: the cells that decide (pair.arm), those that differ between the ends. None, or empty where the
    ends differ in no cell (in what was asked for, say): the comparison's own word decides.
    """
    cells = [c for c in comparison.cells if not watched or _name(c) in watched]
    words = {c.word for c in cells} if watched else {comparison.word}
    changed = tuple(_name(c) for c in cells if c.word == "changed")
    if "changed" in words:
        grave = _gravest(comparison, cells)
        why = grave.sentence if grave else comparison.sentence
        return Outcome(word="bad", why=why, cells=changed, difference=grave)
    doubtful = [c for c in cells if c.word not in ("same", "rounding")]
    if doubtful or not words <= {"same", "rounding"}:
        one = doubtful[0] if doubtful else None
        return Outcome(
            word="skip", why=f"{_name(one)}: {one.sentence}" if one else comparison.sentence
        )
    if watched and len(cells) < len(set(watched)):
        return Outcome(word="skip", why=f"{len(set(watched)) - len(cells)} cells did not run")
    return Outcome(word="good", why=comparison.sentence)


class _Search:
    """Probes sets of packages, each once."""

    def __init__(self, probe: Callable[[frozenset[str]], Outcome]) -> None:
        self.tried: list[Tried] = []
        self._probe = probe
        self._known: dict[frozenset[str], Outcome] = {}

    def ask(self, names: tuple[str, ...]) -> Outcome:
        key = frozenset(names)
        if not key:
            return Outcome(word="good", why="it is the good end itself")
        if key not in self._known:
            self._known[key] = self._probe(key)
            self.tried.append(Tried(names=names, outcome=self._known[key]))
        return self._known[key]


def _minimise(names: tuple[str, ...], ask: Callable[[tuple[str, ...]], Outcome]) -> tuple[str, ...]:
    """Cut a set that is bad down to one that is bad and has no bad part, as far as probes tell."""
    parts = 2
    while len(names) > 1:
        pieces = _split(names, parts)
        rests = [_without(names, piece) for piece in pieces] if parts > 2 else []
        smaller = next((s for s in (*pieces, *rests) if ask(s).word == "bad"), None)
        if smaller is not None:
            parts = 2 if smaller in pieces else max(parts - 1, 2)
            names = smaller
        elif parts >= len(names):
            break
        else:
            parts = min(2 * parts, len(names))
    return names


def _split(names: tuple[str, ...], parts: int) -> list[tuple[str, ...]]:
    ends = [round(i * len(names) / parts) for i in range(parts + 1)]
    return [names[a:b] for a, b in pairwise(ends) if a < b]


def _without(names: Sequence[str], left_out: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in left_out)


def _next(low: int, high: int, skipped: set[int]) -> int | None:
    """Choose what to probe between a good and a bad release; None if there is nothing left.

    The middle; where that was skipped, a neighbour; after three skips the middle of the longer side beyond
    them, because releases that can't be tried come in runs.
    """
    left = [i for i in range(low + 1, high) if i not in skipped]
    passed = [i for i in skipped if low < i < high]
    if not left:
        return None
    if len(passed) < 3:
        return min(left, key=lambda i: abs(2 * i - low - high))
    sides = [i for i in left if i < min(passed)], [i for i in left if i > max(passed)]
    side = max(*sides, key=len) or left
    return side[len(side) // 2]


def _several(tried: Sequence[Tried], end: Outcome) -> tuple[str, ...]:
    """Say where a release shows that training changed more than once between the ends."""
    notes = []
    for each in tried[1:]:
        name, outcome = each.names[0], each.outcome
        if outcome.word != "bad":
            continue
        missing = [cell for cell in end.cells if cell not in outcome.cells]
        if missing:
            notes.append(f"in {name} {', '.join(missing)} had not changed yet")
        elif outcome.is_between:
            notes.append(f"{name} differs from both ends")
    if not notes:
        return ()
    return (f"{'; '.join(notes)}: training changed more than once, and one change is found here",)


def _loose_ends(found: Sequence[str], smaller: Sequence[Outcome]) -> list[str]:
    """Name what may be needless in a set, because the set without it can't be told."""
    untold = [n for n, o in zip(found, smaller, strict=False) if o.word == "skip"]
    if not untold:
        return []
    return [
        f"whether {', '.join(untold)} are needed can't be told: without them nothing could be tried"
    ]


def _gravest(comparison: Comparison, cells: Sequence[Cell]) -> Difference | None:
    every = [d for c in cells for d in c.differences]
    every += [*comparison.replay, *comparison.asked]
    changed = [d for d in every if d.word == "changed"]
    # Of a cell's differences the gravest comes first; one with a step and values shows more.
    return next((d for d in changed if d.step is not None), changed[0] if changed else None)


def _name(cell: Cell) -> str:
    return f"{cell.pair}.{cell.arm}"
