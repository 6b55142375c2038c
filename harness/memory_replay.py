"""A trace replayed through the allocator: the highest memory of a run, and what it is made of.

Rows that are padded to the longest of their batch give every step another length; blocks that were cut
for one length do not fit the next, and that is where fragmentation comes from. So a replay takes a list of
lengths, one a step. The memory of tensors at its highest moment is told apart by kind; what was reserved
beyond it is the allocator's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.allocator import CachingAllocator
from harness.heap import Heap
from harness.memory_trace import BEFORE, FIRST, NEW, OWN, SETUP, Step, Trace


@dataclass(frozen=True)
class Peak:
    """The highest of a replay."""

    allocated: int
    reserved: int
    kinds: dict[str, int]  # bytes of tensors, by kind, at the highest moment of allocated memory


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
    state = _Replay(memory or CachingAllocator())
    for size in standing:
        state.take(size, "workspaces")
    state.run(trace.setup, trace.setup.sizes)
    for i, length in enumerate(lengths):
        if i == 0:
            state.run(trace.first, _first_sizes(trace, length))
        else:
            state.run(trace.repeated, trace.sizes_at(length))
        if empties_every and (i + 1) % empties_every == 0:
            state.empty_cache()
    return Peak(state.card.most_allocated, state.card.most_reserved, dict(state.at_peak))


def _first_sizes(trace: Trace, length: int) -> list[int]:
    """Sizes of the first step, traced at one length alone: what the repeated step shares is scaled."""
    sizes = list(trace.first.sizes)
    for i, (same, scaled) in enumerate(
        zip(trace.repeated.sizes, trace.sizes_at(length), strict=True)
    ):
        if sizes[i] == same:
            sizes[i] = scaled
    return sizes


class _Replay:
    def __init__(self, memory: CachingAllocator | Heap) -> None:
        self.card = memory
        self.held: list[dict[int, tuple[object, str]]] = []  # of each part, by place
        self.kinds: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()

    def take(self, size: int, kind: str) -> tuple[object, str]:
        """Allocate, and keep the split by kind if this is the highest moment so far."""
        before = self.card.most_allocated
        block = self.card.allocate(size)
        self.kinds[kind] += block.size if block else 0
        if self.card.most_allocated > before:
            self.at_peak = self.kinds.copy()
        return block, kind

    def empty_cache(self) -> None:
        """Give what is cached back, where there is a cache."""
        if isinstance(self.card, CachingAllocator):
            self.card.empty_cache()

    def run(self, step: Step, sizes: Sequence[int]) -> None:
        """Replay one step's events."""
        own: dict[int, tuple[object, str]] = {}
        self.held.append(own)
        owners = {
            OWN: own,
            BEFORE: self.held[-2] if len(self.held) > 1 else {},
            SETUP: self.held[0],
            FIRST: self.held[1] if len(self.held) > 1 else {},
        }
        for owner, place in step.events:
            if owner == NEW:
                own[place] = self.take(sizes[place], step.kinds[place])
                continue
            found = owners[owner].pop(place, None)
            if found is not None:
                block, kind = found
                self.kinds[kind] -= block.size if block else 0  # type: ignore[attr-defined]
                self.card.free(block)  # type: ignore[arg-type]
