"""What a step holds otherwise on a GPU than on the CPU that traces it, put in that one's place.

* Attention calls the fused kernels that `scaled_dot_product_attention` picks on a GPU: flash without a
  mask, memory-efficient with one. Neither keeps a square of the length for each head. With a mask one
  square a row of the batch stays for each layer, whatever its heads: in every call torch writes the mask
  as numbers of the query's type, each line padded to 16 of them, and the backward pass keeps that. It also
  repeats keys and values to as many heads as queries have, which no masked kernel does.
* Dropout keeps its noise as booleans, where the CPU keeps numbers of the input's type.
* TRL's tiles are folded by Triton kernels in place, and only scored positions reach them.

transformers makes no mask where no row is padded, but can't see that of tensors without values, so a
subject says it (`has_padding`); rows longer than a model's window have a mask anyway.

Source: torch's aten/src/ATen/native/transformers/attention.cpp (`convert_boolean_attn_mask`,
`preprocess_mask`) and aten/src/ATen/native/Dropout.cpp (`is_fused_kernel_acceptable`); transformers'
integrations/sdpa_attention.py (`use_gqa_in_sdpa`) and masking_utils.py. Without padding, runs on an H100
agree to a megabyte; a run with padding or dropout was not measured here, so those rest on the sources.

What this leaves out: kernels from elsewhere (Liger, FlashAttention 3), cuDNN's, which keep as much as
flash, and a GPU too old for flash (before Ampere).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten
PAGE_BYTES = 4096
BIAS_COLUMNS = 16  # a line of a mask is padded to a multiple of these


@contextmanager
def as_on_gpu(*, has_padding: bool) -> Iterator[int]:
    """Put a GPU's kernels where this machine would take the CPU's; gives a tile's columns."""
    import transformers.masking_utils as masking
    import trl.kernels.chunked_logprob as tiles
    import trl.trainer.utils as scoring

    with ExitStack() as stack:
        for where, name, stand_in in (
            (nn.functional, "scaled_dot_product_attention", attend),
            (nn.functional, "dropout", drop),
            (masking, "_ignore_causal_mask_sdpa", _mask_rule(has_padding)),
            (tiles, "_forward_tile", _in_place),
            (tiles, "_backward_tile", _in_place),
            (tiles, "_addmm_fp32", _in_place),
            (scoring, "_use_triton", lambda _: True),
        ):
            stack.enter_context(_replaced(where, name, stand_in))
        yield scoring._CHUNKED_LOGPROB_CHUNK_SIZE


@contextmanager
def as_on_cpu(vocab: int, element_bytes: int, *, has_padding: bool) -> Iterator[int]:
    """Make TRL's tile as wide as what is touched of it, and give its columns.

    A tile has 32,768 columns however small the vocabulary is; of a row only the pages that hold its logits
    are written, and memory that was never written is not resident.
    """
    import transformers.masking_utils as masking
    import trl.trainer.utils as scoring

    name = "_CHUNKED_LOGPROB_CHUNK_SIZE"
    page = PAGE_BYTES // element_bytes
    columns = min(getattr(scoring, name), -(-vocab // page) * page)
    rule = _mask_rule(has_padding)
    with (
        _replaced(scoring, name, columns),
        _replaced(masking, "_ignore_causal_mask_sdpa", rule),
    ):
        yield columns


def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
           dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
           enable_gqa: bool = False) -> Tensor:  # fmt: skip
    """Attention as a GPU's fused kernels hold it. Shapes: (batch, heads, length, head size)."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.bfloat16) for t in (query, key, value))
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        if query.dtype == torch.float32 and groups > 1:  # no fused kernel repeats heads in float32
            key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    if attn_mask is None and query.dtype != torch.float32:
        return aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    bias = None if attn_mask is None else bias_of(attn_mask, query, key)
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]


def bias_of(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Write a mask as numbers, as a kernel adds them. Shapes: (batch, heads, queries, keys), all a view.

    One tensor stands for two where lines are padded: the unpadded one is gone before the kernel runs.
    """
    columns = -(-mask.shape[-1] // BIAS_COLUMNS) * BIAS_COLUMNS
    bias = query.new_empty((*mask.shape[:-1], columns))[..., : mask.shape[-1]]
    return bias.expand(*query.shape[:-1], key.shape[-2])


def drop(hidden: Tensor, p: float = 0.5, training: bool = True, _: bool = False) -> Tensor:
    """Dropout as a GPU's fused kernel holds it."""
    if not training or not 0 < p < 1:
        return torch.dropout(hidden, p, training)
    return torch.native_dropout(hidden, p, training)[0]


def _mask_rule(has_padding: bool) -> Callable[..., bool]:
    """Whether attention needs no mask: transformers' rule, which reads values that fake tensors lack."""

    def needs_none(
        _mask: Tensor | None,
        _queries: int,
        keys: int,
        _query_offset: int,
        _key_offset: int,
        window: int | None = None,
    ) -> bool:
        return not has_padding and (window is None or keys < window)

    return needs_none


def _in_place(*_: Any, **__: Any) -> None:
    """A Triton kernel that overwrites its tile, or a product that accumulates: no memory of its own."""


@contextmanager
def _replaced(where: Any, name: str, stand_in: Any) -> Iterator[None]:
    own = getattr(where, name)
    setattr(where, name, stand_in)
    try:
        yield
    finally:
        setattr(where, name, own)
