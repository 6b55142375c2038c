"""Shard a toy of every model of the page over two processes, as accelerate would from our file.

Started by `torch.distributed.run`, one process a rank, on the CPU over gloo. The environment holds
what `accelerate launch` makes of benchmarks/accelerate/fsdp2.yaml; accelerate's plugin and its
wrapping (torch's `fully_shard` underneath) are the real ones, with a stand-in for the Accelerator,
which on a CPU would not get that far. The first process prints a JSON line for each model:
wrapped classes, and loss and gradient against the same model in one piece; and one for our own
evaluations of the micro model, whole and sharded.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import AutoModelForCausalLM

from harness.catalog import MODELS, ModelFacts
from harness.settings import Evaluation, Model, Parallel
from harness.worker.architectures import toy_config
from harness.worker.held_out import HeldOutReward
from harness.worker.models import load_model
from harness.worker.sft import held_out_nll
from harness.worker.wrapping import is_as_asked, wrapper_of

VOCAB = 96


def toy(facts: ModelFacts, has_adapter: bool) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(toy_config(facts, VOCAB))
    if has_adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
        for name, parameter in model.named_parameters():  # B is zero, and so A has no gradient
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    return model


def shard(model: Any, mesh: Any) -> Any:
    state = SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin())
    accelerator = SimpleNamespace(
        state=state,
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=["dp_shard"]),
        mixed_precision="no",
        device=torch.device("cpu"),
        is_main_process=distributed.get_rank() == 0,
    )
    return fsdp2_prepare_model(accelerator, model)


def loss_of(model: Any) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12) % VOCAB
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach()


def gradient_norm(model: Any) -> float:
    squares = 0.0
    for parameter in model.parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            squares += float(grad.double().pow(2).sum())
    return squares**0.5


def look(facts: ModelFacts, has_adapter: bool, mesh: Any) -> dict[str, Any]:
    whole = toy(facts, has_adapter)
    expected, norm = float(loss_of(whole)), gradient_norm(whole)
    model = shard(toy(facts, has_adapter), mesh)
    loss = float(loss_of(model))
    layers = model.get_base_model().model.layers if has_adapter else model.model.layers
    wrapped = [type(m).__name__ for m in model.modules() if isinstance(m, FSDPModule)]
    return {
        "repository": facts.repository,
        "has_adapter": has_adapter,
        "layers": len(layers),
        "layer_classes": sorted({type(layer).__name__ for layer in layers}),
        "all_layers_sharded": all(isinstance(layer, FSDPModule) for layer in layers),
        "wrapper": wrapper_of(model),
        "as_asked": [as_asked(whole), as_asked(model)],
        "wrapped": wrapped,
        "local_share": sum(p.to_local().numel() for p in model.parameters())
        / sum(p.numel() for p in model.parameters()),
        "loss": [expected, loss],
        "gradient_norm": [norm, gradient_norm(model)],
    }


def as_asked(model: Any) -> bool:
    state = SimpleNamespace(num_processes=2, is_fsdp2=True)
    trainer: Any = SimpleNamespace(
        model_wrapped=model, accelerator=SimpleNamespace(state=state, num_processes=2)
    )
    return is_as_asked(trainer, Parallel(processes=2, strategy="fsdp2"))


def evaluate(mesh: Any) -> dict[str, Any]:
    """Judge the micro model by held-out NLL and reward, whole and then sharded."""
    found: dict[str, Any] = {"repository": "embedded:micro-llama"}
    for name in ("whole", "sharded"):
        loaded = load_model(Model(source="embedded:micro-llama"))
        model = loaded.model
        if name == "sharded":
            model = shard(model, mesh)
            register_fsdp_forward_method(model, "generate")  # as transformers' trainer does
        ids = torch.arange(40).reshape(4, 10)
        trainer: Any = SimpleNamespace(
            model=model,
            processing_class=loaded.tokenizer,
            args=SimpleNamespace(bf16=False, fp16=False, max_completion_length=12),
            eval_dataset={"test": list(range(4))},
            data_collator=lambda rows, ids=ids: {"input_ids": ids[rows], "labels": ids[rows]},
        )
        nll = held_out_nll(trainer, "test", 0, 3).value
        row = {"prompt": [{"role": "user", "content": "3+5+4=?"}], "solution": "12"}
        scored: list[str] = []

        def reward(completions: Any, scored: list[str] = scored, **_: Any) -> list[float]:
            scored += [c[0]["content"] for c in completions]
            return [float(len(c[0]["content"])) for c in completions]

        held_out = HeldOutReward(
            trainer, reward, Evaluation(samples_per_prompt=4), 0, is_sharded=name == "sharded"
        )
        point = held_out.measure(Dataset.from_list([row] * 2), "test", 0)
        found[name] = {"nll": nll, "reward": point.value, "texts": scored}
    return found


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),), mesh_dim_names=("dp_shard",))
    for facts in MODELS.values():
        for has_adapter in (False, True):
            found = look(facts, has_adapter, mesh)
            if distributed.get_rank() == 0:
                sys.stdout.write(json.dumps(found) + "\n")
    found = evaluate(mesh)
    if distributed.get_rank() == 0:
        sys.stdout.write(json.dumps(found) + "\n")
    distributed.destroy_process_group()
