"""glibc's malloc, replayed: how much of a process stays resident for a list of allocations and frees.

torch asks the C library for a CPU tensor's memory. A large block is mapped on its own and goes back when it
is freed; others are cut from a heap, where only a free end can go back. What counts as large grows while a
program runs, which is why a trained model's RSS lies above its tensors. Source: glibc's manual,
"Malloc Tunable Parameters" and mallopt(3), on M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and the dynamic threshold.

* The threshold begins at 128 KiB. Freeing a mapped block that is larger, up to 32 MiB, raises it to that
  block's size, and the size of a free end that is given back to twice that.
* From the heap the smallest free block that fits is taken, and freed neighbours are joined.
* torch asks for aligned memory, and `_int_memalign` looks for the size, the alignment and a smallest chunk
  together, to cut both ends off: until glibc 2.38 the hole that a tensor left is too small for the next of
  its size (sourceware bug 14581). Most of the slack comes from there.

What this leaves out: arenas of other threads, the bins for small blocks, and pages that nothing touched:
every allocated byte counts as resident.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

PAGE = 4096
ALIGNMENT = 64  # of torch's CPU tensors
HEADER, UNIT, SMALLEST = 16, 16, 32  # of a chunk: before the memory, its granularity, the least
FIRST_THRESHOLD = 128 << 10
MOST_THRESHOLD = 32 << 20


@dataclass(eq=False, slots=True)
class _Chunk:
    address: int  # -1: mapped on its own
    size: int


class Heap:
    """One process's heap and mapped blocks. `reserved` is what is resident."""

    def __init__(self) -> None:
        self.allocated = self.most_allocated = self.most_reserved = 0
        self._mapped = self._top = 0
        self._threshold = FIRST_THRESHOLD
        self._trim = FIRST_THRESHOLD
        self._free: list[tuple[int, int]] = []  # (size, address)
        self._starts: dict[int, int] = {}  # of free chunks: address → size
        self._ends: dict[int, int] = {}  # end → address

    @property
    def reserved(self) -> int:
        """Bytes that are resident."""
        return self._mapped + self._top

    def allocate(self, size: int) -> _Chunk | None:
        """Return a chunk that holds so many bytes; None for none."""
        if size == 0:
            return None
        rounded = max(SMALLEST, -(-(size + 8) // UNIT) * UNIT)
        if rounded >= self._threshold:
            chunk = _Chunk(-1, -(-rounded // PAGE) * PAGE)
            self._mapped += chunk.size
        else:
            chunk = self._from_heap(rounded)
        self.allocated += chunk.size
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)
        return chunk

    def free(self, chunk: _Chunk | None) -> None:
        """Give a chunk back."""
        if chunk is None:
            return
        self.allocated -= chunk.size
        if chunk.address < 0:
            self._mapped -= chunk.size
            if self._threshold < chunk.size <= MOST_THRESHOLD:
                self._threshold, self._trim = chunk.size, 2 * chunk.size
            return
        start, end = chunk.address, chunk.address + chunk.size
        if start in self._ends:
            start = self._drop(self._ends[start])
        if end in self._starts:
            size = self._starts[end]
            self._drop(end)
            end += size
        if end == self._top and end - start >= self._trim:
            self._top = start
        else:
            self._keep(start, end - start)

    def _from_heap(self, size: int) -> _Chunk:
        asked = size + ALIGNMENT + SMALLEST
        at = bisect_left(self._free, (asked, -1))
        if at < len(self._free):
            whole, start = self._free[at]
            self._drop(start)
        else:
            start = self._top
            if start in self._ends:  # the free end of the heap is made longer
                start = self._drop(self._ends[start])
            whole = asked
            self._top = start + whole
        lead = -(start + HEADER) % ALIGNMENT
        lead += ALIGNMENT if 0 < lead < SMALLEST else 0
        if lead:
            self._keep(start, lead)
        if whole - lead - size >= SMALLEST:
            self._keep(start + lead + size, whole - lead - size)
            return _Chunk(start + lead, size)
        return _Chunk(start + lead, whole - lead)

    def _keep(self, start: int, size: int) -> None:
        insort(self._free, (size, start))
        self._starts[start], self._ends[start + size] = size, start

    def _drop(self, start: int) -> int:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._free[bisect_left(self._free, (size, start))]
        return start
