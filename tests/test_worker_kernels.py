"""A GPU's kernels in a trace: what attention and dropout keep there, in closed form."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.catalog import MODELS
from harness.memory_trace import Trace
from harness.subject import Adapter, Subject
from harness.worker.tracing import trace

pytestmark = pytest.mark.slow

LAYERS, HEADS, KEY_HEADS, WIDTH, HIDDEN, BATCH = 4, 4, 2, 32, 64, 2
FACTS = MODELS["Qwen/Qwen3-0.6B"].model_copy(
    update={
        "layers": LAYERS,
        "hidden": HIDDEN,
        "heads": HEADS,
        "kv_heads": KEY_HEADS,
        "head_dim": WIDTH,
        "ffn": 128,
        "vocab": 500,
    }
)


def traced(length: int, **more) -> Trace:
    asked = {"dtype": "bfloat16", "loop": "transformers", "batch": BATCH, "device": "cuda", **more}
    return trace(Subject(facts=FACTS, **asked), length)


def kept(made: Trace) -> Counter[int]:
    """How often the forward pass keeps an allocation of so many bytes for the backward pass."""
    step = made.repeated
    return Counter(
        s for s, kind in zip(step.sizes, step.kinds, strict=True) if kind == "activations"
    )


@pytest.mark.parametrize(("length", "columns"), [(160, 160), (150, 160)])
def test_a_mask_s_numbers_stay_once_a_layer_each_line_padded_to_sixteen(length, columns):
    bias = 2 * BATCH * length * columns
    assert kept(traced(length, has_padding=True))[bias] == LAYERS
    assert kept(traced(length))[bias] == 0


def test_a_mask_s_numbers_are_of_the_query_s_type():
    made = traced(160, has_padding=True, dtype="float32")
    assert kept(made)[4 * BATCH * 160 * 160] == LAYERS
    cast = traced(160, has_padding=True, dtype="float32", has_autocast=True)
    assert kept(cast)[2 * BATCH * 160 * 160] == LAYERS


def test_without_padding_nothing_goes_with_the_square_of_the_length():
    made, length = traced(2048).repeated, 2048
    largest = max(
        s
        for s, kind in zip(made.sizes, made.kinds, strict=True)
        if kind not in ("logits", "weights")
    )
    assert largest < length * length
    assert max(kept(traced(length, has_padding=True))) >= 2 * BATCH * length * length


def test_keys_and_values_are_repeated_only_where_there_is_a_mask():
    grown = sum(s * n for s, n in (kept(traced(160, has_padding=True)) - kept(traced(160))).items())
    heads = 2 * (HEADS - KEY_HEADS) * WIDTH * BATCH * 160 * 2
    assert grown >= LAYERS * (heads + 2 * BATCH * 160 * 160)


def test_checkpointed_layers_keep_no_numbers_of_a_mask():
    made = traced(160, has_padding=True, has_checkpointing=True)
    assert kept(made)[2 * BATCH * 160 * 160] == 0


def test_dropout_keeps_a_byte_an_element_where_a_gradient_passes():
    adapter = Adapter(r=4, target_modules=("q_proj",), lora_dropout=0.1)
    elements = BATCH * 160 * HIDDEN
    noise = kept(traced(160, adapter=adapter))[elements]
    assert noise == LAYERS - 1  # nothing before the first layer is trained
    assert (
        kept(traced(160, adapter=adapter.model_copy(update={"lora_dropout": 0.0})))[elements] == 0
    )


def test_rows_laid_end_to_end_keep_a_mask_of_the_square_of_all_of_them():
    made = traced(160, loop="sft", is_flattened=True)
    assert kept(made)[2 * (BATCH * 160) ** 2] == LAYERS
