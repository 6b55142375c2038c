"""Which layers get an adapter, and in which precision each arm really trains."""

from __future__ import annotations

import json

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from harness.catalog import ATTENTION_LAYERS, MLP_LAYERS, MODELS
from harness.errors import ConfigError
from harness.launch import Launch
from harness.matrix import expand, parse_matrix
from harness.parity import undeclared_differences
from harness.settings import Lora
from harness.worker.architectures import meta_model, toy_config
from harness.worker.methods import match_precision, peft_config
from harness.worker.progress import Progress
from harness.worker.session import build, configure, open_session
from tests.conftest import MATRIX

# One of each architecture, tied and untied.
REPOSITORIES = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-8B-Base",
    "HuggingFaceTB/SmolLM3-3B",
)
LINEAR = {*ATTENTION_LAYERS, *MLP_LAYERS}


def lora_spec(asked, dtype="float32"):
    spec = next(s for s in expand(parse_matrix(MATRIX, "m")) if s.method == "lora")
    lora = Lora(r=2, target_modules=asked)
    model = spec.model.model_copy(update={"dtype": dtype})
    return spec.model_copy(update={"lora": lora, "model": model})


def adapted(model, asked):
    """The layers that got an adapter, by the last part of their names, and how many there are."""
    wrapped = get_peft_model(model, peft_config(lora_spec(asked), model))
    paths = [n.partition(".lora_A.")[0] for n, _ in wrapped.named_parameters() if ".lora_A." in n]
    return {path.rpartition(".")[2] for path in paths}, len(paths)


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("all-linear", LINEAR),
        ("attention", set(ATTENTION_LAYERS)),
        ("mlp", set(MLP_LAYERS)),
        (("q_proj", "layers.1.mlp.down_proj"), {"q_proj", "down_proj"}),
    ],
)
def test_the_layers_that_were_asked_for_get_an_adapter(repository, asked, expected):
    model = meta_model(toy_config(MODELS[repository], vocab=64))
    names, count = adapted(model, asked)
    layers = model.config.num_hidden_layers
    assert names == expected
    assert count == (layers + 1 if isinstance(asked, tuple) else layers * len(expected))


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("asked", ["all-linear+lm_head", ("q_proj", "lm_head")])
def test_a_head_of_its_own_is_adapted_and_a_tied_one_refused(repository, asked):
    facts = MODELS[repository]
    model = AutoModelForCausalLM.from_config(toy_config(facts, vocab=64))
    if facts.is_tied:
        with pytest.raises(ConfigError, match="is its embedding"):
            peft_config(lora_spec(asked), model)
        return
    names, count = adapted(model, asked)
    layers = model.config.num_hidden_layers
    assert names == ({*LINEAR, "lm_head"} if isinstance(asked, str) else set(asked))
    assert count == layers * (len(names) - 1) + 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("q_proj", "c_attn"), "LlamaForCausalLM has no linear layer c_attn"),
        (("embed_tokens",), "has no linear layer embed_tokens"),
        (("up_prj",), "did you mean 'up_proj'"),
        ("attn", "found 'attn'"),
    ],
)
def test_a_layer_that_the_model_does_not_have_is_named(asked, expected):
    model = meta_model(toy_config(MODELS["meta-llama/Llama-3.1-8B"], vocab=64))
    with pytest.raises(ConfigError) as caught:
        peft_config(lora_spec(asked), model)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("source", "modules", "expected"),
    [
        ("embedded:micro-llama", "atention", "did you mean 'attention'"),
        ("embedded:micro-llama", "[q_proj, gat_proj]", "did you mean 'gate_proj'"),
        ("Qwen/Qwen3-0.6B", "all-linear+lm_head", "is its embedding"),
        ("toy:Qwen/Qwen3-0.6B", "[q_proj, lm_head]", "is its embedding"),
    ],
)
def test_a_matrix_is_told_of_unknown_layers_at_once(source, modules, expected):
    text = MATRIX.replace("embedded:micro-llama", source)
    text = text.replace("lora: {r: 4}", f"lora: {{r: 4, target_modules: {modules}}}")
    with pytest.raises(ConfigError) as caught:
        parse_matrix(text, "m.yaml")
    found = [p for p in caught.value.problems if "target_modules" in p]
    assert sum(expected in problem for problem in found) == 1


@pytest.mark.parametrize("modules", ["mlp", "[q_proj, model.layers.0.mlp.down_proj]", "all-linear"])
def test_known_layers_are_taken(modules):
    parse_matrix(MATRIX.replace("{r: 4}", f"{{r: 4, target_modules: {modules}}}"), "m.yaml")
    other = MATRIX.replace("embedded:micro-llama", "someone/another-architecture")
    parse_matrix(other.replace("{r: 4}", "{r: 4, target_modules: [c_attn]}"), "m.yaml")


def trained(folder, method, dtype, bf16):
    """One real step; returns dtypes of base, adapter, optimizer state, and the configuration."""
    from trl import SFTConfig, SFTTrainer

    specs = expand(parse_matrix(MATRIX, "m"), {"bf16": bf16, "max_steps": 1})
    spec = next(s for s in specs if (s.task, s.method) == ("sft", method))
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})
    folder.mkdir()
    session = open_session(spec, Launch(), folder, Progress())
    trainer = build(
        session,
        lambda: SFTTrainer(
            model=session.loaded.model,
            args=configure(session, SFTConfig),
            train_dataset=session.splits.train,
            processing_class=session.loaded.tokenizer,
            peft_config=peft_config(spec, session.loaded.model),
        ),
    )
    trainer.train()
    session.journal.close()
    parameters = dict(trainer.model.named_parameters())
    state = [v for s in trainer.optimizer.state.values() for k, v in s.items() if k != "step"]
    return (
        {p.dtype for n, p in parameters.items() if "lora_" not in n},
        {p.dtype for n, p in parameters.items() if "lora_" in n},
        {v.dtype for v in state},
        json.loads((folder / "resolved_config.json").read_bytes()),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "bf16", "master"),
    [
        ("float32", False, torch.float32),
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
    ],
)
def test_both_arms_train_in_the_same_master_precision(tmp_path, dtype, bf16, master):
    base, adapter, state, full = trained(tmp_path / "full", "full", dtype, bf16)
    assert (base, adapter, state) == ({master}, set(), {master})
    base, adapter, state, lora = trained(tmp_path / "lora", "lora", dtype, bf16)
    assert (base, adapter, state) == ({master}, {master}, {master})
    assert undeclared_differences(full, lora, ["learning_rate"]) == []


def test_an_adapter_is_not_cast_under_an_optimizer_that_holds_it():
    class Trained:
        optimizer = object()
        model = torch.nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match="found an optimizer"):
        match_precision(Trained(), "bfloat16")
