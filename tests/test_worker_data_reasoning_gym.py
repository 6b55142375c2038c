"""gsm_symbolic and chain_sum: distinct rows, stable splits, the columns that TRL takes."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import ConfigError
from harness.worker.data import Request, Splits, chain_sum, gsm_symbolic

SIZES = {"train_rows": 30, "validation_rows": 8, "test_rows": 12}


def ask(task: str, seed: int = 0, **changes: Any) -> Request:
    options = changes.pop("options", {})
    return Request(task=task, seed=seed, options=options, **(SIZES | changes))


def gsm(seed: int = 0, **changes: Any) -> Splits:
    return gsm_symbolic.load(ask("sft", seed, **changes))


def sums(seed: int = 0, **changes: Any) -> Splits:
    return chain_sum.load(ask("grpo", seed, **changes))


LOADERS = pytest.mark.parametrize("load", [gsm, sums])


def questions(rows: Any) -> list[str]:
    return [row["prompt"][-1]["content"] for row in rows]


@LOADERS
@pytest.mark.parametrize("seed", [0, 1, 77])
def test_splits_have_the_asked_sizes_and_share_no_question(load: Any, seed: int) -> None:
    splits = load(seed)
    parts = [questions(part) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [30, 8, 12]
    assert len({question for part in parts for question in part}) == 50


@LOADERS
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(load: Any) -> None:
    assert load(3).train.to_list() == load(3).train.to_list()
    assert questions(load(3).train) != questions(load(4).train)


def test_neighbouring_seeds_are_not_shifted_copies() -> None:
    assert not set(questions(gsm(0).train)) & set(questions(gsm(1).train))


@LOADERS
def test_more_training_rows_leave_the_held_out_rows_alone(load: Any) -> None:
    small, large = load(5), load(5, train_rows=60)
    assert small.test.to_list() == large.test.to_list()
    assert small.validation.to_list() == large.validation.to_list()
    assert small.train.to_list() == large.train.to_list()[:30]


@LOADERS
def test_no_validation_rows_is_an_empty_split(load: Any) -> None:
    assert len(load(0, validation_rows=0).validation) == 0


def test_the_samples_are_rows_as_reasoning_gym_makes_them() -> None:
    import reasoning_gym

    drawn = reasoning_gym.create_dataset("gsm_symbolic", seed=1, size=5)[4]
    assert drawn["question"] == gsm_symbolic.SAMPLE["question"]
    assert drawn["metadata"]["answer_cot"] == gsm_symbolic.SAMPLE["metadata"]["answer_cot"]
    assert chain_sum.GENERATOR.keys() >= {"min_terms", "max_digits"}
    drawn = reasoning_gym.create_dataset("chain_sum", seed=1, size=2, **chain_sum.GENERATOR)[1]
    assert drawn == chain_sum.SAMPLE


class TestGsmSymbolic:
    def test_a_target_ends_in_the_answer(self) -> None:
        for row in gsm(2).train:
            (turn,) = row["completion"]
            assert turn["role"] == "assistant"
            last = turn["content"].splitlines()[-1]
            assert last.startswith("#### ")
            float(last.removeprefix("#### "))

    def test_the_answers_own_spelling_ends_the_target(self) -> None:
        raw = {"answer": "36", "metadata": {"answer_cot": "6 * 6 = 36 oz\n#### 36.0"}}
        assert gsm_symbolic.worked_solution(raw) == "6 * 6 = 36 oz\n#### 36"

    @pytest.mark.parametrize("reasoning", ["6 * 6 = 36\n#### 35", "no end", "…\n#### many"])
    def test_a_solution_with_another_end_is_unusable(self, reasoning: str) -> None:
        raw = {"answer": "36", "metadata": {"answer_cot": reasoning}}
        assert gsm_symbolic.worked_solution(raw) is None

    def test_max_characters_bounds_question_plus_target(self) -> None:
        for row in gsm(0, options={"max_characters": 400}).train:
            length = len(row["prompt"][-1]["content"]) + len(row["completion"][0]["content"])
            assert length <= 400

    def test_the_system_turn_is_the_models_own_unless_given(self) -> None:
        assert [turn["role"] for turn in gsm().train[0]["prompt"]] == ["user"]
        given = gsm(options={"system": "Be brief."}).train[0]["prompt"]
        assert given[0] == {"role": "system", "content": "Be brief."}

    def test_a_limit_that_no_row_meets_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigError, match="0 different usable questions, expected 50"):
            gsm(options={"max_characters": 10})


class TestChainSum:
    def test_the_solution_is_the_value_of_the_expression(self) -> None:
        for row in sums(1, options={"max_terms": 4, "max_digits": 2}).train:
            assert chain_sum.value_of(row["prompt"][-1]["content"]) == int(row["solution"])

    def test_shots_open_every_prompt_and_are_in_no_split(self) -> None:
        splits = sums(0, train_rows=150, options={"shots": ["1 + 1", "4 - 3"]})
        for part in (splits.train, splits.validation, splits.test):
            assert not {"1 + 1", "4 - 3"} & set(questions(part))
        assert splits.train[0]["prompt"][1:5] == [
            {"role": "user", "content": "1 + 1"},
            {"role": "assistant", "content": "<think>1 + 1 = 2</think>\\boxed{2}"},
            {"role": "user", "content": "4 - 3"},
            {"role": "assistant", "content": "<think>4 - 3 = 1</think>\\boxed{1}"},
        ]

    def test_a_shown_turn_would_earn_the_reward(self) -> None:
        from trl.rewards import reasoning_accuracy_reward

        worked = [chain_sum.opening_turns("", (shot,))[-1] for shot in ("9 - 2", "2 - 9")]
        gold = ["7", "-7"]
        assert reasoning_accuracy_reward([[turn] for turn in worked], gold) == [1.0, 1.0]
        assert reasoning_accuracy_reward([[turn] for turn in worked], gold[::-1]) == [0.0, 0.0]

    @pytest.mark.parametrize("shot", ["", "3+5", "__import__('os')", "2 * 3", "3 +"])
    def test_a_shot_that_is_no_chain_is_refused(self, shot: str) -> None:
        with pytest.raises(ConfigError, match="no chain"):
            sums(options={"shots": [shot]})

    def test_too_many_rows_for_a_small_task_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigError, match=r"198 different usable questions, expected 320"):
            sums(train_rows=300)

    def test_impossible_parameters_are_a_configuration_error(self) -> None:
        with pytest.raises(ConfigError, match="refuses its options"):
            sums(options={"min_terms": 5})


@LOADERS
def test_an_unknown_option_is_refused_with_a_suggestion(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'system'"):
        load(options={"sistem": "x"})


def test_a_dataset_refuses_a_task_it_does_not_serve() -> None:
    with pytest.raises(ConfigError, match="serves sft, not grpo"):
        gsm_symbolic.load(ask("grpo"))
    with pytest.raises(ConfigError, match="serves grpo, not sft"):
        chain_sum.load(ask("sft"))
