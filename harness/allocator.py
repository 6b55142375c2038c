"""torch's caching allocator for CUDA, replayed: what it reserves for a list of allocations and frees.

What a GPU loses to a run is what the allocator has reserved, not what tensors use: it rounds, takes memory
from the driver in segments, cuts blocks from them, and keeps what is freed. Its algorithm is published, so
the difference is reckoned, not assumed. Sources, by the names that they have in
`c10/cuda/CUDACachingAllocator.cpp` and its documentation ("CUDA semantics: memory management"):

* `round_size`, `kMinBlockSize`: requests are rounded up to 512 bytes;
* `kSmallSize`, `kSmallBuffer`: up to 1 MiB they are cut from segments of 2 MiB, a pool of its own;
* `kMinLargeAlloc`, `kLargeBuffer`: from 1 to 10 MiB from segments of 20 MiB; larger ones get a segment of
  their size rounded up to `kRoundLarge`, 2 MiB;
* `get_free_block`: the smallest free block that is large enough, the lowest address among equals;
* `should_split`: a rest is cut off if it is at least 512 bytes (small pool), or more than 1 MiB (large);
* `free_block`: a freed block is joined with free neighbours of its segment, which stays reserved;
* `release_cached_blocks`: whole free segments go back when the card is full, or on `empty_cache()`.

What this leaves out: several streams, expandable segments and the other settings of
PYTORCH_CUDA_ALLOC_CONF, private pools of CUDA graphs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIN_BLOCK = 512
SMALL = 1 << 20
SMALL_BUFFER = 2 << 20
MIN_LARGE = 10 << 20
LARGE_BUFFER = 20 << 20
ROUND_LARGE = 2 << 20


class OutOfMemoryError(Exception):
    """The card has no room for a segment, cached ones given back."""


@dataclass(eq=False, slots=True)
class _Block:
    address: int
    size: int
    is_small: bool
    is_free: bool = False
    left: _Block | None = None
    right: _Block | None = None


class CachingAllocator:
    """The state of one card's allocator: what is allocated, and what is reserved for it."""

    def __init__(self, total_bytes: int | None = None) -> None:
        self.allocated = self.reserved = 0
        self.most_allocated = self.most_reserved = 0
        self._total = total_bytes
        # Free blocks of the small and the large pool, by size and address.
        self._free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._by_address: dict[int, _Block] = {}
        self._next_address = 0

    def allocate(self, size: int) -> _Block | None:
        """Return a block that holds so many bytes; None for none.

        Raises: OutOfMemoryError if the card is full.
        """
        if size == 0:
            return None
        rounded = -(-size // MIN_BLOCK) * MIN_BLOCK
        is_small = rounded <= SMALL
        block = self._best_fit(rounded, is_small) or self._segment(rounded, is_small)
        rest = block.size - rounded
        if rest >= MIN_BLOCK if is_small else rest > SMALL:
            self._split(block, rounded)
        block.is_free = False
        self.allocated += block.size
        self.most_allocated = max(self.most_allocated, self.allocated)
        return block

    def free(self, block: _Block | None) -> None:
        """Give a block back, and join it with free neighbours."""
        if block is None:
            return
        self.allocated -= block.size
        block.is_free = True
        for other in (block.left, block.right):
            if other is not None and other.is_free:
                self._forget(other)
                block = self._join(block, other)
        self._keep(block)

    def empty_cache(self) -> int:
        """Give segments that are free as a whole back to the driver; return their bytes."""
        released = 0
        for pool in self._free:
            for key in list(pool):
                block = self._by_address[key[1]]
                if block.left is None and block.right is None:
                    self._forget(block)
                    del self._by_address[block.address]
                    released += block.size
        self.reserved -= released
        return released

    def _best_fit(self, size: int, is_small: bool) -> _Block | None:
        pool = self._free[not is_small]
        at = bisect_left(pool, (size, -1))
        if at == len(pool):
            return None
        block = self._by_address[pool[at][1]]
        self._forget(block)
        return block

    def _segment(self, size: int, is_small: bool) -> _Block:
        if is_small:
            whole = SMALL_BUFFER
        elif size < MIN_LARGE:
            whole = LARGE_BUFFER
        else:
            whole = -(-size // ROUND_LARGE) * ROUND_LARGE
        if self._total is not None and self.reserved + whole > self._total:
            self.empty_cache()
            if self.reserved + whole > self._total:
                raise OutOfMemoryError
        block = _Block(self._next_address, whole, is_small)
        self._by_address[block.address] = block
        self._next_address += whole
        self.reserved += whole
        self.most_reserved = max(self.most_reserved, self.reserved)
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(
            block.address + size, block.size - size, block.is_small, True, block, block.right
        )
        if block.right is not None:
            block.right.left = rest
        block.right, block.size = rest, size
        self._by_address[rest.address] = rest
        self._keep(rest)

    def _join(self, block: _Block, other: _Block) -> _Block:
        first, second = (other, block) if other.address < block.address else (block, other)
        first.size += second.size
        first.right = second.right
        if second.right is not None:
            second.right.left = first
        del self._by_address[second.address]
        first.is_free = True
        return first

    def _keep(self, block: _Block) -> None:
        insort(self._free[not block.is_small], (block.size, block.address))

    def _forget(self, block: _Block) -> None:
        pool = self._free[not block.is_small]
        del pool[bisect_left(pool, (block.size, block.address))]
