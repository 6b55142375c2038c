"""Toys: the architecture of their repository, any text, the same bytes every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from harness.catalog import MODELS
from harness.errors import ConfigError, MachineError
from harness.settings import Model
from harness.worker.models import load_model
from harness.worker.toys import byte_tokenizer, locate, write

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def loaded(repository: str):
    template = "plain" if MODELS[repository].is_base else None
    return load_model(Model(source=f"toy:{repository}", chat_template=template))


@pytest.mark.parametrize("repository", sorted(MODELS))
def test_a_toy_is_of_its_repositorys_architecture(repository):
    facts, model = MODELS[repository], loaded(repository).model
    config = model.config
    assert type(model).__name__ == CLASSES[facts.architecture]
    assert (config.num_key_value_heads < config.num_attention_heads) is (
        facts.kv_heads < facts.heads
    )
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head.data_ptr() == embedding.data_ptr()) is facts.is_tied
    names = {
        name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1]
        for name, _ in model.named_parameters()
    }
    assert ("q_proj.bias" in names) is (facts.architecture == "qwen2")
    assert ("q_norm.weight" in names) is (facts.architecture == "qwen3")
    if facts.architecture == "smollm3":
        assert 0 in config.no_rope_layers


@pytest.mark.parametrize(
    "text", ["plain", "héllo 🙂\x00\n", "<|im_end|> {{ braces }}", "\ud7ff" * 50]
)
def test_the_tokenizer_takes_any_text_and_gives_it_back(text):
    tokenizer = byte_tokenizer(has_template=True)
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_only_what_the_assistant_says_is_marked_for_training():
    tokenizer = byte_tokenizer(has_template=True)
    messages = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "say"}]
    done = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token
        for token, is_ours in zip(done["input_ids"], done["assistant_masks"], strict=True)
        if is_ours
    ]
    assert tokenizer.decode(marked) == "say<|im_end|>"


def test_a_base_models_toy_has_no_chat_template_either():
    with pytest.raises(ConfigError, match="chat_template"):
        load_model(Model(source="toy:meta-llama/Llama-3.1-8B"))


def test_a_toy_is_the_same_bytes_every_time(tmp_path):
    facts = MODELS["Qwen/Qwen3-0.6B"]
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)
        write(facts, tmp_path / name)
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]


def test_a_toy_is_made_once(monkeypatch):
    folder = locate("Qwen/Qwen3-0.6B")
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert locate("Qwen/Qwen3-0.6B") == folder
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_an_unknown_repository_and_an_unwritable_cache_are_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean"):
        locate("Qwen/Qwen3-0.6")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="HARNESS_CACHE"):
        locate("Qwen/Qwen3-0.6B")
    assert Path(tmp_path / "file").is_file()
