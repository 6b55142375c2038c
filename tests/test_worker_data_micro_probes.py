"""Rows of probes: uneven, in several forms, some too long, and the same for the same seed."""

import pytest

from harness.errors import ConfigError
from harness.worker.data import Request
from harness.worker.data.micro_probes import FORMS, SAMPLE, load


def request_for(rows=24, *, task="sft", test=4, seed=0, **options):
    return Request(task, rows, 0, test, seed, options)


def text_of(row):
    parts = [row.get("text", "")]
    for value in (row.get("prompt"), row.get("completion"), row.get("messages")):
        parts += [value] if isinstance(value, str) else [t["content"] for t in value or ()]
    return "".join(parts)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_every_form_are_uneven_and_the_seed_s(form):
    rows = load(request_for(form=form)).train.to_list()
    lengths = [len(text_of(row)) for row in rows]
    assert max(lengths) > 2 * min(lengths)
    assert rows == load(request_for(form=form)).train.to_list()
    assert rows != load(request_for(form=form, seed=1)).train.to_list()


def test_conversations_have_several_turns_and_now_and_then_a_system_turn():
    rows = load(request_for(form="conversation")).train.to_list()
    roles = [[turn["role"] for turn in row["messages"]] for row in rows]
    assert {sum(role == "assistant" for role in each) for each in roles} == {1, 2, 3}
    assert 0 < sum(each[0] == "system" for each in roles) < len(roles)
    assert all(each[-1] == "assistant" for each in roles)


def test_the_asked_number_of_trained_rows_is_longer_than_any_limit_of_a_probe():
    splits = load(request_for(over_long=3))
    lengths = sorted(len(text_of(row)) for row in splits.train.to_list())
    assert lengths[-3] > 256 > lengths[-4]
    assert max(len(text_of(row)) for row in splits.test.to_list()) < 128


def test_held_out_rows_stay_when_more_are_trained_on():
    few, many = load(request_for(4)), load(request_for(40))
    assert few.test.to_list() == many.test.to_list()
    assert len(few.validation) == 0


def test_a_grpo_row_is_a_prompt_with_its_answer():
    row = load(request_for(task="grpo")).train.to_list()[0]
    assert row.keys() == {"prompt", "solution"}
    digits = [int(d) for d in row["prompt"][0]["content"].removesuffix("=?").split("+")]
    assert row["solution"] == f"\\boxed{{{sum(digits)}}}"


def test_the_sample_has_the_form_of_a_row():
    rows = load(request_for(400)).train.to_list()
    assert SAMPLE.keys() == rows[0].keys()
    assert all(row["prompt"][0]["role"] == "user" for row in rows)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (request_for(form="chats"), "did you mean 'chat'"),
        (request_for(form="text", task="grpo"), "grpo takes the form 'chat'"),
        (request_for(over_long=25), "expected 0 to train_rows, which is 24"),
        (request_for(long=1), "has no option 'long'"),
        (request_for(over_long="3"), "expected int"),
        (request_for(None), "train_rows: null"),
    ],
)
def test_what_the_rows_can_t_be_is_refused(request_, said):
    with pytest.raises(ConfigError, match=said):
        load(request_)
