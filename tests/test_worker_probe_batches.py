"""What a micro-batch held is told the same however it is padded, and otherwise when its content differs."""

from __future__ import annotations

import pytest
import torch

from harness.worker.probe_batches import describe, summary


def sft(ids, labels, mask=None, positions=None):
    batch = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}
    if mask is not None:
        batch["attention_mask"] = torch.tensor(mask)
    if positions is not None:
        batch["position_ids"] = torch.tensor(positions)
    return batch


def grpo(prompts, prompt_mask, completions, mask, advantages=(0.5,), **more):
    return {
        "prompt_ids": torch.tensor(prompts),
        "prompt_mask": torch.tensor(prompt_mask),
        "completion_ids": torch.tensor(completions),
        "completion_mask": torch.tensor(mask),
        "advantages": torch.tensor(advantages),
        **more,
    }


ROW = sft([[5, 6, 7]], [[-100, 6, 7]], [[1, 1, 1]])
PADDED = sft([[5, 6, 7, 0]], [[-100, 6, 7, -100]], [[1, 1, 1, 0]])


def test_padding_is_no_content():
    left = sft([[0, 5, 6, 7]], [[-100, -100, 6, 7]], [[0, 1, 1, 1]])
    for other in (PADDED, left):
        assert describe(other, 0).sha256 == describe(ROW, 0).sha256
        assert describe(other, 0).counts == describe(ROW, 0).counts
    assert describe(ROW, 0).counts == {"sequences": 1, "input_tokens": 3, "trained_tokens": 2}


@pytest.mark.parametrize(
    "other",
    [
        sft([[5, 6, 8]], [[-100, 6, 8]], [[1, 1, 1]]),  # another token
        sft([[5, 6, 7]], [[-100, 6, -100]], [[1, 1, 1]]),  # its end is not trained
        sft([[5, 6, 7, 0]], [[-100, 6, 7, -100]], [[1, 1, 1, 1]]),  # padding is attended to
        sft([[5, 6, 7, 0]], [[-100, 6, 7, 0]], [[1, 1, 1, 0]]),  # padding is trained
    ],
)
def test_any_other_content_has_another_hash(other):
    assert describe(other, 0).sha256 != describe(ROW, 0).sha256


def test_where_documents_begin_in_a_packed_row_counts():
    packed = sft([[5, 6, 7, 8]], [[-100, 6, -100, 8]], positions=[[0, 1, 0, 1]])
    joined = sft([[5, 6, 7, 8]], [[-100, 6, -100, 8]], positions=[[0, 1, 2, 3]])
    assert describe(packed, 0).parts["documents"] != describe(joined, 0).parts["documents"]
    assert describe(packed, 0).parts["inputs"] == describe(joined, 0).parts["inputs"]


def test_a_masked_completion_keeps_its_tokens_and_loses_its_training():
    kept = grpo([[3]], [[1]], [[7, 8, 0]], [[1, 1, 0]])
    masked = grpo([[3]], [[1]], [[7, 8, 0]], [[0, 0, 0]])
    one, other = describe(kept, 0), describe(masked, 0)
    assert one.parts["completions"] == other.parts["completions"]
    assert one.parts["masks"] != other.parts["masks"]
    assert (one.counts["trained_tokens"], other.counts["trained_tokens"]) == (2, 0)
    assert one.counts["input_tokens"] == other.counts["input_tokens"] == 3


def test_prompts_and_completions_are_told_without_their_padding():
    short = grpo([[3]], [[1]], [[7, 1]], [[1, 1]])
    wide = grpo([[0, 0, 3]], [[0, 0, 1]], [[7, 1, 0, 0]], [[1, 1, 0, 0]])
    assert describe(short, 0).sha256 == describe(wide, 0).sha256


def test_log_probabilities_are_those_of_trained_tokens():
    values = torch.tensor([[-1.0, -3.0, -50.0]])
    batch = grpo([[3]], [[1]], [[7, 8, 9]], [[1, 1, 0]], ref_per_token_logps=values)
    found = describe(batch, 0).values
    assert found["reference"].tolist() == [-1.0, -3.0]
    assert "old" not in found


def test_values_of_micro_batches_are_pooled_over_their_tokens():
    found = summary("policy", [torch.tensor([1.0]), torch.tensor([3.0, 5.0])])
    assert found == {"policy/l2": pytest.approx(35**0.5), "policy/mean": pytest.approx(3.0)}
    extremes = summary("advantages", [torch.tensor([-1.5, 1.0])])
    assert (extremes["advantages/smallest"], extremes["advantages/largest"]) == (-1.5, 1.0)
    assert summary("policy", []) == {"policy/l2": None}
    assert summary("policy", [torch.tensor([float("nan")])])["policy/mean"] is None
