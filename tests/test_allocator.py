"""The caching allocator against cases whose answer follows from its published rules by hand."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from harness.allocator import CachingAllocator, OutOfMemoryError

KIB, MIB = 1 << 10, 1 << 20


def test_a_small_request_is_rounded_to_512_bytes_and_reserves_two_mebibytes():
    card = CachingAllocator()
    card.allocate(1)
    assert (card.allocated, card.reserved) == (512, 2 * MIB)
    card.allocate(513)
    assert (card.allocated, card.reserved) == (512 + 1024, 2 * MIB)


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB),
        (31 * MIB + 1, 32 * MIB),
    ],
)
def test_a_segment_is_as_large_as_its_pool_says(size, segment):
    card = CachingAllocator()
    card.allocate(size)
    assert card.reserved == segment


def test_the_rest_of_a_small_block_is_used_and_that_of_a_large_one_only_beyond_a_mebibyte():
    card = CachingAllocator()
    for _ in range(4):
        card.allocate(512 * KIB)
    assert card.reserved == 2 * MIB
    large = CachingAllocator()
    large.allocate(11 * MIB)  # of 12: a rest of 1 MiB exactly is not cut off
    assert large.allocated == 12 * MIB
    wide = CachingAllocator()
    wide.allocate(10 * MIB + 512)  # of 12: the rest is larger
    wide.allocate(MIB + 512)
    assert wide.reserved == 12 * MIB


def test_the_smallest_block_that_is_large_enough_is_taken():
    card = CachingAllocator()
    wide, narrow = card.allocate(40 * MIB), card.allocate(30 * MIB)
    card.free(wide)
    card.free(narrow)
    card.allocate(29 * MIB + 512 * KIB)
    card.allocate(40 * MIB)
    assert card.reserved == 70 * MIB


def test_free_neighbours_are_joined():
    card = CachingAllocator()
    parts = [card.allocate(5 * MIB) for _ in range(4)]
    assert card.reserved == 20 * MIB
    for i in (0, 2, 1, 3):
        card.free(parts[i])
    card.allocate(20 * MIB)
    assert (card.reserved, card.allocated) == (20 * MIB, 20 * MIB)


def test_holes_of_one_size_do_not_serve_a_larger_request():
    card = CachingAllocator()
    first = [card.allocate(20 * MIB) for _ in range(3)]
    for block in first:
        card.free(block)
    card.allocate(24 * MIB)
    assert (card.most_reserved, card.most_allocated) == (84 * MIB, 60 * MIB)


def test_a_full_card_gives_cached_segments_back_before_it_fails():
    card = CachingAllocator(total_bytes=64 * MIB)
    block = card.allocate(40 * MIB)
    card.free(block)
    card.allocate(60 * MIB)
    assert card.reserved == 60 * MIB
    with pytest.raises(OutOfMemoryError):
        card.allocate(20 * MIB)


def test_emptying_the_cache_keeps_segments_that_are_partly_used():
    card = CachingAllocator()
    kept = [card.allocate(5 * MIB) for _ in range(2)]
    whole = card.allocate(50 * MIB)
    card.free(kept[0])
    card.free(whole)
    assert card.empty_cache() == 50 * MIB
    assert card.reserved == 20 * MIB
    card.free(kept[1])
    card.empty_cache()
    assert card.reserved == 0


def test_a_card_that_may_grow_says_how_large_it_had_to_be():
    card = CachingAllocator(total_bytes=64 * MIB, grows=True)
    kept, gone = card.allocate(20 * MIB), card.allocate(40 * MIB)
    card.free(gone)
    card.allocate(44 * MIB)  # what is cached goes back first
    assert card.total_bytes == 64 * MIB
    card.allocate(30 * MIB)
    assert card.total_bytes == 94 * MIB
    card.free(kept)
    card.limit(10 * MIB)  # no less than what is reserved
    assert card.total_bytes == 94 * MIB


def test_random_requests_never_overlap_and_leave_nothing_behind():
    chance = random.Random(0)
    card = CachingAllocator()
    held = []
    for _ in range(3000):
        if held and chance.random() < 0.5:
            card.free(held.pop(chance.randrange(len(held))))
        else:
            held.append(card.allocate(int(2 ** chance.uniform(5, 26))))
        assert card.allocated == sum(block.size for block in held) <= card.reserved
    places = sorted((block.address, block.address + block.size) for block in held)
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    for block in held:
        card.free(block)
    assert card.empty_cache() == card.most_reserved
    assert (card.allocated, card.reserved) == (0, 0)
