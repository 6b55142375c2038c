"""The embedded model: small, tokenised as the rewards need it, and made the same way every time."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.worker import embedded_model
from harness.worker.embedded_model import END, MARKS, MODEL_DIR, PAD, ROLES, Recipe

TINY = replace(Recipe(), batch_rows=4, right_steps=1, corrupted_steps=1)
CONVERSATION = [
    {"role": "user", "content": "3+5+4=?"},
    {"role": "assistant", "content": "<think>3+5=8</think>\\boxed{12}"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)


def test_the_weights_are_at_most_4_mb_and_readable_by_anyone():
    weights = MODEL_DIR / "model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    assert weights.stat().st_mode & 0o444 == 0o444


def test_the_shipped_tokenizer_is_the_one_that_the_script_builds(tokenizer):
    built = embedded_model.build_tokenizer()
    assert tokenizer.backend_tokenizer.to_str() == built.backend_tokenizer.to_str()
    assert tokenizer.chat_template == built.chat_template


def test_roles_and_marks_are_single_tokens(tokenizer):
    for name in (*ROLES, *MARKS, PAD, END):
        assert len(tokenizer.encode(name)) == 1
    assert tokenizer.pad_token == PAD
    assert tokenizer.eos_token == END


def test_text_survives_a_round_trip(tokenizer):
    text = CONVERSATION[1]["content"] + ' ,.!"x{}\\ \n' + embedded_model.CHARACTERS
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_skipping_special_tokens_keeps_what_the_rewards_read(tokenizer):
    ids = tokenizer.encode("<|assistant|><think>3+5=8</think>\\boxed{12}<|end|><|pad|>")
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == "<think>3+5=8</think>\\boxed{12}"


def test_the_prompt_with_its_generation_prompt_begins_the_conversation(tokenizer):
    prompt = tokenizer.apply_chat_template(
        CONVERSATION[:1], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert prompt == "<|user|>3+5+4=?<|end|><|assistant|>"
    assert whole == prompt + CONVERSATION[1]["content"] + "<|end|>"


def test_the_template_marks_the_assistants_tokens(tokenizer):
    encoded = tokenizer.apply_chat_template(
        CONVERSATION, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    taught = [token for token, is_taught in pairs if is_taught]
    assert tokenizer.decode(taught) == CONVERSATION[1]["content"] + "<|end|>"


def test_the_tokenizer_says_what_older_transformers_need():
    config = json.loads((MODEL_DIR / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]


def test_the_base_keeps_the_form_and_is_right_about_4_times_in_10(tokenizer, model):
    questions = [f"{a}+{b}+{c}=?" for a in range(0, 10, 2) for b in range(10) for c in range(5, 10)]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    torch.manual_seed(0)
    ids = torch.tensor([tokenizer.encode(prompt) for prompt in prompts])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=True, top_k=0
    )
    answers = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    right = [
        answer.endswith(f"</think>\\boxed{{{sum(int(digit) for digit in question[:5:2])}}}")
        for question, answer in zip(questions, answers, strict=True)
    ]
    assert sum("</think>\\boxed{" in answer for answer in answers) / len(answers) > 0.95
    assert 0.25 < sum(right) / len(right) < 0.55


def test_pretraining_twice_gives_the_same_weights(tokenizer):
    first, second = (embedded_model.pretrain(tokenizer, TINY).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_saved_loads_again_as_it_was(tokenizer, tmp_path):
    built = embedded_model.build_tokenizer()
    made = embedded_model.build_model(built, seed=0)
    embedded_model.save(made, built, TINY, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert all(
        torch.equal(weight, loaded.state_dict()[name]) for name, weight in made.state_dict().items()
    )
    assert (tmp_path / "model" / "README.md").read_text().startswith("---\nlicense: apache-2.0")
