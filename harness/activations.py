"""What the passes of a run hold: activations, logits, keys and values. Per GPU, in bytes.

Activations: Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models),
section 4.1: the bytes that a layer keeps for its backward pass, tensor by tensor, here for a gated MLP,
grouped keys and values, RMS norms and what torch's autocast and PEFT copy. Without the terms in the
square of the length, which scaled-dot-product attention does not store. Checked against what torch
saves in `tests/test_worker_architectures.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.catalog import ModelFacts
from harness.frozen import Count, Frozen
from harness.spec import RunSpec
from harness.workload import Workload

# TRL from 1.15 scores tokens in tiles of the head's output and never holds all logits.
# Source: trl/kernels/chunked_logprob.py and trl/trainer/utils.py of 1.16.0.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
TILES_SINCE = (1, 15)


class Term(Frozen):
    """One part of a GPU's memory."""

    name: str
    bytes: Count
    note: str


@dataclass(frozen=True)
class ElementBytes:
    """Bytes of an element, as torch really holds them."""

    compute: int  # a matrix multiplication's inputs and outputs
    residual: int  # the stream between layers: a float32 embedding keeps it float32 under autocast
    trained: int  # a weight that is trained, its gradient and each of its moments

    @classmethod
    def of(cls, load: Workload) -> ElementBytes:
        """Derive them from a run's precision and sharding."""
        compute = 2 if load.has_autocast else load.weight_bytes
        # Sharded models are cast to bfloat16 before a layer runs, and keep float32 masters.
        residual = compute if load.is_sharded else load.weight_bytes
        trained = 4 if load.is_sharded and load.has_autocast else load.weight_bytes
        return cls(compute, residual, trained)


def layer_bytes_per_token(spec: RunSpec, facts: ModelFacts, load: Workload) -> int:
    """Bytes that one layer keeps of one token for its backward pass, nothing recomputed."""
    size = ElementBytes.of(load)
    hidden, ffn = facts.hidden, facts.ffn
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    is_full = spec.lora is None
    casts_inputs = load.has_autocast and size.residual == 4
    norms = 8 * hidden + (2 * size.residual * hidden if is_full else 0)  # twice x in float32, and y
    if facts.architecture == "qwen3":
        norms += (query + key) * (4 + (size.compute if is_full else 0))
    # q, k, v, gate and up each save an input of their own where it had to be cast for them
    inputs = (5 if casts_inputs else 2) * hidden * size.compute
    # q, its output twice, and keys and values repeated for every head; a log-sum-exp per head
    attention = 5 * query * size.compute + 4 * facts.heads
    mlp = 4 * ffn * size.compute  # gate, its activation, up, their product
    return norms + inputs + attention + mlp


def activations(spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes) -> Term:
    """Count what a micro batch keeps for its backward pass, and its gradients on the way."""
    tokens = load.batch * (load.length or 0)
    layer = layer_bytes_per_token(spec, facts, load)
    stream = facts.hidden * size.residual
    # gradients of the widest tensors of one layer, while its backward pass runs
    passing = 3 * facts.ffn * size.compute + 2 * stream
    outside = 3 * stream  # embedding, last norm and its input
    if load.has_checkpointing:
        kept, how = facts.layers * stream + layer, "each layer's input, and one layer recomputed"
    else:
        kept, how = facts.layers * layer, "all layers, no checkpointing"
    return Term(
        name="activations",
        bytes=tokens * (kept + passing + outside),
        note=f"{load.batch} × {load.length:,} tokens: {how} (after Korthikanti et al. 2022)",
    )


def logits(
    spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes, *, has_tiles: bool
) -> Term:
    """Count what scoring a micro batch's tokens takes."""
    tokens = load.batch * (load.scored or 0)
    if not has_tiles:
        each = size.compute + 4 + 4
        note = (
            f"{load.batch} × {load.scored:,} tokens × {facts.vocab:,} × {each} bytes: logits, their "
            "float32 copy and its gradient"
        )
        return Term(name="logits", bytes=tokens * facts.vocab * each, note=note)
    columns = min(TILE_VOCABULARY, facts.vocab)
    tile = (min(tokens, TILE_TOKENS) + facts.hidden) * columns * size.compute
    hidden = tokens * facts.hidden * (4 + size.compute)
    gradient = 4 * facts.hidden * facts.vocab if spec.lora is None else 0
    also = ", the head's gradient" if gradient else ""
    note = f"a tile of {TILE_TOKENS:,} × {columns:,} and its weights, hidden states{also} (TRL 1.15 on)"
    return Term(name="logits", bytes=tile + hidden + gradient, note=note)


def cache_elements(facts: ModelFacts) -> int:
    """Elements of keys (as many again of values) that a token takes in the cache of all layers."""
    return facts.layers * facts.kv_heads * facts.head_dim


def cache_bytes_per_token(facts: ModelFacts, size: ElementBytes) -> int:
    """Bytes of a token's keys and values in transformers' cache.

    RoPE lifts keys to the residual's precision, and the cache takes the values up to the keys'.
    """
    return 2 * cache_elements(facts) * size.residual


def generation(facts: ModelFacts, load: Workload, size: ElementBytes) -> Term:
    """Count the cache of the completions that transformers samples for training."""
    return Term(
        name="generation",
        bytes=load.generates * (load.length or 0) * cache_bytes_per_token(facts, size),
        note=f"keys and values of {load.generates} completions at once, by transformers",
    )


def evaluation(spec: RunSpec, facts: ModelFacts, load: Workload, size: ElementBytes) -> Term:
    """Count what the harness's own held-out evaluation takes."""
    each_row = spec.evaluation.samples_per_prompt if spec.task == "grpo" else 1
    rows = min(spec.evaluation.batch_size, spec.dataset.test_rows * each_row)
    tokens = rows * (load.length or 0)
    if spec.task == "grpo" and load.pool is not None and load.pool.tensor_parallel == 1:
        each, note = 0, "held-out completions are sampled from vLLM's pool"
    elif spec.task == "grpo":
        each = cache_bytes_per_token(facts, size)
        note = (
            f"keys and values of {rows} held-out completions (evaluation.batch_size), transformers"
        )
    else:
        # Measured on a GPU (docs/gpu.md): the logits, a copy of those that count, and both steps of
        # cross entropy in float32 stand at once.
        each = facts.vocab * (2 * size.compute + 4 + 4)
        note = (
            f"logits of {rows} held-out rows (evaluation.batch_size), twice, and in float32 twice"
        )
    return Term(name="evaluation", bytes=tokens * each, note=note)
