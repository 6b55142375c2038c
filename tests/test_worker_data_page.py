"""The datasets of the page: their columns become TRL's, and no row trains that is judged on."""

from __future__ import annotations

import json
import re

import pytest
from trl.rewards import accuracy_reward, reasoning_accuracy_reward

from harness.errors import ConfigError, MachineError
from harness.settings import DATASETS, DatasetSpec, Model
from harness.worker.data import FIXTURES, Request, load_splits
from harness.worker.data.answers import INSTRUCTION
from harness.worker.models import load_model
from tests.repository_folder import NAMES, TASKS, fixture_rows, module_of, repository


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def fixture_splits(name, train=None, validation=4, test=6, **more):
    spec = DatasetSpec(
        name=name,
        rows_from="fixture",
        train_rows=train,
        validation_rows=validation,
        test_rows=test,
        **more,
    )
    return load_splits(TASKS[name], spec)


def splits_of(name, folder, train=None, validation=0, test=1, **more):
    request = Request(
        TASKS[name], train, validation, test, more.pop("seed", 0), more.pop("options", {}), folder
    )
    return module_of(name).load(request.__class__(**{**request.__dict__, **more}))


def prompts(rows):
    return [json.dumps(prompt) for prompt in rows["prompt"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_gives_disjoint_splits_and_uses_every_row(name):
    splits = fixture_splits(name)
    parts = [prompts(part) for part in (splits.train, splits.validation, splits.test)]
    assert splits.unusable == ()
    assert [len(part) for part in parts[1:]] == [4, 6]
    assert len(set().union(*parts)) == sum(map(len, parts))
    used = len(fixture_rows(name)) - 4 - (0 if name == "openai/gsm8k" else 6)
    assert len(parts[0]) == used


@pytest.mark.parametrize("name", NAMES)
def test_the_dataset_seed_alone_decides_and_held_out_rows_stay(name):
    few, many = fixture_splits(name, train=3), fixture_splits(name)
    assert few.test.to_list() == many.test.to_list()
    assert few.validation.to_list() == many.validation.to_list()
    assert few.train.to_list() == many.train.to_list()[:3]
    assert prompts(fixture_splits(name, seed=1).test) != prompts(few.test)


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_those_of_the_task_even_without_a_row(name):
    splits = fixture_splits(name, validation=0)
    expected = ["prompt", "completion"] if TASKS[name] == "sft" else ["prompt", "solution"]
    for part in (splits.train, splits.validation, splits.test):
        assert part.column_names == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_fixture_has_every_column_of_the_sample_and_the_sample_can_be_used(name, tmp_path):
    sample = module_of(name).SAMPLE
    rows = fixture_rows(name)
    assert all(row.keys() == sample.keys() for row in rows)
    is_gsm8k = name == "openai/gsm8k"
    folder = repository(tmp_path / "r", [sample, rows[1]], [rows[2]] if is_gsm8k else None)
    splits = splits_of(name, folder, seed=1)
    assert splits.unusable == ()
    assert len(splits.train) == (2 if is_gsm8k else 1)


@pytest.mark.parametrize("name", [n for n in NAMES if TASKS[n] == "grpo"])
def test_both_rewards_score_the_right_answer_and_no_other(name):
    splits = fixture_splits(name, validation=0, test=1)
    solutions = [*splits.train["solution"], *splits.test["solution"]]
    golds = [re.findall(r"\\boxed\{(.*)\}", solution)[-1] for solution in solutions]
    right = [[{"content": f"<think>hm</think>So it is $\\boxed{{{gold}}}$."}] for gold in golds]
    wrong = [[{"content": "<think>hm</think>So it is $\\boxed{12345}$."}]] * len(golds)
    assert reasoning_accuracy_reward(right, solutions) == [1.0] * len(golds)
    assert accuracy_reward(right, solutions) == [1.0] * len(golds)
    assert reasoning_accuracy_reward(wrong, solutions) == [0.0] * len(golds)


def test_every_calculation_of_the_gsm8k_fixture_is_right():
    rows = fixture_rows("openai/gsm8k") + fixture_rows("openai/gsm8k", "test")
    sums = [found for row in rows for found in re.findall(r"<<([\d+*/-]+)=(\d+)>>", row["answer"])]
    assert len(sums) > len(rows)
    for calculation, result in sums:
        assert eval(calculation) == int(result)  # digits and + - * / alone
    for row in rows:
        last = re.findall(r"=(\d+)>>", row["answer"])[-1]
        assert row["answer"].endswith(f"#### {int(last):,}") or row["answer"].endswith(last)


def test_gsm8k_strips_commas_and_boxes_the_number(tmp_path):
    name = "openai/gsm8k"
    rows = [{"question": f"q{i}", "answer": a} for i, a in enumerate(("a\n#### 1,234", "#### -5"))]
    folder = repository(tmp_path / "r", rows, [{"question": "t", "answer": "x\n#### $72"}])
    splits = splits_of(name, folder)
    assert sorted(splits.train["solution"]) == ["\\boxed{-5}", "\\boxed{1234}"]
    assert splits.test["solution"][0] == "\\boxed{72}"


def test_tulu_trains_on_the_last_answer_and_is_given_everything_before_it():
    turns = [
        {"role": "user", "content": "Name three rivers of France."},
        {"role": "assistant", "content": "The Loire, the Seine and the Rhône."},
        {"role": "user", "content": "Which of them is the longest?"},
    ]
    splits = fixture_splits("allenai/tulu-3-sft-mixture", test=1, validation=0)
    rows = [*splits.train.to_list(), *splits.test.to_list()]
    (row,) = [r for r in rows if r["prompt"][0]["content"] == turns[0]["content"]]
    assert row["prompt"] == turns
    assert row["completion"][0]["content"].startswith("The Loire, with")


def test_openthoughts_prepends_system_unless_told_not_to():
    name = "open-thoughts/OpenThoughts-114k"
    row = fixture_splits(name).train[0]
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["prompt"][0]["content"] == fixture_rows(name)[0]["system"]
    assert row["completion"][0]["role"] == "assistant"
    bare = fixture_splits(name, options={"prepend_system": False}).train[0]
    assert bare["prompt"] == row["prompt"][1:]


def test_the_instruction_follows_the_question_and_is_noted():
    splits = fixture_splits("zwhe99/DeepMath-103K")
    assert all(p[0]["content"].endswith(f"\n\n{INSTRUCTION}") for p in splits.train["prompt"])
    assert splits.notes == (f"Each question is followed by: {INSTRUCTION}",)
    bare = fixture_splits("zwhe99/DeepMath-103K", options={"instruction": None})
    assert bare.notes == ()
    asked = {row["question"] for row in fixture_rows("zwhe99/DeepMath-103K")}
    assert {p[0]["content"] for p in bare.train["prompt"]} <= asked
    assert fixture_splits("HuggingFaceH4/OpenR1-Math-220k-default-verified").notes == ()


def test_a_prompt_that_is_repeated_never_stands_in_train_and_test(tmp_path):
    """Equal but for their spaces; whichever comes first in the shuffle is held out."""
    name = "zwhe99/DeepMath-103K"
    rows = [
        {"question": f"What is {i // 4} plus 1?" + " " * (i % 4), "final_answer": str(i // 4 + 1)}
        for i in range(40)
    ]
    folder = repository(tmp_path / "r", rows)
    splits = splits_of(name, folder, validation=2, test=3)
    parts = [
        {" ".join(p[0]["content"].split()) for p in part["prompt"]}
        for part in (splits.test, splits.validation, splits.train)
    ]
    assert [len(part) for part in parts] == [3, 2, 5]
    assert len(set().union(*parts)) == 10
    assert len(splits.train) == 20  # the others' copies all train
    assert len(splits.unusable) == 15
    assert all("stands in a held-out split already" in line for line in splits.unusable)


def test_only_as_many_rows_are_converted_as_are_asked_for(tmp_path):
    rows = [{"question": f"q{i}", "final_answer": ""} for i in range(300)]
    rows += [{"question": f"p{i}", "final_answer": "1"} for i in range(300)]
    folder = repository(tmp_path / "r", rows)
    few = splits_of("zwhe99/DeepMath-103K", folder, train=5)
    every = splits_of("zwhe99/DeepMath-103K", folder)
    assert 0 < len(few.unusable) < 60
    assert few.unusable == every.unusable[: len(few.unusable)]
    assert len(every.unusable) == 300
    assert len(every.train) == 299


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_cannot_be_used_are_listed_with_index_and_reason(name, tmp_path):
    good = fixture_rows(name)[:3]
    bad = BAD[name]
    for row in bad:
        row.update({k: v for k, v in good[0].items() if k not in row})
    is_gsm8k = name == "openai/gsm8k"
    folder = repository(
        tmp_path / "r", [*good, *bad], fixture_rows(name, "test") if is_gsm8k else None
    )
    splits = splits_of(name, folder)
    assert len(splits.unusable) == len(bad)
    listed = {int(re.match(r"train row (\d+): ", line)[1]) for line in splits.unusable}
    assert listed == set(range(3, 3 + len(bad)))
    assert len(splits.train) + (0 if is_gsm8k else len(splits.test)) == 3


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
BAD = {
    "allenai/tulu-3-sft-mixture": [
        {"messages": None},
        {"messages": []},
        {"messages": [USER]},
        {"messages": [ANSWER]},
        {"messages": [{"role": "system", "content": "s"}, ANSWER]},
        {"messages": [{"role": "narrator", "content": "q"}, ANSWER]},
        {"messages": [USER, {"role": "assistant", "content": " "}]},
        {"messages": [{"role": "user", "content": None}, ANSWER]},
    ],
    "open-thoughts/OpenThoughts-114k": [
        {"conversations": None},
        {"conversations": [{"from": "user", "value": "q"}]},
        {"conversations": [{"from": "robot", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "a"}]},
    ],
    "openai/gsm8k": [
        {"question": "", "answer": "#### 1"},
        {"question": "no mark?", "answer": "it is 5"},
        {"question": "no number?", "answer": "#### five"},
        {"question": "nothing?", "answer": None},
    ],
    "zwhe99/DeepMath-103K": [
        {"question": None},
        {"question": "blank?", "final_answer": "  "},
        {"question": "open?", "final_answer": "}{"},
        {"question": "long?", "final_answer": "1" * 5_000},
    ],
    "HuggingFaceH4/OpenR1-Math-220k-default-verified": [
        {"problem": "", "solution": "$\\boxed{1}$"},
        {"problem": "none?", "solution": None},
        {"problem": "words?", "solution": "It follows at once."},
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_too_few_rows_say_how_many_there_are(name):
    with pytest.raises(ConfigError, match=r"train \d+ of 5,000 in its \d+ rows"):
        fixture_splits(name, train=5_000)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_over_the_limit_are_left_out_and_when_all_are_it_is_said(name):
    tokenizer = load_model(Model(source="embedded:micro-llama")).tokenizer
    spec = DatasetSpec(name=name, rows_from="fixture", train_rows=None, test_rows=1)
    lengths = sorted(
        len(tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"])
        for p in load_splits(TASKS[name], spec, {}, None).train["prompt"]
    )
    limit = lengths[len(lengths) // 2]
    splits = load_splits(
        TASKS[name], spec.model_copy(update={"max_prompt_tokens": limit}), {}, tokenizer
    )
    kept = [
        len(tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"])
        for p in splits.train["prompt"]
    ]
    assert max(kept) <= limit
    assert splits.unusable
    assert all(f"tokens, more than the {limit:,} allowed" in line for line in splits.unusable)
    with pytest.raises(ConfigError, match="tokens, more than the 3 allowed"):
        load_splits(TASKS[name], spec.model_copy(update={"max_prompt_tokens": 3}), {}, tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_another_task_and_unknown_options_are_refused(name):
    other = "grpo" if TASKS[name] == "sft" else "sft"
    spec = DatasetSpec(name=name, rows_from="fixture", train_rows=1, test_rows=1)
    with pytest.raises(ConfigError, match=f"serves {TASKS[name]}, not {other}"):
        load_splits(other, spec)
    with pytest.raises(ConfigError, match="has no option 'instructoin'"):
        fixture_splits(name, options={"instructoin": "x"})


def test_an_option_of_the_wrong_type_is_refused():
    with pytest.raises(ConfigError, match="'prepend_system' is 'yes'; expected true or false"):
        fixture_splits("open-thoughts/OpenThoughts-114k", options={"prepend_system": "yes"})
    with pytest.raises(ConfigError, match="'instruction' is 3; expected text or null"):
        fixture_splits("openai/gsm8k", options={"instruction": 3})


@pytest.mark.parametrize("name", NAMES)
def test_without_a_folder_fetch_is_named(name):
    with pytest.raises(MachineError, match="harness fetch"):
        load_splits(TASKS[name], DatasetSpec(name=name, train_rows=1, test_rows=1))


@pytest.mark.parametrize(
    ("name", "task"),
    [("micro-arithmetic", "grpo"), ("micro-steps", "sft"), ("gsm_symbolic", "sft")],
)
def test_generated_rows_have_no_all_that_is_left(name, task):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(ConfigError, match="train_rows: null; expected a number"):
        load_splits(task, DatasetSpec(name=name, train_rows=None, test_rows=1))


def test_fixtures_are_there_for_the_page_and_small():
    assert {p.name for p in FIXTURES.iterdir()} == {DATASETS[name] for name in NAMES}
    assert all(24 <= len(fixture_rows(name)) <= 40 for name in NAMES)
    assert sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file()) < 200_000
