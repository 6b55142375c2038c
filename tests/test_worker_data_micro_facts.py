"""Random facts: distinct keys, digits of the asked length, trained and judged on the same rows."""

import pytest

from harness.errors import ConfigError
from harness.worker.data import Request
from harness.worker.data.micro_facts import SAMPLE, load


def request_for(rows=40, *, task="sft", validation=40, test=40, seed=0, options=None):
    return Request(task, rows, validation, test, seed, options or {})


def facts(rows):
    return {row["prompt"][0]["content"]: row["completion"][0]["content"] for row in rows}


def test_held_out_rows_are_the_first_trained_ones_and_a_note_says_so():
    splits = load(request_for(validation=40, test=10))
    assert splits.validation.to_list() == splits.train.to_list()
    assert splits.test.to_list() == splits.train.to_list()[:10]
    (note,) = splits.notes
    assert "trained rows" in note


def test_no_validation_rows_is_an_empty_split():
    splits = load(request_for(validation=0))
    assert len(splits.validation) == 0
    assert splits.validation.column_names == splits.train.column_names


def test_the_dataset_seed_alone_decides_the_rows():
    assert load(request_for()).train.to_list() == load(request_for()).train.to_list()
    assert facts(load(request_for()).train) != facts(load(request_for(seed=1)).train)


@pytest.mark.parametrize(("key", "value"), [(1, 1), (2, 6), (12, 12)])
def test_keys_are_distinct_and_both_have_the_digits_asked_for(key, value):
    rows = load(request_for(10, validation=0, test=1, options=widths(key, value))).train
    assert len(facts(rows)) == 10
    for question, answer in facts(rows).items():
        assert len(question) == key
        assert len(answer) == value
        assert (question + answer).isdigit()


def widths(key, value):
    return {"key_digits": key, "value_digits": value}


def test_every_key_can_be_asked_for():
    rows = load(request_for(100, options=widths(2, 1))).train
    assert set(facts(rows)) == {f"{key:02}" for key in range(100)}


def test_the_sample_is_a_row():
    assert SAMPLE in load(request_for(1000)).train.to_list()


def test_the_embedded_model_reads_every_character():
    from harness.settings import Model
    from harness.worker.models import load_model

    tokenizer = load_model(Model(source="embedded:micro-llama")).tokenizer
    row = load(request_for()).train[0]
    text = row["prompt"][0]["content"] + row["completion"][0]["content"]
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (request_for(task="grpo"), "serves sft, not grpo"),
        (request_for(options={"digits": 2}), "has no option 'digits'"),
        (request_for(options={"key_digits": "3"}), "'key_digits' is '3'; expected int"),
        (request_for(options={"value_digits": 0}), "'value_digits' is 0; expected 1 to 12"),
        (request_for(10_000), "has 1000 keys of 3 digits, but train_rows asks for 10000"),
        (request_for(test=50), "found 50 held-out rows of 40 trained"),
        (request_for(None), "train_rows: null; expected a number"),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_to_do(request_, expected):
    with pytest.raises(ConfigError, match=expected):
        load(request_)


def test_every_problem_is_listed_at_once():
    with pytest.raises(ConfigError) as raised:
        load(request_for(5, options=widths(0, 13)))
    assert len(raised.value.problems) == 3
