"""The tracer against torch's own account of what the same steps allocate with real tensors, on the CPU."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from harness.catalog import MODELS
from harness.heap import Heap
from harness.memory_replay import replay
from harness.memory_trace import OWN, Step
from harness.subject import LEAST_TOKENS, Adapter, Subject
from harness.worker.kernels import as_on_cpu
from harness.worker.model_step import build_optimizer, clip, loss_of, without_weights
from harness.worker.tracing import answer, trace

pytestmark = pytest.mark.slow

TINY = MODELS["Qwen/Qwen3-0.6B"].model_copy(
    update={
        "layers": 5,
        "hidden": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 32,
        "ffn": 128,
        "vocab": 500,
    }
)
SMALLEST = 512  # bytes of the allocator's smallest block
LORA = Adapter(r=4, target_modules="all-linear")


def subject(**more) -> Subject:
    return Subject(
        **{
            "facts": TINY,
            "dtype": "float32",
            "loop": "transformers",
            "batch": 2,
            "device": "cpu",
            **more,
        }
    )


def really_allocated(asked: Subject, length: int) -> int:
    """Highest sum of torch's memory events over three steps with real tensors, weights included."""
    model = without_weights(asked).to_empty(device="cpu")
    model.tie_weights()  # to_empty gives a tied head weights of its own
    optimizer = build_optimizer(asked, model)
    weights = sum(p.untyped_storage().nbytes() for p in set(model.parameters()))
    ids = torch.zeros((asked.batch, length), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0 if asked.has_padding else 1
    tile = as_on_cpu(
        asked.facts.vocab, 4, has_padding=asked.has_padding
    )  # the profiler counts what nothing touches too
    with tile, torch.profiler.profile(profile_memory=True) as profiler:
        for _ in range(3):
            loss = loss_of(asked, model, ids, mask, length)
            loss.backward()
            del loss
            clip(model)
            optimizer.step()
            optimizer.zero_grad()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return weights + most


@pytest.mark.parametrize(
    "asked",
    [
        subject(),
        subject(adapter=LORA),
        subject(has_checkpointing=True),
        subject(loop="sft", optim="adamw_torch_fused"),
        subject(loop="sft", adapter=LORA),
        subject(dtype="bfloat16"),
        subject(has_padding=True),
        subject(adapter=LORA, has_padding=True),
    ],
    ids=["full", "lora", "checkpointed", "trl", "trl-lora", "bf16", "padded", "padded-lora"],
)
def test_a_trace_holds_what_real_steps_allocate(asked):
    traced = replay(trace(asked, 48), [48] * 3, memory=Heap())  # rounds less than a GPU does
    exact = sum(traced.kinds.values())
    assert exact == pytest.approx(really_allocated(asked, 48), rel=0.01)


@pytest.mark.parametrize(
    "asked",
    [
        subject(device="cuda"),
        subject(device="cuda", adapter=LORA, has_padding=True),
        subject(device="cuda", has_checkpointing=True, has_autocast=True, accumulation=2),
        subject(device="cuda", loop="sft", adapter=LORA, dtype="bfloat16", keeps_gradients=True),
        subject(device="cuda", loop="grpo", has_reference=True),
        subject(facts=TINY.model_copy(update={"layers": 8})),
    ],
    ids=["full", "padded-lora", "checkpointed", "trl-lora", "reference", "cpu-8-layers"],
)
def test_three_layers_repeated_are_the_whole_model(asked):
    repeated, whole = trace(asked, 48), trace(asked, 48, is_whole=True)
    for part in ("setup", "first", "repeated"):
        ours, theirs = (allocations(getattr(each, part)) for each in (repeated, whole))
        assert ours == theirs
    ours, theirs = (replay(each, [48] * 3) for each in (repeated, whole))
    assert ours.reserved == pytest.approx(theirs.reserved, rel=0.01)
    for kind in {*ours.kinds, *theirs.kinds} - {"optimizer"}:
        assert ours.kinds[kind] == theirs.kinds[kind]


def allocations(step: Step) -> Counter[tuple[int, str, bool]]:
    """Each allocation's bytes, kind, and whether the step frees it itself.

    Those that fill no block are left out: AdamW counts its steps in 4 bytes a parameter, and clipping
    lists the norms of as many parameters as were run.
    """
    freed = {place for owner, place in step.events if owner == OWN}
    return Counter(
        (size, kind, place in freed)
        for place, (size, kind) in enumerate(zip(step.sizes, step.kinds, strict=True))
        if size > SMALLEST
    )


def test_a_reference_model_scores_the_rows_and_stands_with_its_weights():
    alone, beside = (
        trace(subject(loop="grpo", device="cuda", has_reference=has), 48) for has in (False, True)
    )
    weights = 4 * sum(p.numel() for p in without_weights(subject(loop="grpo")).parameters())
    grown = sum(beside.setup.sizes) - sum(alone.setup.sizes)
    assert grown >= weights
    assert grown == pytest.approx(weights, rel=0.05)
    more = len(beside.repeated.sizes) - len(alone.repeated.sizes)
    assert more > 5 * TINY.layers  # a forward pass of its own, in all layers


def test_on_a_cpu_a_tile_is_as_wide_as_what_is_touched_of_it():
    step = trace(subject(loop="sft"), 48).repeated
    logits = [s for s, kind in zip(step.sizes, step.kinds, strict=True) if kind == "logits"]
    assert max(logits) == 2 * 47 * 4096  # 500 logits of 4 bytes lie in a page


@pytest.mark.parametrize("length", [1, 2])
def test_rows_too_short_to_have_shorter_ones_are_refused_in_a_sentence(length):
    asked = {"subject": subject().model_dump(mode="json"), "length": length}
    assert f"rows of {length} tokens" in answer(asked)["error"]


def test_the_shortest_rows_that_are_traced_have_a_trace():
    assert trace(subject(device="cuda"), LEAST_TOKENS).has_lengths


@pytest.mark.parametrize(
    ("optim", "whole"), [("adamw_bnb_8bit", True), ("lion_8bit", True), ("adamw_torch_8bit", False)]
)
def test_bitsandbytes_keeps_four_bytes_a_moment_of_the_embedding(optim, whole):
    step = trace(subject(device="cuda", optim=optim), 48).first
    states = [s for s, kind in zip(step.sizes, step.kinds, strict=True) if kind == "optimizer"]
    moments = 1 if "lion" in optim else 2
    assert states.count(TINY.vocab * TINY.hidden * (4 if whole else 1)) == moments
