"""`python -m harness.worker.flops`: FLOPs of a training step, counted on the page's architectures.

The model's own code runs forward and backward on the meta device under torch's FlopCounterMode: shapes
flow, nothing is computed and no weight exists, so an 8B model takes seconds and no memory.

The contract. stdin is one JSON object: {"models": [NAME, …], "ranks": [1, …], "tokens": 1024}. stdout
is JSON Lines, a step each, full fine-tuning (rank null) before the ranks; fields as `compute.StepFlops`.

Layers of a model are alike, so steps of two and of three layers are counted and the others follow; a
test counts all of them. What this leaves out: what FlopCounterMode does not count (softmax, norms,
activations, the optimizer), kernels that skip attention's upper triangle, and gradient checkpointing,
which runs every forward twice in both arms.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from harness.catalog import MODELS, ModelFacts
from harness.worker.architectures import full_config, meta_model

TARGETS = "all-linear"
PRODUCTS = ("mm", "addmm")  # activations by weights
ATTENTION = ("bmm", "baddbmm")  # activations by activations, in eager attention; and RoPE's angles


class Flops(NamedTuple):
    """FLOPs by what they are spent on."""

    linear: int
    attention: int
    head: int


def count_step(facts: ModelFacts, rank: int | None, tokens: int) -> Flops:
    """Count a training step over one sequence; `rank` None is full fine-tuning."""
    two, three = (count_layers(facts, rank, tokens, layers) for layers in (2, 3))
    more = facts.layers - 2
    return Flops(
        two.linear + more * (three.linear - two.linear),
        two.attention + more * (three.attention - two.attention),
        two.head,
    )


def count_layers(facts: ModelFacts, rank: int | None, tokens: int, layers: int) -> Flops:
    """Count a training step of the model cut to so many layers."""
    config = full_config(facts.model_copy(update={"layers": layers}))
    config._attn_implementation = "eager"  # its products are plain operations, which are counted
    model = meta_model(config)
    causal: Any = model if rank is None else adapted(model, rank)
    ids = torch.ones(1, tokens, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, tokens, tokens, device="meta")  # [batch, 1, query, key]
    places = torch.arange(tokens, device="meta")[None]
    with FlopCounterMode(display=False) as counter:
        hidden = causal.model(
            input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False
        ).last_hidden_state  # [batch, tokens, hidden]
        hidden.sum().backward()
    with FlopCounterMode(display=False) as head:
        causal.lm_head(hidden.detach().requires_grad_()).sum().backward()
    return Flops(spent(counter, PRODUCTS), spent(counter, ATTENTION), spent(head, PRODUCTS))


def adapted(model: PreTrainedModel, rank: int) -> Any:
    """Put adapters on a model, and return it without PEFT's wrapper: they stay in its layers."""
    config = LoraConfig(r=rank, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    return get_peft_model(model, config, low_cpu_mem_usage=True).get_base_model()


def spent(counter: FlopCounterMode, operations: Iterable[str]) -> int:
    """Sum what a counter has counted for some of torch's operations."""
    counts = counter.get_flop_counts()["Global"]
    wanted = set(operations)
    return sum(n for operation, n in counts.items() if str(operation).rpartition(".")[2] in wanted)


def answer(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Count every step that is asked for."""
    for name in question["models"]:
        for rank in (None, *question["ranks"]):
            found = count_step(MODELS[name], rank, question["tokens"])
            yield {"model": name, "rank": rank, "tokens": question["tokens"], **found._asdict()}


def main() -> int:
    """Answer stdin's question on stdout."""
    for line in answer(json.load(sys.stdin)):
        print(json.dumps(line), flush=True)  # noqa: T201 - the contract's answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
