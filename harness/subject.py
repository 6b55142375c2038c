"""What a forecast of memory is made of: one training step, told without weights, data or a machine.

A subject holds everything that a step's memory hangs on and nothing else, so that equal subjects have
equal traces and a trace can be kept by the hash of its subject.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.catalog import ModelFacts
from harness.errors import did_you_mean
from harness.frozen import Frozen, PositiveInt
from harness.settings import Precision

Loop = Literal["sft", "grpo", "transformers"]
Device = Literal["cuda", "cpu"]
# By transformers' names (AdamW: torch's own); of others only what `is_traced` says.
TRACED_OPTIMIZERS = (
    "adamw_torch", "adamw_torch_fused", "AdamW", "sgd", "adagrad", "rmsprop", "adafactor",
)  # fmt: skip
LEAST_TOKENS = 3  # of a row that is traced: it and a shorter one both have a token to predict


def is_traced(optim: str) -> bool:
    """Whether an optimizer's step is traced; of bitsandbytes' the sizes of its states are."""
    return optim in TRACED_OPTIMIZERS or "8bit" in optim or optim.startswith(("paged_", "lion"))


def untraced(optim: str) -> str:
    """Say of an optimizer that its step can't be traced."""
    return (
        f"optim: found {optim!r}{did_you_mean(optim, TRACED_OPTIMIZERS)}, which the forecast has no class "
        "for; expected adamw_torch, adamw_torch_fused, sgd, adagrad, rmsprop, adafactor, or an 8-bit or "
        "paged one"
    )


class Adapter(Frozen):
    """A LoRA adapter as PEFT puts it on a model."""

    r: PositiveInt
    target_modules: str | tuple[str, ...]
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    dtype: Precision = Field(
        "float32", description="of its weights; PEFT keeps float32 over a bfloat16 base"
    )


class Subject(Frozen):
    """One training step."""

    facts: ModelFacts = Field(description="the model's shape")
    dtype: Precision = Field(description="of the base weights")
    adapter: Adapter | None = Field(None, description="null: full fine-tuning")
    loop: Loop = Field(
        description="whose loss: TRL's for sft or grpo, or transformers' own with labels"
    )
    batch: PositiveInt = Field(description="rows of a micro batch")
    accumulation: PositiveInt = Field(1, description="micro batches of an optimizer step")
    has_autocast: bool = Field(False, description="bfloat16 compute over the weights' precision")
    has_checkpointing: bool = False
    optim: str = Field("adamw_torch", description="by transformers' names")
    scored_share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of a row's positions that the loss scores"
    )
    has_padding: bool = Field(
        False, description="rows of a batch differ in length, so attention has a mask"
    )
    is_flattened: bool = Field(
        False, description="rows lie end to end in one, apart by a mask: TRL's packing (sft)"
    )
    has_reference: bool = Field(
        False, description="a second model in evaluation mode (grpo, beta, no adapter)"
    )
    keeps_gradients: bool = Field(
        False, description="gradients live until the next step begins, as in a loop of one's own"
    )
    device: Device = "cuda"
