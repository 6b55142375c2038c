"""The tracer against torch's own account of what the same steps allocate with real tensors, on the CPU."""

from __future__ import annotations

import pytest
import torch

from harness.catalog import MODELS
from harness.heap import Heap
from harness.memory_replay import replay
from harness.subject import Adapter, Subject
from harness.worker.kernels import as_on_cpu
from harness.worker.model_step import build_optimizer, clip, loss_of, without_weights
from harness.worker.tracing import trace

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
    optimizer = build_optimizer(asked, model)
    weights = sum(p.untyped_storage().nbytes() for p in set(model.parameters()))
    ids = torch.zeros((asked.batch, length), dtype=torch.long)
    tile = as_on_cpu(asked.facts.vocab, 4, has_padding=asked.has_padding)  # the profiler counts what nothing touches too
    with tile, torch.profiler.profile(profile_memory=True) as profiler:
        for _ in range(3):
            loss = loss_of(asked, model, ids, torch.ones_like(ids), length)
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
    ],
    ids=["full", "lora", "checkpointed", "trl", "trl-lora", "bf16"],
)
def test_a_trace_holds_what_real_steps_allocate(asked):
    traced = replay(trace(asked, 48), [48] * 3, memory=Heap())  # rounds less than a GPU does
    exact = sum(traced.kinds.values())
    # The checkpointed one lies 5.6 % below: 0.3 MB that nothing here accounts for.
    assert exact == pytest.approx(really_allocated(asked, 48), rel=0.06)


def test_three_layers_repeated_are_the_whole_model():
    whole = trace(subject(facts=TINY.model_copy(update={"layers": 3})), 48)
    deep = trace(subject(), 48)
    each = (len(deep.repeated.events) - len(whole.repeated.events)) / 2
    assert each == int(each)
    assert len(deep.setup.sizes) > len(whole.setup.sizes)


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


def test_attention_on_a_gpu_keeps_no_square_of_the_length():
    made = trace(subject(device="cuda", dtype="bfloat16"), 512)
    square = 2 * TINY.heads * 512 * 512 * 2
    assert not any(
        s >= square
        for s, k in zip(made.repeated.sizes, made.repeated.kinds, strict=True)
        if k == "activations"
    )
