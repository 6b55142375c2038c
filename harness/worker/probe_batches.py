"""What a micro-batch held, in a form that does not depend on how a release of TRL passes it.

Padding is no content: its side and amount have changed between releases and train the same, as long as
masks say what it is. So a row is hashed as the tokens that its mask shows, together with the labels (SFT)
or the completion's mask (GRPO), and where its documents begin (packing). A wrong mask shows padding, and
another hash. What this leaves out: the loss (`probing`), which says what was made of it.

Letters: B sequences, T tokens, P tokens of prompts, C of completions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

IGNORED = -100  # the label that carries no loss
# Log-probabilities that TRL hands to the loss, and how a probe calls them.
LOG_PROBS = {"old_per_token_logps": "old", "ref_per_token_logps": "reference"}


@dataclass
class Batch:
    """One micro-batch."""

    parts: dict[str, str]  # part → hash of it
    counts: dict[str, int]
    values: dict[str, torch.Tensor] = field(default_factory=dict)  # what a step is to sum up

    @property
    def sha256(self) -> str:
        """A hash of all parts."""
        return digest(f"{name}={value}" for name, value in sorted(self.parts.items()))


def describe(inputs: Mapping[str, Any], pad: int | None) -> Batch:
    """Say what a trainer's loss was given; `pad` is the tokenizer's padding token."""
    return _completions(inputs, pad) if "completion_ids" in inputs else _sequences(inputs)


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of texts in their order, in hex."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def summary(name: str, values: Iterable[torch.Tensor]) -> dict[str, float | None]:
    """Sum up all values together; null where there are none, or they are no numbers.

    Advantages have a mean of nothing but rounding, so they are told by their extremes instead.
    """
    joined = torch.cat([v.reshape(-1).double() for v in values] or [torch.zeros(0)])
    if not joined.numel():
        return {f"{name}/l2": None}
    found = {f"{name}/l2": torch.linalg.vector_norm(joined).item()}
    if name == "advantages":
        found |= {f"{name}/largest": joined.max().item(), f"{name}/smallest": joined.min().item()}
    else:
        found[f"{name}/mean"] = joined.mean().item()
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _sequences(inputs: Mapping[str, Any]) -> Batch:
    """A supervised micro-batch: ids (B, T), labels, and a mask or the positions of packed rows."""
    ids = inputs["input_ids"]
    labels = inputs.get("labels", ids)
    shown = (
        inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(ids) > 0
    )
    positions = inputs.get("position_ids")
    tokens, trained, begins = [], [], []
    for row in range(ids.shape[0]):
        tokens.append(_text(ids[row][shown[row]]))
        trained.append(_text(labels[row][shown[row]]))
        if positions is not None:
            begins.append(_text((positions[row] == 0).nonzero()))
    hidden = labels[~shown]  # a label that no one may learn from
    return Batch(
        parts={
            "inputs": digest(tokens),
            "labels": digest([*trained, _text(hidden[hidden != IGNORED])]),
            "documents": digest(begins),
        },
        counts={
            "sequences": ids.shape[0],
            "input_tokens": int(shown.sum()),
            "trained_tokens": int((labels != IGNORED).sum()),
        },
    )


def _completions(inputs: Mapping[str, Any], pad: int | None) -> Batch:
    """A micro-batch of completions: prompts (B, P) and completions (B, C) with their masks."""
    prompt_mask, mask = inputs["prompt_mask"].bool(), inputs["completion_mask"]
    prompts = [
        _text(ids[kept]) for ids, kept in zip(inputs["prompt_ids"], prompt_mask, strict=True)
    ]
    completions, masks, length = [], [], 0
    for row, ids in enumerate(inputs["completion_ids"]):
        said = (ids != pad).nonzero() if pad is not None else torch.ones_like(ids).nonzero()
        end = int(said.max()) + 1 if said.numel() else 0
        length += end
        completions.append(_text(ids[:end]))
        masks.append(_text(mask[row][:end]) + "|" + _text(mask[row][end:].nonzero()))
    values = {"advantages": inputs["advantages"].detach()}
    for key, name in LOG_PROBS.items():
        if inputs.get(key) is not None:
            values[name] = shown_log_probs(inputs[key], mask)
    return Batch(
        parts={
            "prompts": digest(prompts),
            "completions": digest(completions),
            "masks": digest(masks),
        },
        counts={
            "sequences": mask.shape[0],
            "input_tokens": int(prompt_mask.sum()) + length,
            "trained_tokens": int(mask.sum()),
        },
        values=values,
    )


def shown_log_probs(log_probs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of trained tokens, of (B, C) and a mask of the same shape."""
    return log_probs.detach()[mask.bool()]


def _text(values: torch.Tensor) -> str:
    return " ".join(map(str, values.reshape(-1).tolist()))
