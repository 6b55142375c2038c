"""The held-out evaluation of an SFT run, replayed: what torch holds and reserves while one runs.

An evaluation finds weights, adapter, the optimizer's moments and no gradients, and an empty cache, for the
harness gives it back before and after (`worker/journal.py`). It computes the logits of whole batches, where
training scores in tiles: those are what it holds. The forward pass is not traced; its allocations are
those of `worker.sft.held_out_nll`, in their order, with a layer's temporaries in between.

Batches whose numbers of scored tokens differ find no block of the size that they ask for, so what is
reserved lies far above what is allocated: on an H100 by 60 to 80 % of what the evaluation takes
(docs/memory.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.activations import ElementBytes
from harness.allocator import CachingAllocator
from harness.catalog import ModelFacts
from harness.memory_replay import Peak, Replay, Request
from harness.memory_trace import Trace
from harness.row_lengths import Rows, draw_lengths
from harness.sizes import count_groups
from harness.spec import RunSpec
from harness.workload import Workload

KIND = "evaluation"
STEPS_BEFORE = 2  # the first makes the moments, the second leaves what every step leaves
DRAWS = 3
MOST_EVEN_BATCHES = 3  # where rows have one length, later batches find what these left
SHARE_STEP = 0.02  # how far the scored tokens of two batches of one length may lie apart: a guess
TEMPORARIES = 3  # of an MLP's width that a layer holds at once
FP32 = 4


def batches_of_evaluation(spec: RunSpec) -> tuple[int, int]:
    """Return how many rows a batch has, and how many batches there are."""
    rows = max(spec.dataset.test_rows, spec.dataset.validation_rows)
    size = max(1, min(spec.evaluation.batch_size, rows))
    return size, -(-rows // size)


@dataclass(frozen=True)
class Evaluated:
    """What replays of an evaluation found."""

    peaks: tuple[Peak, ...]
    needed: int  # what a card must leave to torch, its cache given back when it is full


def replay_evaluation(
    trace: Trace,
    spec: RunSpec,
    facts: ModelFacts,
    load: Workload,
    rows: Rows,
    standing: Sequence[int],
) -> Evaluated:
    """Replay evaluations after training steps, with batches that grow and that shrink."""
    size, count = batches_of_evaluation(spec)
    even = [rows.longest] * min(MOST_EVEN_BATCHES, count)
    drawn = draw_lengths(rows, size, DRAWS, batches=count)
    batches = [
        [
            _Batch(facts, load, spec, size, length, i, share)
            for i, (length, share) in enumerate(each)
        ]
        for lengths in (even, *drawn)
        for each in _with_shares(lengths)
    ]
    requests = [[one for batch in run for one in batch.requests()] for run in batches]
    state = Replay(trace, standing=standing)
    for _ in range(STEPS_BEFORE):
        state.step(rows.longest)
    peaks = []
    for run in requests:
        state.empty_cache()
        state.forget_peaks()
        state.beside(run, KIND)
        peaks.append(state.peak())
    state.empty_cache()
    card: CachingAllocator = state.card
    card.limit(max(peak.allocated for peak in peaks))
    for run in requests:
        state.beside(run, KIND)
    assert card.total_bytes is not None  # noqa: S101 - it was limited
    # A card that holds the most that is reserved needs nothing given back.
    return Evaluated(tuple(peaks), min(card.total_bytes, max(peak.reserved for peak in peaks)))


def _with_shares(lengths: Sequence[int]) -> Iterator[list[tuple[int, float]]]:
    """Pair lengths with the share of their tokens that count: falling, and rising, to all of them."""
    shares = [1 - SHARE_STEP * min(i, 10) for i in range(len(lengths))]
    yield list(zip(lengths, shares, strict=True))
    yield list(zip(lengths, reversed(shares), strict=True))


@dataclass(frozen=True)
class _Batch:
    facts: ModelFacts
    load: Workload
    spec: RunSpec
    rows: int
    length: int
    place: int
    share: float  # of the tokens that are scored at most

    def requests(self) -> Iterator[Request]:
        """What `held_out_nll` takes and gives back for this batch."""
        load, vocab = self.load, self.facts.vocab
        most = self.rows * (self.length - 1) * min(1.0, (load.scored or 1) / (load.length or 1))
        scored = max(1, round(most * self.share))
        compute = ElementBytes.of(load).compute
        yield from self._forward()
        yield f"logits {self.place - 1}", 0  # of the batch before: their name is bound anew
        each = FP32 if load.has_autocast else compute
        yield "scored", scored * vocab * each
        if each < FP32:
            yield "in float32", scored * vocab * FP32
        yield "log softmax", scored * vocab * FP32
        for name in ("log softmax", "in float32", "scored"):
            yield name, 0

    def _forward(self) -> Iterator[Request]:
        """The forward pass: a layer's temporaries, the copies that autocast makes, logits at the end."""
        facts, load, size = self.facts, self.load, ElementBytes.of(self.load)
        tokens = self.rows * self.length
        casts = load.has_autocast and load.weight_bytes == FP32
        is_kept = self.spec.lora is None  # autocast keeps copies of what is trained until it ends
        matrices = count_groups(facts).layer_matmul * size.compute if casts else 0
        head = facts.hidden * facts.vocab * size.compute if casts else 0
        logits = f"logits {self.place}"
        yield "stream", tokens * facts.hidden * size.residual
        for _ in range(facts.layers):
            if matrices:
                yield "copies", matrices
            for _ in range(TEMPORARIES):
                yield "layer", tokens * facts.ffn * size.compute
            yield "layer", 0
            if matrices and not is_kept:
                yield "copies", 0
        if head:
            yield "copies", head
        if load.has_autocast:  # accelerate's wrapper of a trained model gives float32 back
            yield "computed", tokens * facts.vocab * size.compute
            yield "stream", 0
            if head and not is_kept:
                yield "copies", 0
            yield logits, tokens * facts.vocab * FP32
            yield "computed", 0
        else:
            yield logits, tokens * facts.vocab * size.compute
            yield "stream", 0
        yield "copies", 0
