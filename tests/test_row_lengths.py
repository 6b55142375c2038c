"""Draws of the lengths of batches: the longest in every one, and what raises memory kept."""

from __future__ import annotations

from harness.row_lengths import Rows, draw_lengths, records


def test_rows_of_one_length_need_no_draws():
    assert draw_lengths(Rows(longest=768), 4, 3) == []
    assert draw_lengths(Rows(longest=768, mean=768), 4, 3) == []


def test_every_draw_has_the_longest_and_a_seed_draws_the_same_again():
    rows = Rows(longest=768, mean=210)
    drawn = draw_lengths(rows, 4, 3)
    assert len(drawn) == 3
    for lengths in drawn:
        assert max(lengths) == 768
        assert min(lengths) < 768
    assert drawn == draw_lengths(rows, 4, 3)


def test_sorted_rows_fall_within_a_bucket():
    rows = Rows(longest=768, mean=210, sorted_batches=20)
    for lengths in draw_lengths(rows, 4, 3, empties_every=10):
        assert lengths[20] == 768
        for bucket in (lengths[:20], lengths[20:]):
            assert bucket == sorted(bucket, reverse=True)


def test_where_a_loop_empties_its_cache_a_draw_is_of_whole_spans():
    for lengths in draw_lengths(Rows(longest=768, mean=210), 4, 3, empties_every=10):
        assert len(lengths) % 10 == 0
        assert max(lengths[-10:]) == 768


def test_records_and_what_comes_after_them_are_kept():
    assert records([5, 3, 4, 2, 7, 1, 1, 6], after=1) == [5, 3, 7, 1]
    assert records([1, 2, 3], after=0) == [1, 2, 3]


def test_a_longer_run_has_more_records_before_its_longest_batch():
    rows = Rows(longest=1024, mean=300)

    def mean_records(batches: int) -> float:
        drawn = draw_lengths(rows, 1, 30, batches=batches)
        return sum(len(lengths) for lengths in drawn) / 30

    assert mean_records(5) < mean_records(50) < mean_records(500)
