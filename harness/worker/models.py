"""The model and tokenizer of a pair, from the harness itself, a cache, a folder or the Hub.

The dtype is always explicit: TRL's default for a model given by name has moved between releases
(float32, then the checkpoint's, then float32 again), and with it memory and loss. Code from a
repository is never run, and weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness.errors import ConfigError, MachineError, did_you_mean
from harness.record import ParameterCounts
from harness.settings import Model
from harness.worker import smollm2, toys
from harness.worker.templates import apply_template, pin_date, require_template

EMBEDDED = Path(__file__).parent / "assets"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: tuple[str, ...] = ()  # what a reader of the record must know


def load_model(spec: Model, places: Mapping[str, str] | None = None) -> Loaded:
    """Load a pair's model and tokenizer at the spec's dtype.

    `places` says in which folder a repository's files lie; transformers finds the others itself.

    Raises: ConfigError for an embedded name that does not exist; MachineError if SmolLM2 is neither
    cached nor within reach; huggingface_hub's own errors for another repository.
    """
    try:
        return _load((places or {}).get(spec.source) or locate(spec.source), spec)
    except OSError as error:  # what transformers raises for anything the Hub did not give
        if spec.source == "smollm2":
            raise MachineError(smollm2.missing_message()) from error
        raise


def _load(source: str, spec: Model) -> Loaded:
    tokenizer = AutoTokenizer.from_pretrained(source, revision=spec.revision)
    if spec.chat_template:
        apply_template(tokenizer, spec.chat_template)
    require_template(tokenizer, spec.source)
    notes = pin_date(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        revision=spec.revision,
        dtype=DTYPES[spec.dtype],
        use_safetensors=True,
        trust_remote_code=False,
    )
    for name, value in spec.generation_config.items():
        setattr(model.generation_config, name, value)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(model, tokenizer, tuple(notes))


def locate(source: str) -> str:
    """Return the folder or repository that a model source stands for.

    Raises: ConfigError for an unknown embedded model; MachineError if SmolLM2 is neither cached nor
    allowed to be downloaded.
    """
    kind, _, name = source.partition(":")
    if kind == "embedded":
        known = [p.name for p in EMBEDDED.iterdir() if (p / "config.json").is_file()]
        if name not in known:
            raise ConfigError(
                f"embedded model {name!r} does not exist{did_you_mean(name, known)}; expected one of "
                + ", ".join(known)
            )
        return str(EMBEDDED / name)
    if kind == "toy":
        return str(toys.locate(name))
    if source == "smollm2":
        cached = smollm2.locate()
        if cached is not None:
            return str(cached)
        if os.environ.get("HF_HUB_OFFLINE") == "1":
            raise MachineError(smollm2.missing_message())
        return smollm2.HUB_REPOSITORY
    return source


def count_parameters(model: torch.nn.Module) -> ParameterCounts:
    """Count a model's parameters, before or after an adapter was put on it.

    A base weight that multiplies activations is the 2-D weight of a linear layer; a tied output head
    counts (it multiplies), an embedding that is only looked up does not.
    """
    total = trainable = adapter = matmul = matmul_trainable = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
        adapter += parameter.numel() if "lora_" in name else 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" not in name:
            matmul += module.weight.numel()
            matmul_trainable += module.weight.numel() if module.weight.requires_grad else 0
    return ParameterCounts(
        total=total,
        trainable=trainable,
        matmul=matmul,
        matmul_trainable=matmul_trainable,
        adapter=adapter,
    )


def hash_trainable(model: torch.nn.Module) -> str:
    """SHA-256 over the adapter's weights, in the order of their names; a full model is not hashed."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
