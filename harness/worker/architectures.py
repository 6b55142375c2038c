"""The page's model architectures as transformers configurations, at full size or as toys.

A full-size configuration is only ever built on the meta device: it has no weights, and parameters,
adapters and wrapped classes can be counted on it. A toy keeps what makes an architecture break (GQA,
tied or untied head, bias on q, k and v, q/k norms, a head size that is not hidden / heads, layers
without RoPE) at a size that trains in milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.llama import LlamaConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config
from transformers.models.smollm3 import SmolLM3Config

from harness.catalog import Architecture, ModelFacts

_CONFIGS: dict[Architecture, type[PretrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}
# SmolLM3 leaves RoPE out of every fourth layer, so a toy of four has one without.
_TOY_LAYERS: dict[Architecture, int] = {"llama": 2, "qwen2": 2, "qwen3": 2, "smollm3": 4}


def full_config(facts: ModelFacts) -> PretrainedConfig:
    """Return the configuration of a catalogued model as the repository has it, but for RoPE's base."""
    return _config(
        facts,
        hidden_size=facts.hidden,
        num_hidden_layers=facts.layers,
        num_attention_heads=facts.heads,
        num_key_value_heads=facts.kv_heads,
        head_dim=facts.head_dim,
        intermediate_size=facts.ffn,
        vocab_size=facts.vocab,
    )


def toy_config(facts: ModelFacts, vocab: int) -> PretrainedConfig:
    """Return the configuration of a toy with the same architecture."""
    heads = 4
    groups = 2 if facts.kv_heads < facts.heads else 1  # GQA stays GQA
    is_wide = facts.heads * facts.head_dim != facts.hidden  # q wider than the hidden size, as 0.6B
    return _config(
        facts,
        hidden_size=64,
        num_hidden_layers=_TOY_LAYERS[facts.architecture],
        num_attention_heads=heads,
        num_key_value_heads=heads // groups,
        head_dim=32 if is_wide else 16,
        intermediate_size=128,
        vocab_size=vocab,
        max_position_embeddings=4096,
    )


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """Build a model without weights: shapes alone, no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _config(facts: ModelFacts, **shape: Any) -> PretrainedConfig:
    config_class = _CONFIGS[facts.architecture]
    if facts.architecture in ("qwen2", "smollm3"):
        shape.pop("head_dim")  # theirs is hidden / heads, always
    return config_class(
        **shape,
        tie_word_embeddings=facts.is_tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
