"""Memory of one GPU in a run, term by term, before anything is downloaded or allocated.

The terms add up to the total exactly. What stands in a term is said in its note; what is left out is
what no formula knows, and has a term of its own (`overhead`), from the rate card.
"""

from __future__ import annotations

from dataclasses import replace

from harness.activations import (
    ElementBytes,
    Term,
    activations,
    cache_elements,
    evaluation,
    generation,
    logits,
)
from harness.catalog import ModelFacts
from harness.frozen import Frozen
from harness.rates import RateCard
from harness.sizes import ParameterGroups, count_groups, count_lora
from harness.spec import RunSpec
from harness.text import memory as in_gib
from harness.workload import CHECKPOINT_BYTES, Pool, Workload

WHOLE_MOMENT_BYTES = 4  # of bitsandbytes, where it does not keep 8 bits
MOST_GPUS = 64  # where the search for the smallest number that fits ends


class Memory(Frozen):
    """All parts of a GPU's memory at its highest moment."""

    terms: tuple[Term, ...]

    @property
    def total_bytes(self) -> int:
        """Their sum."""
        return sum(term.bytes for term in self.terms)

    def bytes_of(self, name: str) -> int:
        """One term's bytes, 0 if it does not occur."""
        return sum(term.bytes for term in self.terms if term.name == name)


def estimate_memory(
    spec: RunSpec,
    facts: ModelFacts,
    load: Workload,
    gpu_bytes: int,
    card: RateCard,
    *,
    has_tiles: bool = True,
    has_evaluation: bool = True,
) -> Memory | None:
    """Estimate the highest memory of one GPU; None if nothing bounds the length of a row.

    `has_tiles` says whether TRL scores tokens in tiles (from 1.15) or holds all logits; without
    `has_evaluation` the held-out ones are left out.
    """
    if load.length is None or load.scored is None:
        return None
    groups = count_groups(facts)
    size = ElementBytes.of(load)
    standing = [*_states(spec, facts, load, groups, size), _copies(spec, facts, load, has_tiles)]
    step = [
        activations(spec, facts, load, size),
        logits(spec, facts, load, size, has_tiles=has_tiles),
    ]
    pool = _pool(load, gpu_bytes)
    others = [generation(facts, load, size)]
    others += [evaluation(spec, facts, load, size)] if has_evaluation else []
    if load.pool and load.pool.sleeps:
        others.append(pool)
    at_once = _beyond(others, sum(term.bytes for term in step))
    if pool not in others:
        at_once.append(pool)
    terms = [*standing, *step, *at_once]
    held_by_torch = sum(term.bytes for term in terms if term.name != pool.name)
    return Memory(terms=tuple(t for t in (*terms, _overhead(held_by_torch, card)) if t.bytes))


def smallest_sharding(
    spec: RunSpec,
    facts: ModelFacts,
    load: Workload,
    gpu_bytes: int,
    card: RateCard,
    *,
    has_tiles: bool = True,
) -> int | None:
    """Find on how many GPUs a run fits: 1, or the fewest that FSDP2 shards it over; None if none."""
    for count in range(1, MOST_GPUS + 1):
        tried = replace(load, processes=count, strategy="fsdp2" if count > 1 else None)
        memory = estimate_memory(spec, facts, tried, gpu_bytes, card, has_tiles=has_tiles)
        if memory is not None and memory.total_bytes <= gpu_bytes:
            return count
    return None


def pool_problem(facts: ModelFacts, load: Workload, gpu_bytes: int) -> str | None:
    """Say why a colocated vLLM could not start in its pool; None if it could."""
    if load.pool is None or load.length is None:
        return None
    pool = _pool(load, gpu_bytes).bytes
    weights, per_token = _vllm_needs(facts, load.pool)
    need = weights + per_token * (load.pool.longest or load.length)
    if need <= pool:
        return None
    return (
        f"vLLM's pool of {in_gib(pool)} does not hold the model in bfloat16 and the cache of one "
        f"sequence ({in_gib(need)}); raise vllm_gpu_memory_utilization"
    )


def pool_note(facts: ModelFacts, load: Workload, gpu_bytes: int) -> str | None:
    """Say how long a model's context may be where a matrix leaves it to vLLM; None where it does not."""
    if load.pool is None or load.pool.longest is not None:
        return None
    pool = _pool(load, gpu_bytes).bytes
    weights, per_token = _vllm_needs(facts, load.pool)
    room = max(0, pool - weights) // per_token
    return (
        "vllm_max_model_length is not set: vLLM starts only if its pool holds a sequence of the model's "
        f"whole context, and {in_gib(pool)} hold {room:,} tokens"
    )


def _vllm_needs(facts: ModelFacts, pool: Pool) -> tuple[int, int]:
    """Bytes of vLLM's weights, and of a token in its cache, per GPU; activations left out."""
    weights = facts.parameters * CHECKPOINT_BYTES // pool.tensor_parallel
    return weights, 2 * cache_elements(facts) * CHECKPOINT_BYTES // pool.tensor_parallel


