from __future__ import annotations

import pytest

from harness.errors import ConfigError
from harness.matrix import expand, origin, parse_matrix, with_overrides
from harness.objective import contradictions, objective_arguments, settings

BLOG = {"gradient_accumulation_steps": 4, "max_steps": 3}


def blog_matrix(text: str, grpo: str = "") -> str:
    text = text.replace("reward: reasoning_accuracy", "reward: accuracy\n    objective: blog")
    return text.replace("num_generations: 4,", f"num_generations: 4, {grpo}")


def test_trl_keeps_its_own_objective():
    assert objective_arguments("trl", BLOG) == {}
    assert list(contradictions("trl", {"beta": 0.1}, "m")) == []


def test_the_blogs_objective_in_trls_arguments():
    assert objective_arguments("blog", BLOG) == {
        "beta": 0.0,
        "scale_rewards": "none",
        "loss_type": "dr_grpo",
        "importance_sampling_level": "token",
        "num_iterations": 1,
        "steps_per_generation": 4,
        "lr_scheduler_type": "constant",
        "temperature": 1.0,
        "top_p": 1.0,
    }
    assert objective_arguments("blog", {})["steps_per_generation"] == 1
    assert all(setting.reason for setting in settings("blog", BLOG).values())


def test_with_vllm_the_ratio_of_learner_and_sampler_is_kept_token_by_token():
    added = (
        objective_arguments("blog", {"use_vllm": True}).items()
        - objective_arguments("blog", {"use_vllm": False}).items()
    )
    assert dict(added) == {
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
    }


def test_an_equal_argument_contradicts_nothing():
    assert list(contradictions("blog", {"beta": 0, "temperature": 1.0}, "m")) == []


def test_every_argument_of_an_objective_is_known_to_the_installed_trl():
    from harness.arguments import known_arguments

    known = known_arguments("grpo")
    assert set(objective_arguments("blog", {"use_vllm": True})) <= set(known)


def test_an_objective_reaches_the_runs_and_says_so(matrix_text):
    matrix = parse_matrix(blog_matrix(matrix_text, "gradient_accumulation_steps: 2,"), "m")
    specs = {s.task: s for s in expand(matrix)}
    assert "beta" not in specs["sft"].trainer
    grpo = specs["grpo"]
    assert grpo.trainer["loss_type"] == "dr_grpo"
    assert grpo.trainer["steps_per_generation"] == 2
    assert grpo.trainer["num_generations"] == 4
    assert origin(matrix, grpo, "loss_type", {}) == "objective blog"
    assert origin(matrix, grpo, "num_generations", {}) == "trainer.grpo"


def test_without_an_objective_a_runs_id_is_what_it_was(matrix_text):
    plain = [s.run_id for s in expand(parse_matrix(matrix_text, "m"))]
    said = matrix_text.replace("reward: reasoning", "objective: trl\n    reward: reasoning")
    assert [s.run_id for s in expand(parse_matrix(said, "m"))] == plain


@pytest.mark.parametrize(
    ("grpo", "expected"),
    [
        ("beta: 0.04,", "beta is 0.04, but objective 'blog' expects 0.0 (no KL penalty)"),
        ("scale_rewards: group,", "scale_rewards is 'group', but objective 'blog' expects 'none'"),
        ("gradient_accumulation_steps: 2, steps_per_generation: 4,", "expects 2"),
        ("generation_batch_size: 8,", "TRL takes one of them"),
    ],
)
def test_an_argument_that_contradicts_an_objective_is_refused(matrix_text, grpo, expected):
    with pytest.raises(ConfigError) as caught:
        parse_matrix(blog_matrix(matrix_text, grpo), "m.yaml")
    found = caught.value.problems
    assert len(found) == 2  # one an arm
    assert all(expected in problem for problem in found), found


def test_an_override_that_contradicts_an_objective_is_refused(matrix_text):
    matrix = parse_matrix(blog_matrix(matrix_text), "m")
    with pytest.raises(ConfigError, match=r"temperature is 0\.7, but objective 'blog'"):
        with_overrides(matrix, {"temperature": 0.7})
    with_overrides(matrix, {"max_steps": 7})


def test_supervised_fine_tuning_has_no_objective(matrix_text):
    text = matrix_text.replace("task: sft", "task: sft\n    objective: blog")
    with pytest.raises(ConfigError, match="an sft pair has none"):
        parse_matrix(text, "m.yaml")
