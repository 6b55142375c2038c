"""A training step's real code on fake tensors: model, adapter, loss, optimizer, all without memory.

The model's class, PEFT's adapter, TRL's patched forward and its trainers' own `compute_loss`, torch's
optimizer and clipping run as they would; only numbers are missing. What a GPU does otherwise than the
CPU that this runs on is put in its place, and nothing else: kernels by `kernels`, and here the
implementation of optimizers and clipping that is CUDA's default.

What this leaves out: quantised weights.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import AutoModelForCausalLM

from harness.errors import ConfigError
from harness.subject import Subject, untraced
from harness.worker.architectures import full_config
from harness.worker.methods import target_modules
from harness.worker.models import DTYPES


def build_model(subject: Subject) -> nn.Module:
    """Build the model of a subject with its adapter, in training mode. Under a fake tensor mode.

    It is put together on the meta device, where PEFT's casts work, and then takes fake weights.
    """
    with unset_fake_temporarily():
        model = without_weights(subject)
    return with_fake_weights(model)


def without_weights(subject: Subject) -> Any:
    """Put the model and its adapter together on the meta device."""
    model = bare_model(subject)
    if subject.has_checkpointing:
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": False}
        )
    if subject.adapter is not None:
        adapter = subject.adapter
        config = LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.lora_alpha,
            lora_dropout=adapter.lora_dropout,
            target_modules=target_modules(adapter.target_modules, model),
            use_rslora=adapter.use_rslora,
            use_dora=adapter.use_dora,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(
            model,
            config,
            autocast_adapter_dtype=adapter.dtype == "float32",
            low_cpu_mem_usage=True,
        )
        if subject.has_checkpointing:
            model.enable_input_require_grads()
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(DTYPES[adapter.dtype])
    model.train()
    if subject.loop != "transformers":
        fuse_head(subject, model)
    return model


def build_reference(subject: Subject) -> Any:
    """Build the second model that a divergence is measured from; None where there is none."""
    if not subject.has_reference:
        return None
    with unset_fake_temporarily():
        model = bare_model(subject).eval()
        fuse_head(subject.model_copy(update={"adapter": None}), model)
    return with_fake_weights(model)


def bare_model(subject: Subject) -> Any:
    """Build the model without an adapter."""
    config = full_config(subject.facts)
    config._attn_implementation = "sdpa"
    config.max_position_embeddings = max(131072, config.max_position_embeddings or 0)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=DTYPES[subject.dtype])


def with_fake_weights(model: Any) -> Any:
    """Give every parameter and buffer a fake tensor of its shape; tied ones stay tied."""
    taken: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in taken:
                    fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                    taken[id(parameter)] = nn.Parameter(fake, parameter.requires_grad)
                module._parameters[name] = taken[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
                setattr(module, name, module._buffers[name])
    return model


def fuse_head(subject: Subject, model: Any) -> None:
    """Let TRL patch the forward, as the subject's trainer does."""
    from trl.trainer.utils import add_fused_lm_head

    outputs = (
        ("log_probs", "entropy", "is_top1") if subject.loop == "sft" else ("log_probs", "entropy")
    )
    add_fused_lm_head(model.get_base_model() if subject.adapter else model, outputs=outputs)


def loss_of(subject: Subject, model: Any, ids: Tensor, mask: Tensor, scored: int) -> Tensor:
    """Compute the loss of a micro batch through the code of the subject's loop."""
    if subject.loop == "transformers":
        return model(input_ids=ids, attention_mask=mask, labels=ids.clone(), use_cache=False).loss
    if subject.loop == "sft":
        return _sft_loss(model, ids, mask, has_positions=subject.is_flattened)
    return _grpo_loss(model, ids, mask, scored)


class _Number(float):
    """A count that a trainer logs: it asks values, which fake tensors don't have."""

    def sum(self) -> _Number:
        return self

    def mean(self) -> _Number:
        return self

    def item(self) -> float:
        return float(self)

    def __truediv__(self, other: Any) -> _Number:
        return self


def _sft_loss(model: Any, ids: Tensor, mask: Tensor, *, has_positions: bool) -> Tensor:
    """SFT's loss. Rows that lie end to end are told apart by positions, of which the model makes a mask."""
    from collections import defaultdict

    from trl import SFTTrainer

    trainer = SimpleNamespace(
        model=model,
        aux_loss_enabled=False,
        accelerator=SimpleNamespace(
            parallelism_config=None, num_processes=1, gather_for_metrics=lambda _: _Number(1)
        ),
        compute_loss_func=None,
        label_smoother=None,
        args=SimpleNamespace(loss_type="nll", average_tokens_across_devices=True),
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        get_tp_size=lambda: 1,
    )
    told = {"position_ids": ids.clone()} if has_positions else {"attention_mask": mask}
    inputs = {"input_ids": ids, "labels": ids.clone(), **told}
    return SFTTrainer.compute_loss(trainer, model, inputs, num_items_in_batch=ids.numel())


def _grpo_loss(model: Any, ids: Tensor, mask: Tensor, scored: int) -> Tensor:
    """The part of GRPO's loss that holds memory: the forward through the fused head, and its weighing."""
    per_token = score_rows(model, ids, mask, scored, has_entropy=True)
    ratio = torch.exp(per_token - per_token.detach())
    advantages = torch.ones(ids.shape[0], 1, dtype=torch.float32)
    losses = -torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages)
    weights = torch.ones_like(losses)
    return (losses * weights).sum() / weights.sum().clamp(min=1.0)


def score_rows(
    model: Any, ids: Tensor, mask: Tensor, scored: int, *, has_entropy: bool = False
) -> Tensor:
    """Score completions as GRPOTrainer does. Shapes: (batch, scored)."""
    from trl import GRPOTrainer

    trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=nullcontext))
    score = inspect.unwrap(GRPOTrainer._get_per_token_logps_and_entropies)
    per_token, _, _ = score(trainer, model, ids, mask, scored, compute_entropy=has_entropy)
    return per_token


def build_optimizer(subject: Subject, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that transformers makes of a name, with CUDA's default implementation.

    Raises: ConfigError for one that the tracer has no class for.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    name = subject.optim
    on_gpu: dict[str, Any] = {"foreach": True} if subject.device == "cuda" else {"foreach": False}
    if name in ("adamw_torch_fused",):
        return torch.optim.AdamW(trained, fused=True)
    if name in ("adamw_torch", "AdamW"):
        return torch.optim.AdamW(trained, **on_gpu)
    if name == "sgd":
        return torch.optim.SGD(trained, **on_gpu)
    if name == "adagrad":
        return torch.optim.Adagrad(trained, **on_gpu)
    if name in ("rmsprop",):
        return torch.optim.RMSprop(trained, **on_gpu)
    if name == "adafactor":
        from transformers import Adafactor

        return Adafactor(trained, scale_parameter=False, relative_step=False, lr=1e-3)
    if "8bit" in name or name.startswith(("paged_", "lion")):
        from harness.worker.blockwise import Blockwise

        return Blockwise(trained, name, () if "torch" in name else embeddings_of(model))
    raise ConfigError(untraced(name))


def embeddings_of(model: nn.Module) -> list[Tensor]:
    """Return the weights of a model's embeddings."""
    return [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]


def clip(model: nn.Module) -> None:
    """Clip gradients as accelerate does."""
    trained = [p for p in model.parameters() if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
