"""Templates for base models: plain text, one token to end a turn, and prompts that an answer continues."""

from __future__ import annotations

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from harness.errors import ConfigError
from harness.settings import Model
from harness.worker.models import load_model
from harness.worker.templates import (
    DATE,
    NEXT_TURN,
    TEMPLATES,
    apply_template,
    pin_date,
    require_template,
    template_text,
)
from harness.worker.toys import byte_tokenizer

NAMES = ("plain", "reasoning")
QUESTION = {"role": "user", "content": "3+5=?"}
ANSWER = {"role": "assistant", "content": "<think>3+5=8</think>\\boxed{8}"}
TURNS = [{"role": "system", "content": "Be short."}, QUESTION, ANSWER, QUESTION, ANSWER]


@pytest.fixture(params=NAMES)
def loaded(request):
    loaded = load_model(Model(source="embedded:micro-llama"))
    apply_template(loaded.tokenizer, request.param)
    return loaded


def test_the_files_are_those_that_a_matrix_may_name():
    assert sorted(path.stem for path in TEMPLATES.glob("*.jinja")) == list(NAMES)


def test_the_text_is_what_a_person_would_write(loaded):
    text = loaded.tokenizer.apply_chat_template(
        TURNS[:2], tokenize=False, add_generation_prompt=True
    )
    if "User:" in text:
        assert text.startswith("A conversation between User and Assistant.")
        assert text.endswith("Be short.\n\nUser: 3+5=?\nAssistant: <think>")
        assert "\\boxed{}" in text
    else:
        assert text == "Be short.\n\nQuestion: 3+5=?\nAnswer:"


def test_the_only_special_token_ends_an_answer(loaded):
    tokenizer = loaded.tokenizer
    text = tokenizer.apply_chat_template(TURNS, tokenize=False)
    special = set(tokenizer.all_special_tokens) - {tokenizer.eos_token}
    assert text.count(tokenizer.eos_token) == 2
    assert not any(token in text for token in special)
    assert f"\\boxed{{8}}{tokenizer.eos_token}" in text


def test_a_prompt_is_the_beginning_of_its_conversation_in_text_and_in_tokens(loaded):
    tokenizer = loaded.tokenizer
    for is_tokens in (False, True):
        arguments = {"tokenize": is_tokens, "return_dict": False}
        prompt = tokenizer.apply_chat_template(TURNS[:-1], add_generation_prompt=True, **arguments)
        whole = tokenizer.apply_chat_template(TURNS, **arguments)
        assert whole[: len(prompt)] == prompt


def test_a_beginning_of_sequence_token_stands_first_where_there_is_one(loaded):
    tokenizer = loaded.tokenizer
    tokenizer.bos_token = "<s>"
    assert tokenizer.apply_chat_template([QUESTION], tokenize=False).startswith("<s>")


@pytest.mark.parametrize("is_assistant_only", [False, True])
def test_trl_trains_on_the_answer_and_its_end_alone(loaded, is_assistant_only, tmp_path):
    """The labels that TRL itself makes of a row, for both ways of saying what is learnt."""
    row = {"messages": [QUESTION, ANSWER]} if is_assistant_only else {
        "prompt": [QUESTION], "completion": [ANSWER],
    }  # fmt: skip
    config = SFTConfig(
        output_dir=str(tmp_path), assistant_only_loss=is_assistant_only, bf16=False, use_cpu=True,
        report_to="none", max_length=None,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=loaded.model,
        args=config,
        train_dataset=Dataset.from_list([row]),
        processing_class=loaded.tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    learnt = loaded.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
    assert learnt.strip().endswith(loaded.tokenizer.eos_token)
    assert "3+5=8</think>\\boxed{8}" in learnt
    assert "3+5=?" not in learnt


def test_a_tokenizer_without_a_template_is_refused_with_what_to_do():
    tokenizer = load_model(Model(source="embedded:micro-llama")).tokenizer
    require_template(tokenizer, "x/base")
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"'x/base' has no chat template.*'plain' or 'reasoning'"):
        require_template(tokenizer, "x/base")


def test_an_unknown_name_and_a_tokenizer_that_cannot_end_a_turn_are_refused():
    tokenizer = load_model(Model(source="embedded:micro-llama")).tokenizer
    with pytest.raises(ConfigError, match=r"did you mean 'plain'"):
        template_text("plane")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="end-of-sequence"):
        apply_template(tokenizer, "plain")


def test_a_template_that_writes_todays_date_is_given_a_fixed_one():
    tokenizer = byte_tokenizer(has_template=True)
    assert pin_date(tokenizer) == []
    tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}"
    (note,) = pin_date(tokenizer)
    assert DATE in note
    asked = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False) == f"Today: {DATE}"
    assert pin_date(tokenizer) == []


@pytest.mark.parametrize("name", sorted(NEXT_TURN))
def test_the_text_that_begins_the_next_turn_is_the_templates_own(name):
    tokenizer = byte_tokenizer(has_template=False)
    apply_template(tokenizer, name)
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text.count(NEXT_TURN[name] + " three") == 1
