"""Groups of parameters, their norms and their hash."""

from __future__ import annotations

import pytest
import torch

from harness.worker.probe_parameters import (
    copies,
    count_dtypes,
    group_norms,
    group_of,
    hash_values,
    moved,
    trainable,
)

LAYER = "base_model.model.model.layers.0"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("model.layers.0.self_attn.q_proj.weight", "attention"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("model.layers.0.mlp.up_proj.weight", "mlp"),
        ("lm_head.weight", "head"),
        ("score.weight", "other"),
        (f"{LAYER}.self_attn.q_proj.lora_A.default.weight", "attention.lora_A"),
        (f"{LAYER}.mlp.down_proj.lora_B.default.weight", "mlp.lora_B"),
        (f"{LAYER}.mlp.down_proj.lora_magnitude_vector.default", "mlp.lora_magnitude"),
        ("base_model.model.lm_head.lora_A.default.weight", "head.lora_A"),
        ("base_model.model.model.embed_tokens.lora_embedding_A.default", "embeddings.lora_A"),
    ],
)
def test_a_parameter_belongs_to_a_group(name, group):
    assert group_of(name) == group


def test_a_groups_norm_is_that_of_all_its_values():
    tensors = {"a.mlp.x": torch.tensor([3.0]), "b.mlp.y": torch.tensor([4.0]), "norm": None}
    assert group_norms(tensors) == {"mlp": pytest.approx(5.0), "norm": 0.0}
    assert group_norms({"mlp": torch.tensor([float("inf")])}) == {"mlp": None}


def test_how_far_parameters_moved_is_counted_from_where_they_began():
    model = torch.nn.Linear(2, 1, bias=False)
    parameters = trainable(model)
    begin, before = copies(parameters), hash_values(parameters)
    assert group_norms(moved(parameters, begin)) == {"other": 0.0}
    with torch.no_grad():
        model.weight += torch.tensor([[3.0, 4.0]])
    assert group_norms(moved(parameters, begin))["other"] == pytest.approx(5.0)
    assert hash_values(parameters) != before


def test_frozen_parameters_are_left_out_and_dtypes_are_counted():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, dtype=torch.bfloat16))
    model[0].bias.requires_grad_(False)
    assert list(trainable(model)) == ["0.weight", "1.bias", "1.weight"]
    assert count_dtypes(trainable(model).values()) == {"bfloat16": 4, "float32": 6}
