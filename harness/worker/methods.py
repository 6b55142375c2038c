"""Full fine-tuning or LoRA: what is put on the model before TRL trains it, and in which precision.

LoRA goes through PEFT's own LoraConfig. Its default initialisation is the blog's (A uniform with
bound 1/sqrt(d_in), B zero), and `all-linear` is every linear layer but the output head; the blog's
parameter counts include the head, which is `all-linear+lm_head` here.
"""

from __future__ import annotations

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, Trainer

from harness.catalog import HEAD, TARGETS, TIED_HEAD
from harness.errors import ConfigError, did_you_mean
from harness.settings import Precision
from harness.spec import RunSpec
from harness.worker.models import DTYPES


def peft_config(spec: RunSpec, model: PreTrainedModel) -> LoraConfig | None:
    """Return the adapter of a run, or None for full fine-tuning.

    Raises: ConfigError for a layer that the model does not have, and for a tied output head.
    """
    if spec.lora is None:
        return None
    return LoraConfig(
        r=spec.lora.r,
        lora_alpha=spec.lora.lora_alpha,
        lora_dropout=spec.lora.lora_dropout,
        target_modules=target_modules(spec.lora.target_modules, model),
        use_rslora=spec.lora.use_rslora,
        task_type="CAUSAL_LM",
    )


def target_modules(asked: str | tuple[str, ...], model: PreTrainedModel) -> str | list[str]:
    """Return the layers that a matrix asks to adapt, as PEFT takes them.

    PEFT passes over a name in a list that the model does not have, so every name is looked up here.

    Raises: ConfigError for a layer that the model does not have, and for a tied output head.
    """
    if isinstance(asked, str) and asked not in TARGETS:
        raise ConfigError(
            f"target_modules: found {asked!r}{did_you_mean(asked, TARGETS)}, expected one of "
            f"{', '.join(TARGETS)}, or a list of layer names"
        )
    names = TARGETS[asked] if isinstance(asked, str) else asked
    if names is None:
        return asked  # PEFT's own word
    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    missing = [n for n in names if not any(p == n or p.endswith(f".{n}") for p in paths)]
    if missing:
        known = sorted({path.rpartition(".")[2] for path in paths})
        raise ConfigError(
            f"target_modules: {type(model).__name__} has no linear layer {', '.join(missing)}"
            f"{did_you_mean(missing[0], known)}; expected some of {', '.join(known)}"
        )
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is model.get_input_embeddings().weight
    if is_tied and any(name.rpartition(".")[2] == HEAD for name in names):
        raise ConfigError(f"target_modules: {TIED_HEAD}")
    return list(names)


def match_precision(trainer: Trainer, dtype: Precision) -> None:
    """Give an adapter the master precision of the run, as full fine-tuning has it.

    PEFT keeps an adapter in float32 over a bfloat16 base: one arm would train in a precision that
    the other does not have. To be called before there is an optimizer, which would hold on to the
    weights as they were.
    """
    if trainer.optimizer is not None:
        raise RuntimeError(
            "found an optimizer; expected none before the adapter's precision is set"
        )
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name and parameter.requires_grad:
            parameter.data = parameter.data.to(DTYPES[dtype])
