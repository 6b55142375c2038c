"""The embedded datasets: disjoint, repeatable, in the columns that TRL and the rewards take."""

import re
from importlib import import_module

import pytest

from harness.errors import ConfigError
from harness.settings import DatasetSpec
from harness.worker.data import Request
from harness.worker.embedded_model import build_tokenizer
from harness.workload import own_rows

MODULES = ("micro_arithmetic", "micro_steps")


def dataset(module):
    return import_module(f"harness.worker.data.{module}")


def request_for(task, *, train=500, validation=144, test=256, seed=0, options=None):
    return Request(task, train, validation, test, seed, options or {})


def questions(rows):
    return [prompt[-1]["content"] for prompt in rows["prompt"]]


def tokens(messages, *, is_prompt=False):
    encoded = build_tokenizer().apply_chat_template(messages, add_generation_prompt=is_prompt)
    return len(encoded["input_ids"])


@pytest.mark.parametrize("module", [*MODULES, "micro_facts"])
def test_the_longest_row_has_the_tokens_that_a_forecast_reckons_with(module):
    rows = dataset(module).load(request_for("sft", train=600)).train
    name = module.replace("_", "-")
    known = own_rows(DatasetSpec(name=name, train_rows=600, validation_rows=0, test_rows=1, seed=0))
    assert max(tokens(row["prompt"], is_prompt=True) for row in rows) == known.prompt
    assert max(tokens([*row["prompt"], *row["completion"]]) for row in rows) == known.row


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("task", ["sft", "grpo"])
def test_splits_have_the_sizes_asked_for_and_share_no_prompt(module, task):
    splits = dataset(module).load(request_for(task))
    parts = [questions(part) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [500, 144, 256]
    assert len(set().union(*parts)) == 900


@pytest.mark.parametrize("module", MODULES)
def test_the_dataset_seed_alone_decides_the_rows(module):
    load = dataset(module).load
    again = load(request_for("sft"))
    other = load(request_for("sft", seed=1))
    assert load(request_for("sft")).test.to_list() == again.test.to_list()
    assert questions(again.test) != questions(other.test)


@pytest.mark.parametrize("module", MODULES)
def test_held_out_rows_stay_when_more_rows_are_trained_on(module):
    load = dataset(module).load
    few, many = load(request_for("sft", train=100)), load(request_for("sft", train=600))
    assert few.test.to_list() == many.test.to_list()
    assert few.validation.to_list() == many.validation.to_list()


@pytest.mark.parametrize("module", MODULES)
def test_columns_are_those_of_the_task(module):
    load = dataset(module).load
    assert set(load(request_for("sft")).train.column_names) == {"prompt", "completion", "solution"}
    grpo = load(request_for("grpo", validation=0))
    assert set(grpo.train.column_names) == {"prompt", "solution"}
    assert grpo.validation.column_names == grpo.train.column_names


@pytest.mark.parametrize("module", MODULES)
def test_the_sample_is_a_row(module):
    shown = dataset(module)
    rows = shown.load(request_for("sft", train=1000, validation=0, test=0)).train
    assert shown.SAMPLE in rows.to_list()


@pytest.mark.parametrize("module", MODULES)
def test_every_step_and_answer_is_right(module):
    for problem in dataset(module).problems():
        digits = [int(digit) for digit in re.findall(r"\d", problem.question)]
        assert problem.answer == sum(digits)
        for step in problem.working.split(";"):
            left, right, result = (int(number) for number in re.findall(r"\d+", step))
            assert left + right == result
        assert problem.completion.endswith(f"</think>{problem.solution}")


@pytest.mark.parametrize("module", MODULES)
def test_trl_rewards_a_rows_own_completion_and_no_other(module):
    from trl.rewards import reasoning_accuracy_reward

    rows = dataset(module).load(request_for("sft", train=8, validation=0, test=1)).train
    solutions = list(rows["solution"])
    assert reasoning_accuracy_reward(list(rows["completion"]), solutions) == [1.0] * 8
    wrong = [[{"role": "assistant", "content": "<think></think>\\boxed{99}"}]] * 8
    assert reasoning_accuracy_reward(wrong, solutions) == [0.0] * 8


@pytest.mark.parametrize("module", MODULES)
def test_an_impossible_request_lists_every_problem(module):
    with pytest.raises(ConfigError) as raised:
        dataset(module).load(request_for("dpo", train=5000, options={"digits": 2}))
    assert len(raised.value.problems) == 3
