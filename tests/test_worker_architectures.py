"""What torch and PEFT really do with the page's architectures, against the closed forms of a plan."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from harness.activations import ElementBytes, cache_bytes_per_token, layer_bytes_per_token
from harness.catalog import ATTENTION_LAYERS as ATTENTION
from harness.catalog import MLP_LAYERS as MLP
from harness.catalog import MODELS
from harness.settings import Lora
from harness.sizes import count_groups, count_lora
from harness.worker.architectures import full_config, meta_model
from harness.worker.models import DTYPES, count_parameters
from tests.plan_matrix import load_of, run_of
from tests.test_sizes import COUNTS

LLAMA_8B = MODELS["meta-llama/Llama-3.1-8B"]
# A batch whose shape is none of a weight's, so that saved activations are told from saved weights.
BATCH, LENGTH = 2, 96


def counted(facts, r, target_modules):
    """What PEFT puts on the model; asserts that nothing was allocated for it."""
    config = LoraConfig(r=r, target_modules=target_modules, task_type="CAUSAL_LM")
    model = get_peft_model(meta_model(full_config(facts)), config, low_cpu_mem_usage=True)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    return count_parameters(model)


@pytest.mark.slow
@pytest.mark.parametrize("repository", COUNTS)
@pytest.mark.parametrize("r", [1, 256])
def test_peft_counts_all_linear_as_the_closed_form_does(repository, r):
    facts = MODELS[repository]
    *_, r1, r256 = COUNTS[repository]
    parameters = counted(facts, r, "all-linear")
    assert parameters.adapter == parameters.trainable == {1: r1, 256: r256}[r]
    assert parameters.adapter == count_lora(facts, r, "all-linear")
    assert parameters.total - parameters.adapter == facts.parameters
    assert parameters.matmul == count_groups(facts).matmul


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (ATTENTION, "attention"),
        (MLP, "mlp"),
        ((*ATTENTION, *MLP, "lm_head"), ("all-linear", "lm_head")),
    ],
)
def test_peft_counts_groups_and_the_head_of_an_untied_model(modules, said):
    assert counted(LLAMA_8B, 3, list(modules)).adapter == count_lora(LLAMA_8B, 3, said)


def small(repository):
    """A catalogued model's facts at a size that runs in milliseconds."""
    shape = {"hidden": 256, "layers": 4, "heads": 8, "kv_heads": 2, "head_dim": 32, "ffn": 704}
    return MODELS[repository].model_copy(update={**shape, "vocab": 512})


def small_run(method, dtype, has_autocast):
    """A run and its workload, in the precision that is looked at."""
    spec = run_of("sft-8b.full")
    lora = Lora(r=1) if method == "lora" else None
    spec = spec.model_copy(update={"method": method, "lora": lora})
    wide = 4 if dtype == "float32" else 2
    return spec, load_of(spec, weight_bytes=wide, has_autocast=has_autocast)


def small_model(facts, method, dtype):
    model = AutoModelForCausalLM.from_config(full_config(facts)).to(DTYPES[dtype])
    if method == "lora":
        config = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        if dtype == "bfloat16":
            model.to(DTYPES[dtype])  # as a run does: adapters in the master precision
    return model.train()


def saved_bytes(model, has_autocast):
    """Bytes that torch saves for the backward pass of the layers: of activations, of cast weights."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {tuple(p.shape) for p in model.parameters() if p.dim() == 2}
    shapes |= {shape[::-1] for shape in shapes}
    activations, weights, kept = {}, {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept.append(tensor)
            is_weight = tensor.dim() == 2 and tuple(tensor.shape) in shapes
            home = weights if is_weight else activations
            home[storage.data_ptr()] = storage.nbytes()
        return tensor

    body = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    rows = torch.randint(0, 512, (BATCH, LENGTH))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_autocast),
    ):
        body(input_ids=rows, use_cache=False)
    return sum(activations.values()), sum(weights.values())


@pytest.mark.parametrize("repository", ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B-Base"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    ("dtype", "has_autocast"),
    [("float32", True), ("float32", False), ("bfloat16", True), ("bfloat16", False)],
)
def test_a_layer_keeps_what_the_closed_form_says(repository, method, dtype, has_autocast):
    facts = small(repository)
    spec, load = small_run(method, dtype, has_autocast)
    saved, _ = saved_bytes(small_model(facts, method, dtype), has_autocast)
    stream = facts.hidden * ElementBytes.of(load).residual
    said = facts.layers * layer_bytes_per_token(spec, facts, load) + 3 * stream
    # A bound from above: keys and values are counted once per head, as beside a padding mask.
    assert saved <= BATCH * LENGTH * said <= 1.2 * saved


@pytest.mark.parametrize("method", ["full", "lora"])
def test_autocast_keeps_a_copy_of_every_matrix_unless_layers_are_recomputed(method):
    facts = small("meta-llama/Llama-3.1-8B")
    matrices = 2 * facts.layers * count_groups(facts).layer_matmul
    model = small_model(facts, method, "float32")
    _, copied = saved_bytes(model, has_autocast=True)
    assert 0.95 * matrices <= copied <= matrices  # the first layer's inputs need no gradient


def test_checkpointing_keeps_the_input_of_each_layer():
    facts = small("meta-llama/Llama-3.1-8B")
    model = small_model(facts, "lora", "float32")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    saved, copied = saved_bytes(model, has_autocast=True)
    inputs = BATCH * LENGTH * facts.layers * facts.hidden * 4
    assert inputs <= saved <= 1.3 * inputs
    assert copied == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_of_transformers_is_as_wide_as_the_residual(dtype):
    facts = small("meta-llama/Llama-3.1-8B")
    _, load = small_run("full", dtype, has_autocast=True)
    model = small_model(facts, "full", dtype).eval()
    rows = torch.ones((BATCH, 4), dtype=torch.long)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.generate(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            max_new_tokens=3,
            do_sample=False,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
    layers = output.past_key_values.layers
    held = sum(t.nbytes for layer in layers for t in (layer.keys, layer.values))
    tokens = BATCH * layers[0].keys.shape[2]
    assert held == tokens * cache_bytes_per_token(facts, ElementBytes.of(load))
