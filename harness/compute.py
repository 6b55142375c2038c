"""The compute of a training step, LoRA over full fine-tuning: counted, and in closed form.

A dense layer of N × N weights costs N² multiply-adds forward, N² for the gradient of its input and N²
for that of its weights; a frozen one has no third, and an adapter adds 3 of its own parameters. Hence
2/3 and a term that grows with the rank. Source: LoRA Without Regret, 'Compute efficiency of LoRA'. The
count (`worker/flops`) stands beside it, and what the closed form leaves out stands apart: attention's
products of activations, and the output head. What this leaves out: time, which is measured in runs.
"""

from __future__ import annotations

from pydantic import Field

from harness.catalog import ModelFacts
from harness.frozen import Count, Frozen, PositiveInt
from harness.sizes import count_groups, count_lora

TARGETS = "all-linear"  # PEFT's word: every linear layer but the output head


class StepFlops(Frozen):
    """FLOPs of one training step, forward and backward, by what they are spent on."""

    model: str
    rank: PositiveInt | None = Field(description="null: full fine-tuning")
    tokens: PositiveInt = Field(description="length of the one sequence of the step")
    linear: Count = Field(description="the layers' linear modules, adapters included")
    attention: Count = Field(description="scores and weighted values over the full square")
    head: Count = Field(description="the output head")

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.attention + self.head


class ComputeRatio(Frozen):
    """A rank's step over that of full fine-tuning, of the same model and length."""

    model: str
    rank: PositiveInt
    tokens: PositiveInt
    linear: float = Field(description="counted, linear modules alone: what the claim is about")
    closed_form: float = Field(description="2/3 and the rank's term, for the same modules")
    whole: float = Field(description="counted, with attention and head")
    attention_share: float = Field(description="attention's part of the full step")


def closed_form_ratio(facts: ModelFacts, rank: int) -> float:
    """Return (2 · weights + 3 · adapter) / (3 · weights), over the layers' linear modules."""
    weights = facts.layers * count_groups(facts).layer_matmul
    return (2 * weights + 3 * count_lora(facts, rank, TARGETS)) / (3 * weights)


def compare_steps(facts: ModelFacts, full: StepFlops, lora: StepFlops) -> ComputeRatio:
    """Set a counted LoRA step beside the counted full one.

    Raises: ValueError if they are not two steps of one model and one length.
    """
    if (full.model, full.tokens) != (lora.model, lora.tokens) or lora.rank is None or full.rank:
        raise ValueError(f"expected a full and a LoRA step of one model, found {full} and {lora}")
    return ComputeRatio(
        model=full.model,
        rank=lora.rank,
        tokens=full.tokens,
        linear=lora.linear / full.linear,
        closed_form=closed_form_ratio(facts, lora.rank),
        whole=lora.total / full.total,
        attention_share=full.attention / full.total,
    )