def _states(
    spec: RunSpec, facts: ModelFacts, load: Workload, groups: ParameterGroups, size: ElementBytes
) -> list[Term]:
    """Weights, gradients and moments: what stands from the first step to the last."""
    split = f", split over {load.shards} GPUs" if load.shards > 1 else ""
    moments, said = _moments(load.optim)
    buckets = 2 if load.strategy == "ddp" else 1
    also = " and DDP's buckets" if buckets == 2 else ""
    if spec.lora is not None:
        adapter = count_lora(facts, spec.lora.r, spec.lora.target_modules)
        each = size.trained * (1 + buckets) + _moment_bytes(moments, said, size.trained)
        note = f"{adapter:,} parameters of {size.trained} bytes: weights, gradients{also}, {said}{split}"
        return [
            _weights(groups.total, load.weight_bytes, load.shards, split),
            Term(name="adapter", bytes=_share(adapter * each, load.shards), note=note),
        ]
    gradients = groups.total * size.trained * buckets
    optimizer = groups.total * _moment_bytes(moments, said, size.trained)
    if _keeps_embeddings_whole(load.optim):
        optimizer += groups.embedding * moments * (WHOLE_MOMENT_BYTES - 1)
        said += f", the embedding's of {WHOLE_MOMENT_BYTES} bytes"
    return [
        _weights(groups.total, size.trained, load.shards, split),
        Term(
            name="gradients",
            bytes=_share(gradients, load.shards),
            note=f"{size.trained} bytes each{also}{split}",
        ),
        Term(name="optimizer", bytes=_share(optimizer, load.shards), note=f"{said}{split}"),
    ]


def _weights(count: int, each: int, shards: int, split: str) -> Term:
    note = f"{count:,} parameters of {each} bytes{split}"
    return Term(name="weights", bytes=_share(count * each, shards), note=note)


def _moments(optim: str) -> tuple[int, str]:
    """How many moments an optimizer keeps of each weight, and how a note says it."""
    width = " in 8 bits" if "8bit" in optim else ""
    if optim == "sgd":
        return 0, "no moments (sgd)"
    if optim == "adafactor":
        return 0, "factored moments, near nothing (adafactor)"
    if optim.removeprefix("paged_").startswith(("lion", "adagrad", "rmsprop")):
        return 1, f"one moment{width} ({optim})"
    is_adam = "adam" in optim
    return 2, f"two moments{width} ({optim}{'' if is_adam else ', taken for Adam'})"


def _moment_bytes(moments: int, said: str, each: int) -> int:
    return moments * (1 if "8 bits" in said else each)


def _keeps_embeddings_whole(optim: str) -> bool:
    """Whether 8 bits leave out embeddings: transformers' trainer asks bitsandbytes so, not torchao."""
    return "8bit" in optim and "torch" not in optim


def _copies(spec: RunSpec, facts: ModelFacts, load: Workload, has_tiles: bool) -> Term:
    """Weights that exist a second time for computing: cast by autocast, or gathered from shards."""
    groups = count_groups(facts)
    head = facts.hidden * facts.vocab
    if load.is_sharded:
        compute = 2 if load.has_autocast else load.weight_bytes
        gathered = compute * (2 * groups.layer_matmul + groups.embedding + groups.head)
        gathered += 4 * head if has_tiles else 0
        gathered += 4 * groups.layer_matmul if spec.lora is None else 0
        note = "two layers, embedding and head gathered from the shards"
        note += ", and one layer's gradient before it is scattered" if spec.lora is None else ""
        return Term(name="gathered", bytes=gathered, note=note)
    if not load.has_autocast or load.weight_bytes == 2:
        return Term(name="bf16 copies", bytes=0, note="")
    layers = groups.matmul - head
    whole_head = 0 if has_tiles else head
    if spec.lora is None or not load.has_checkpointing:
        why = "autocast keeps a bfloat16 copy of every matrix until the backward pass has used it"
        return Term(name="bf16 copies", bytes=2 * (layers + whole_head), note=why)
    why = "autocast's bfloat16 copy of one layer; frozen ones are not cached"
    return Term(name="bf16 copies", bytes=2 * (groups.layer_matmul + whole_head), note=why)


def _pool(load: Workload, gpu_bytes: int) -> Term:
    share = load.pool.share if load.pool else 0
    note = f"{share:.0%} of the GPU (vllm_gpu_memory_utilization)"
    note += ", asleep while training" if load.pool and load.pool.sleeps else ""
    return Term(name="vLLM pool", bytes=int(gpu_bytes * share), note=note)


def _beyond(others: list[Term], step_bytes: int) -> list[Term]:
    """Of moments that are not the training step's, keep what the highest needs beyond its memory."""
    top = max(others, key=lambda term: term.bytes)
    if top.bytes <= step_bytes:
        return []
    note = f"{top.note}: {in_gib(top.bytes)}, beyond what a training step's activations and logits take"
    return [Term(name=top.name, bytes=top.bytes - step_bytes, note=note)]


def _overhead(held_bytes: int, card: RateCard) -> Term:
    loose = round(card.fragmentation.value * held_bytes)
    context = card.context_bytes.value
    note = (
        f"CUDA context {in_gib(context)}, fragmentation {card.fragmentation.value:.0%} (rate card)"
    )
    return Term(name="overhead", bytes=context + loose, note=note)


def _share(count: int, shards: int) -> int:
    return -(-count // shards)
