"""One stack tried: trained with, and held against the good end of a search.

The ends train every cell that was asked for; a stack between them trains only what differs between the
ends. A stack's study lies in a folder named after it, so a search that was killed goes on where it
stopped. What this leaves out: which stack is next (`bisect`), and how one is installed (`bench`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from harness.bisect import Outcome, judge
from harness.compare.model import Comparison
from harness.compare.side import Side
from harness.errors import ConfigError, HarnessError, MachineError
from harness.frozen import content_hash

Requirements = Mapping[str, str]  # package → release
# Trains some cells (pair.arm; all if empty) with a stack into a folder. Raises: HarnessError if it can't.
Train = Callable[[Requirements, Sequence[str], Path], None]
Compare = Callable[[Side, Side], Comparison]  # base, candidate
MOST_NAMED = 2  # packages in a folder's name


class Trial:
    """The stacks of one search."""

    def __init__(
        self,
        root: Path,
        good: Requirements,
        bad: Requirements,
        *,
        train: Train,
        read: Callable[[Path], Side],
        compare: Compare,
        tell: Callable[[str], None],
    ) -> None:
        self.root = root
        self.good = good
        self.bad = bad
        self._train, self._read, self._compare, self._tell = train, read, compare, tell
        self._watched: tuple[str, ...] = ()
        self._sides: tuple[Side, Side] | None = None  # of the ends
        self._end = Outcome(word="skip", why="the ends are not trained yet")

    def probe(self, stack: Requirements) -> Outcome:
        """Train with a stack and judge it; the first call trains the ends too.

        Raises: HarnessError if an end can't be trained.
        """
        good, bad = self._sides or self._train_ends()
        if stack == self.good or stack == self.bad:
            return self._end
        self._tell(f"{label(stack)}: training {', '.join(self._watched) or 'every cell'}")
        try:
            self._train(stack, self._watched, self.folder_of(stack))
        except (ConfigError, MachineError) as error:
            why = str(error).splitlines()[0]
            self._tell(f"{label(stack)}: skipped: {why}")
            return Outcome(word="skip", why=why)
        side = restrict(self._read(self.folder_of(stack)), self._watched)
        outcome = judge(self._compare(restrict(good, self._watched), side), self._watched)
        if outcome.word == "bad":
            rest = judge(self._compare(restrict(bad, self._watched), side), self._watched)
            outcome = outcome.model_copy(update={"is_between": rest.word == "bad"})
        self._tell(f"{label(stack)}: {outcome.word}: {outcome.why}")
        return outcome

    def folder_of(self, stack: Requirements) -> Path:
        """The folder of a stack's study."""
        named = "-".join(f"{name}-{version}" for name, version in sorted(stack.items()))
        return self.root / (
            named if len(stack) <= MOST_NAMED else f"set-{content_hash(dict(stack))[:12]}"
        )

    def _train_ends(self) -> tuple[Side, Side]:
        """Train the ends, and see in which cells they differ."""
        sides = []
        for word, stack in (("good", self.good), ("bad", self.bad)):
            self._tell(f"{label(stack)}: training the {word} end")
            try:
                self._train(stack, (), self.folder_of(stack))
            except HarnessError as error:
                raise type(error)(f"the {word} end, {label(stack)}: {error}") from error
            sides.append(self._read(self.folder_of(stack)))
        self._sides = (sides[0], sides[1])
        self._end = judge(self._compare(*self._sides))
        self._watched = self._end.cells
        self._tell(f"{label(self.bad)}: {self._end.word}: {self._end.why}")
        return self._sides


def restrict(side: Side, cells: Iterable[str]) -> Side:
    """Leave only some cells (pair.arm) of a side; all of it if none are named."""
    wanted = set(cells)
    if not wanted:
        return side
    runs = tuple(run for run in side.runs if f"{run.pair}.{run.arm}" in wanted)
    # A repeat whose other run was left out has nothing to be the same as.
    repeats = {one: other for one, other in side.repeats.items() if {one, other} <= wanted}
    return side.model_copy(update={"runs": runs, "repeats": repeats, "runs_count": len(runs)})


def label(stack: Requirements) -> str:
    """How texts call a stack."""
    shown = [f"{'TRL' if n == 'trl' else n} {v}" for n, v in sorted(stack.items())]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(shown[:4]) + more
