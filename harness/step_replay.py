"""Training steps replayed on a GPU: what torch reserves over draws of lengths, and what it needs.

Where rows are padded to the longest of their batch, a replay of one draw says what one run would reserve;
several say how far runs lie apart. What a run needs is found on a card that is as small as its tensors and
is taken to be larger only where torch, its cache given back, would still find no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.allocator import CachingAllocator
from harness.memory_replay import Peak, Replay, replay
from harness.memory_trace import Trace
from harness.row_lengths import Rows, draw_lengths

MIB = 1 << 20
# cuBLAS's workspace, for the thread of the forward and that of the backward pass. Source: torch's
# documentation of CUBLAS_WORKSPACE_CONFIG (`CUDA semantics`): :4096:2:16:8, on Hopper 32 MiB.
WORKSPACE, WORKSPACE_ON_HOPPER = 8_519_680, 32 * MIB
WORKSPACES = 2
STEADY_STEPS = 3  # enough where every row has one length: the third is like all after it
# Draws of lengths: as many as go through so many allocations and frees (5 s), at least and at most so many.
REPLAYED_EVENTS, LEAST_DRAWS, MOST_DRAWS, STEPS_OF_A_DRAW = 2_000_000, 2, 9, 25
DRAWS_OF_SPANS = 3  # of a loop that empties its cache or sorts rows: whole spans are replayed
LAST_STEPS = 12  # of a draw, the longest batch among them: what a full card has to go through


@dataclass(frozen=True)
class Steps:
    """What the replays found."""

    steady: Peak  # every row the longest
    middle: int  # of reserved memory: the median draw
    low: int
    high: int
    # What torch would go through the worst draw with, its cache given back when it must.
    needed: int


def replay_steps(
    trace: Trace,
    rows: Rows,
    *,
    batch: int,
    is_hopper: bool,
    empties_every: int = 0,
    batches: int | None = None,
) -> Steps:
    """Replay the steps of a run; `batches` is how many batches it has, None where that is unknown."""
    standing = workspaces(is_hopper)
    even = [rows.longest] * STEADY_STEPS
    steady = replay(trace, even, standing=standing)
    is_spans = bool(empties_every or rows.sorted_batches)
    count = DRAWS_OF_SPANS if is_spans else count_draws(trace)
    draws = draw_lengths(rows, batch, count, batches=batches, empties_every=empties_every)
    drawn = [_reserve(trace, lengths, standing, empties_every) for lengths in draws]
    reserved = sorted(drawn) or [steady.reserved]
    # A few draws do not have the worst that may come: half of how far they lie apart is put on top, all of
    # it where they are two. Of 30 other draws of one shape 28 then lie inside, 26 with none
    # (tests/test_forecast_measured.py).
    beyond_drawn = (reserved[-1] - reserved[0]) // min(2, max(1, len(reserved) - 1))
    worst = draws[drawn.index(reserved[-1])] if draws else even
    worst = worst if is_spans else worst[-LAST_STEPS:]
    return Steps(
        steady=steady,
        middle=reserved[len(reserved) // 2],
        low=min(steady.reserved, *reserved),
        high=max(steady.reserved, reserved[-1] + beyond_drawn),
        # A card that holds the most that is reserved needs nothing given back.
        needed=min(
            max(steady.reserved, reserved[-1]),
            _need(trace, worst, standing, empties_every, steady.allocated),
        ),
    )


def workspaces(is_hopper: bool) -> tuple[int, ...]:
    """Return what cuBLAS allocates through torch before the first step."""
    return (WORKSPACE_ON_HOPPER if is_hopper else WORKSPACE,) * WORKSPACES


def count_draws(trace: Trace) -> int:
    """Return how many draws of lengths are replayed: fewer where a step has more events."""
    most = REPLAYED_EVENTS // (STEPS_OF_A_DRAW * max(1, len(trace.repeated.events)))
    return max(LEAST_DRAWS, min(MOST_DRAWS, most))


def _reserve(
    trace: Trace, lengths: Sequence[int], standing: Sequence[int], empties_every: int
) -> int:
    """Return the highest reserved bytes of steps of these lengths."""
    state = Replay(trace, standing=standing, tells_kinds=False, skips_small=not empties_every)
    _go(state, lengths, empties_every)
    return state.peak().reserved


def _need(
    trace: Trace, lengths: Sequence[int], standing: Sequence[int], empties_every: int, least: int
) -> int:
    """Return the smallest card that holds steps of these lengths, the cache given back when it is full."""
    card = CachingAllocator(least, grows=True)
    _go(Replay(trace, standing=standing, tells_kinds=False, memory=card), lengths, empties_every)
    assert card.total_bytes is not None  # noqa: S101 - it was given
    return card.total_bytes


def _go(state: Replay, lengths: Sequence[int], empties_every: int) -> None:
    for i, length in enumerate(lengths):
        state.step(length)
        if empties_every and (i + 1) % empties_every == 0:
            state.empty_cache()
