"""FLOPs counted on the model's own code are what arithmetic says they are, layer by layer."""

from __future__ import annotations

import pytest
import torch

from harness.catalog import MODELS
from harness.compute import closed_form_ratio
from harness.sizes import count_groups
from harness.worker.flops import count_layers, count_step
from tests.test_compute import TABLE

TOKENS = 32
LLAMA = MODELS["meta-llama/Llama-3.1-8B"]


def small(repository, **changes):
    """A catalogued model at a size that is counted in milliseconds."""
    shape = {"hidden": 256, "layers": 5, "heads": 8, "kv_heads": 2, "head_dim": 32, "ffn": 704}
    return MODELS[repository].model_copy(update={**shape, "vocab": 512, **changes})


@pytest.mark.parametrize("repository", TABLE)
def test_full_fine_tuning_costs_six_per_weight_and_token(repository):
    facts = small(repository)
    found = count_step(facts, None, TOKENS)
    weights = facts.layers * count_groups(facts).layer_matmul
    assert found.linear == 6 * weights * TOKENS
    assert found.head == 6 * facts.hidden * facts.vocab * TOKENS
    # Scores and values, two products a head over the full square, each three times: 12 T² of every head.
    heads = facts.layers * facts.heads * facts.head_dim
    assert found.attention == pytest.approx(12 * TOKENS**2 * heads, rel=2e-3)  # and RoPE's angles


@pytest.mark.parametrize("rank", [1, 16])
def test_lora_costs_four_per_frozen_weight_and_six_per_adapter_parameter(rank):
    facts = small("meta-llama/Llama-3.1-8B")
    found, full = count_step(facts, rank, TOKENS), count_step(facts, None, TOKENS)
    expected = closed_form_ratio(facts, rank) * full.linear
    # No gradient goes into the embedding: the first q, k and v, and what is on them, need none of theirs.
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    saved = 2 * TOKENS * facts.hidden * (query + 2 * key + 3 * rank)
    assert found.linear == pytest.approx(expected - saved, rel=1e-12)
    assert found.head == full.head * 2 // 3
    assert found.attention == full.attention


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("repository", ["Qwen/Qwen3-0.6B", "HuggingFaceTB/SmolLM3-3B"])
def test_two_and_three_layers_tell_of_all_of_them(repository, rank):
    facts = small(repository, layers=7)
    every = count_layers(facts, rank, TOKENS, 7)
    found = count_step(facts, rank, TOKENS)
    assert (found.linear, found.head) == (every.linear, every.head)
    assert found.attention == every.attention


@pytest.mark.slow
@pytest.mark.parametrize("repository", TABLE)
def test_at_full_size_the_count_is_the_closed_form_within_a_hundredth(repository):
    facts = MODELS[repository]
    full = count_step(facts, None, 1024).linear
    for rank in (1, 32, 256):
        ratio = count_step(facts, rank, 1024).linear / full
        assert ratio == pytest.approx(closed_form_ratio(facts, rank), rel=0.01)
    assert full == count_layers(facts, None, 1024, facts.layers).linear


def test_an_8b_model_is_counted_without_its_weights(monkeypatch):
    made = []
    original = torch.empty

    def watched(*size, **options):
        tensor = original(*size, **options)
        made.append(0 if tensor.is_meta else tensor.numel())
        return tensor

    monkeypatch.setattr(torch, "empty", watched)
    assert count_step(LLAMA, 1, 64).linear > 10**12
    assert made
    assert max(made) < 10**6
