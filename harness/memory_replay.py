"""A trace replayed through the allocator: the highest memory of a run, and what it is made of.

Rows that are padded to the longest of their batch give every step another length; blocks that were cut
for one length do not fit the next, and that is where fragmentation comes from. So a replay takes a list of
lengths, one a step. The memory of tensors at its highest moment is told apart by kind; what was reserved
beyond it is the allocator's. After its steps a replay can go on with what else a run does between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.allocator import SMALL, CachingAllocator
from harness.heap import Heap
from harness.memory_trace import BEFORE, FIRST, NEW, OWN, SETUP, Step, Trace

# After so many steps the pool of small blocks holds what it ever will: they are left out from then on.
SETTLED_STEPS = 3

Request = tuple[str, int]  # a name and the bytes that it takes; (name, 0) gives back what has it


@dataclass(frozen=True)
class Peak:
    """The highest of a replay."""

    allocated: int
    reserved: int
    kinds: dict[str, int]  # bytes of tensors, by kind, at the highest moment of allocated memory
    standing: dict[str, int] = field(default_factory=dict)  # what is left after the last step


def replay(
    trace: Trace,
    lengths: Sequence[int],
    *,
    standing: Iterable[int] = (),
    empties_every: int = 0,
    memory: CachingAllocator | Heap | None = None,
) -> Peak:
    """Replay a step for each length, the first of which makes the optimizer's moments.

    `standing` are bytes that libraries allocate through torch before the first step (cuBLAS's workspaces);
    `empties_every` steps the cache is given back, as some loops do.
    """
    state = Replay(trace, standing=standing, memory=memory)
    for i, length in enumerate(lengths):
        state.step(length)
        if empties_every and (i + 1) % empties_every == 0:
            state.empty_cache()
    return state.peak()


def _first_sizes(trace: Trace, length: int) -> list[int]:
    """Sizes of the first step, traced at one length alone: what the repeated step shares is scaled."""
    sizes = list(trace.first.sizes)
    for i, (same, scaled) in enumerate(
        zip(trace.repeated.sizes, trace.sizes_at(length), strict=True)
    ):
        if sizes[i] == same:
            sizes[i] = scaled
    return sizes


class Replay:
    """A run under way in a memory: its setup, then as many steps as are asked for."""

    def __init__(
        self,
        trace: Trace,
        *,
        standing: Iterable[int] = (),
        memory: CachingAllocator | Heap | None = None,
        tells_kinds: bool = True,
        skips_small: bool = False,
    ) -> None:
        """`skips_small` leaves the small pool out once it is settled, which nothing may empty then.

        Without `tells_kinds` a step takes two thirds of the time.
        """
        self.card: Any = memory if memory is not None else CachingAllocator()
        self._trace = trace
        self._held: list[dict[int, Any]] = []  # of each part, by place
        self._tells_kinds = tells_kinds
        self._kinds: dict[str, int] = {}
        self._at_peak: dict[str, int] = {}
        self._is_rising = False  # the highest moment is now: its kinds are not kept yet
        self._large = large_events(trace) if skips_small else None
        self._libraries = [self._take(size, "workspaces") for size in standing]
        self._run(trace.setup, trace.setup.sizes, trace.setup.events)

    def step(self, length: int) -> None:
        """Replay one step whose rows are that long."""
        trace = self._trace
        if len(self._held) == 1:
            self._run(trace.first, _first_sizes(trace, length), trace.first.events)
            return
        is_settled = len(self._held) > SETTLED_STEPS
        large = self._large if is_settled else None
        self._run(trace.repeated, trace.sizes_at(length), large or trace.repeated.events)

    def beside(self, requests: Iterable[Request], kind: str) -> None:
        """Go on with what a run does between steps."""
        blocks: dict[str, list[tuple[Any, str]]] = {}
        for name, size in requests:
            if size:
                blocks.setdefault(name, []).append(self._take(size, kind))
            else:
                for found in blocks.pop(name, ()):
                    self._give(found)
        for left in blocks.values():
            for found in left:
                self._give(found)

    def empty_cache(self) -> None:
        """Give what is cached back, where there is a cache."""
        if isinstance(self.card, CachingAllocator):
            self.card.empty_cache()

    def forget_peaks(self) -> None:
        """Let the highest moment begin anew."""
        self.card.forget_peaks()
        self._at_peak, self._is_rising = dict(self._kinds), False

    def peak(self) -> Peak:
        """Return the highest figures so far."""
        self._settle()
        card = self.card
        return Peak(card.most_allocated, card.most_reserved, self._at_peak, dict(self._kinds))

    def _settle(self) -> None:
        if self._is_rising:
            self._at_peak, self._is_rising = dict(self._kinds), False

    def _take(self, size: int, kind: str) -> tuple[Any, str]:
        """Allocate, and note whether this is the highest moment so far."""
        card = self.card
        before = card.most_allocated
        block = card.allocate(size)
        if block is not None:
            self._kinds[kind] = self._kinds.get(kind, 0) + block.size
            if card.most_allocated > before:
                self._is_rising = True
        return block, kind

    def _give(self, found: tuple[Any, str]) -> None:
        block, kind = found
        if block is None:
            return
        if self._is_rising:
            self._settle()
        self._kinds[kind] -= block.size
        self.card.free(block)

    def _run(self, step: Step, sizes: Sequence[int], events: Sequence[tuple[int, int]]) -> None:
        """Replay one step's events."""
        own: dict[int, Any] = {}
        self._held.append(own)
        owners = {
            OWN: own,
            BEFORE: self._held[-2] if len(self._held) > 1 else {},
            SETUP: self._held[0],
            FIRST: self._held[1] if len(self._held) > 1 else {},
        }
        if self._tells_kinds:
            kinds, take, give = step.kinds, self._take, self._give
            for owner, place in events:
                if owner == NEW:
                    own[place] = take(sizes[place], kinds[place])
                elif place in (held := owners[owner]):
                    give(held.pop(place))
            return
        allocate, free = self.card.allocate, self.card.free
        for owner, place in events:
            if owner == NEW:
                own[place] = allocate(sizes[place])
            elif place in (held := owners[owner]):
                free(held.pop(place))


def large_events(trace: Trace) -> list[tuple[int, int]]:
    """Return a repeated step's events without those of the small pool.

    The two pools share nothing but the card, and steps ask the small one for the same again and again.
    """
    largest = [max(pair) for pair in zip(trace.repeated.sizes, trace.longer, strict=True)]
    return [
        (owner, place)
        for owner, place in trace.repeated.events
        if owner in (SETUP, FIRST) or largest[place] > SMALL
    ]
