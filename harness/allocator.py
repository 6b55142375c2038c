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

The code is written for speed, since long runs are replayed: blocks lie in lists of whole numbers that hold
a size and an address, and the common path is one call.

What this leaves out: several streams, expandable segments and the other settings of
PYTORCH_CUDA_ALLOC_CONF, private pools of CUDA graphs.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIN_BLOCK = 512
SMALL = 1 << 20
SMALL_BUFFER = 2 << 20
MIN_LARGE = 10 << 20
LARGE_BUFFER = 20 << 20
ROUND_LARGE = 2 << 20


class OutOfMemoryError(Exception):
    """The card has no room for a segment, cached ones given back."""


_SHIFT = 48  # a free block's key is its size, and below that its address


class Block:
    """A piece of a segment: what is allocated, or free."""

    __slots__ = ("address", "is_free", "is_small", "left", "right", "size")

    def __init__(
        self, address: int, size: int, is_small: bool, left: Block | None, right: Block | None
    ) -> None:
        self.address, self.size, self.is_small = address, size, is_small
        self.left, self.right = left, right
        self.is_free = False


class CachingAllocator:
    """The state of one card's allocator: what is allocated, and what is reserved for it."""

    def __init__(self, total_bytes: int | None = None, *, grows: bool = False) -> None:
        """`grows` takes a card that is full to be larger: `total_bytes` is then what it had to be."""
        self.total_bytes = total_bytes
        self._grows = grows
        self.allocated = self.reserved = 0
        self.most_allocated = self.most_reserved = 0
        # Free blocks of the small and the large pool, smallest first, and each by its key.
        self._small: list[int] = []
        self._large: list[int] = []
        self._blocks: dict[int, Block] = {}
        self._next_address = 0

    def allocate(self, size: int) -> Block | None:
        """Return a block that holds so many bytes; None for none.

        Raises: OutOfMemoryError if the card is full.
        """
        if size == 0:
            return None
        rounded = -(-size // MIN_BLOCK) * MIN_BLOCK
        is_small = rounded <= SMALL
        pool = self._small if is_small else self._large
        at = bisect_left(pool, rounded << _SHIFT)
        is_cached = at < len(pool)
        block = self._blocks.pop(pool.pop(at)) if is_cached else self._segment(rounded, is_small)
        rest = block.size - rounded
        if rest >= MIN_BLOCK if is_small else rest > SMALL:
            self._cut(block, rounded, pool)
        block.is_free = False
        self.allocated += block.size
        if self.allocated > self.most_allocated:
            self.most_allocated = self.allocated
        return block

    def free(self, block: Block | None) -> None:
        """Give a block back, and join it with free neighbours."""
        if block is None:
            return
        self.allocated -= block.size
        pool = self._small if block.is_small else self._large
        left, right = block.left, block.right
        if left is not None and left.is_free:
            self._forget(left, pool)
            left.size += block.size
            left.right = right
            if right is not None:
                right.left = left
            block = left
        if right is not None and right.is_free:
            self._forget(right, pool)
            block.size += right.size
            block.right = right.right
            if right.right is not None:
                right.right.left = block
        block.is_free = True
        key = block.size << _SHIFT | block.address
        insort(pool, key)
        self._blocks[key] = block

    def empty_cache(self) -> int:
        """Give segments that are free as a whole back to the driver; return their bytes."""
        released = 0
        for pool in (self._small, self._large):
            whole = [key for key in pool if self._is_whole(key)]
            for key in whole:
                released += self._blocks.pop(key).size
            gone = set(whole)
            pool[:] = [key for key in pool if key not in gone]
        self.reserved -= released
        return released

    def limit(self, total_bytes: int) -> None:
        """Go on with a card of that size, taken to be larger where it is full."""
        self.total_bytes, self._grows = max(total_bytes, self.reserved), True

    def forget_peaks(self) -> None:
        """Let the highest figures begin anew at what is held now."""
        self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def _is_whole(self, key: int) -> bool:
        block = self._blocks[key]
        return block.left is None and block.right is None

    def _segment(self, size: int, is_small: bool) -> Block:
        if is_small:
            whole = SMALL_BUFFER
        elif size < MIN_LARGE:
            whole = LARGE_BUFFER
        else:
            whole = -(-size // ROUND_LARGE) * ROUND_LARGE
        if self.total_bytes is not None and self.reserved + whole > self.total_bytes:
            self.empty_cache()
            if self.reserved + whole > self.total_bytes:
                if not self._grows:
                    raise OutOfMemoryError
                self.total_bytes = self.reserved + whole
        block = Block(self._next_address, whole, is_small, None, None)
        self._next_address += whole
        self.reserved += whole
        self.most_reserved = max(self.most_reserved, self.reserved)
        return block

    def _cut(self, block: Block, size: int, pool: list[int]) -> None:
        rest = Block(block.address + size, block.size - size, block.is_small, block, block.right)
        rest.is_free = True
        if block.right is not None:
            block.right.left = rest
        block.right, block.size = rest, size
        key = rest.size << _SHIFT | rest.address
        insort(pool, key)
        self._blocks[key] = rest

    def _forget(self, block: Block, pool: list[int]) -> None:
        key = block.size << _SHIFT | block.address
        del pool[bisect_left(pool, key)]
        del self._blocks[key]
