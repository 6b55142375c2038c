"""The trainable parameters of a model: their groups, norms, hash and dtypes.

A fault in one place (an adapter's scale, a frozen norm) shows in one group long before it shows in a loss,
so gradients and updates are kept by group: `attention.lora_A`, `mlp`, `embeddings`. What this leaves out:
when they are looked at (`probing`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from transformers import Trainer

Precision = Literal["float32", "bfloat16", "float16"]

# A part of a parameter's name, and its group; the first that fits. A norm's name may hold 'attention'.
_GROUPS = (
    ("norm", "norm"),
    ("embed", "embeddings"),
    ("wte", "embeddings"),
    ("lm_head", "head"),
    ("mlp", "mlp"),
    ("attn", "attention"),
    ("attention", "attention"),
)
_ADAPTERS = (
    ("lora_magnitude_vector", "lora_magnitude"),
    ("lora_embedding_A", "lora_A"),
    ("lora_embedding_B", "lora_B"),
    ("lora_A", "lora_A"),
    ("lora_B", "lora_B"),
)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, in the order of their names."""
    return {n: p for n, p in sorted(model.named_parameters()) if p.requires_grad}


def group_of(name: str) -> str:
    """Name the group of a parameter."""
    for mark, adapter in _ADAPTERS:
        if mark in name:  # the layer's own name stands before it
            return f"{group_of(name.partition(mark)[0])}.{adapter}"
    return next((group for mark, group in _GROUPS if mark in name), "other")


def group_norms(tensors: Mapping[str, torch.Tensor | None]) -> dict[str, float | None]:
    """Return the L2 norm of each group; null where it is not a number. A missing tensor counts as 0."""
    squares: dict[str, float] = defaultdict(float)
    for name, tensor in tensors.items():
        norm = 0.0 if tensor is None else torch.linalg.vector_norm(tensor.detach().double()).item()
        squares[group_of(name)] += norm * norm
    return {
        group: math.sqrt(square) if math.isfinite(square) else None
        for group, square in sorted(squares.items())
    }


def copies(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Copy parameters, to see later how far they have moved."""
    return {name: p.detach().clone() for name, p in parameters.items()}


def moved(
    parameters: Mapping[str, torch.nn.Parameter], begin: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return how far parameters are from where they began."""
    return {n: p.detach().double() - begin[n].double() for n, p in parameters.items() if n in begin}


def hash_values(parameters: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the values, in the order of the names; float32 holds a bfloat16 exactly.

    Names are left out: a wrapper may rename what it holds.
    """
    found = hashlib.sha256()
    for _, tensor in sorted(parameters.items()):
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def count_dtypes(parameters: Iterable[torch.Tensor]) -> dict[str, int]:
    """Return dtype → number of parameters of it."""
    counts: Counter[str] = Counter()
    for parameter in parameters:
        counts[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return dict(sorted(counts.items()))


def precision(trainer: Trainer) -> Precision:
    """Return the coarsest precision that a trainer computes in, autocast or weights."""
    found = {p.dtype for p in trainer.model.parameters()}
    if trainer.args.bf16 or torch.bfloat16 in found:
        return "bfloat16"
    return "float16" if trainer.args.fp16 or torch.float16 in found else "float32"
