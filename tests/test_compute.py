"""The closed form of LoRA's compute, against the published table, and steps set side by side."""

from __future__ import annotations

import pytest

from harness.catalog import MODELS
from harness.compute import StepFlops, closed_form_ratio, compare_steps

# All-linear, the layers' weights only: model → ratio at r = 1, 32, 128, 256, 512.
TABLE = {
    "meta-llama/Llama-3.1-8B": (0.667, 0.679, 0.715, 0.763, 0.859),
    "Qwen/Qwen3-8B-Base": (0.667, 0.679, 0.717, 0.767, 0.868),
    "meta-llama/Llama-3.2-3B": (0.667, 0.684, 0.736, 0.805, 0.943),
    "HuggingFaceTB/SmolLM3-3B": (0.667, 0.688, 0.753, 0.839, 1.011),
    "Qwen/Qwen2.5-3B-Instruct": (0.667, 0.688, 0.753, 0.839, 1.012),
    "meta-llama/Llama-3.2-1B": (0.667, 0.690, 0.759, 0.852, 1.037),
    "Qwen/Qwen3-0.6B": (0.668, 0.713, 0.850, 1.033, 1.400),
}


def step(rank: int | None, **changes) -> StepFlops:
    values = {"model": "m", "tokens": 8, "linear": 600, "attention": 100, "head": 300} | changes
    return StepFlops(rank=rank, **values)


@pytest.mark.parametrize("repository", TABLE)
def test_the_closed_form_is_that_of_the_table(repository):
    ratios = [closed_form_ratio(MODELS[repository], r) for r in (1, 32, 128, 256, 512)]
    assert [round(ratio, 3) for ratio in ratios] == pytest.approx(TABLE[repository], abs=5.1e-4)


def test_a_rank_adds_three_of_its_parameters_to_two_thirds():
    """Square layers of N: 2/3 + 2 r / N, the form in which it was published."""
    shape = {"hidden": 512, "ffn": 512, "heads": 8, "kv_heads": 8, "head_dim": 64}
    square = MODELS["meta-llama/Llama-3.1-8B"].model_copy(update=shape)
    assert closed_form_ratio(square, 16) == pytest.approx(2 / 3 + 2 * 16 / 512)


def test_what_the_claim_is_about_stands_apart_from_the_whole():
    full, lora = step(None), step(4, linear=420, head=200)
    ratio = compare_steps(MODELS["Qwen/Qwen3-0.6B"], full, lora)
    assert ratio.linear == pytest.approx(0.7)
    assert ratio.whole == pytest.approx(0.72)
    assert ratio.attention_share == pytest.approx(0.1)
    assert (ratio.rank, ratio.tokens) == (4, 8)


@pytest.mark.parametrize(
    ("full", "lora"),
    [(step(None), step(None)), (step(2), step(4)), (step(None), step(4, tokens=9))],
)
def test_other_steps_are_not_compared(full, lora):
    with pytest.raises(ValueError, match="a full and a LoRA step of one model"):
        compare_steps(MODELS["Qwen/Qwen3-0.6B"], full, lora)
