"""What a reward could not judge: counted exactly, once a completion, and journalled by step."""

from __future__ import annotations

import gc
import json
import warnings

import pytest

from harness.launch import Launch
from harness.matrix import expand, parse_matrix
from harness.record import UNCLOSED_SHARE, UNPARSEABLE_SHARE, UNSCORED_SHARE
from harness.worker.progress import Progress
from harness.worker.reward_counts import CountedReward, Counts
from harness.worker.rewards import reward_function
from tests.conftest import MATRIX

BOXED = r"The answer is \boxed{72}."
COMPLETIONS = (BOXED, f"<think>so</think>{BOXED}", "<think>so</think> I don't know", "72", BOXED)
SOLUTIONS = ["72", "71", "72", "72", r"\text{}"]
# name → (scores, unparseable of the judged, judged)
EXPECTED = {
    "accuracy": ([1.0, 0.0, 0.0, 0.0, None], 2, 4),
    "reasoning_accuracy": ([0.0, 0.0, 0.0, 0.0, 0.0], 4, 5),
    "strip_reasoning_accuracy": ([1.0, 0.0, 0.0, 0.0, None], 2, 4),
}


def messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize("name", EXPECTED)
def test_counting_leaves_the_scores_and_the_name_as_they_are(name):
    counted = CountedReward(reward_function(name))
    scores, unparseable, judged = EXPECTED[name]
    assert counted(completions=messages(COMPLETIONS), solution=SOLUTIONS, prompts=None) == scores
    assert counted.__name__ == f"{name}_reward"
    expected = Counts(5, judged, unparseable, 3, sum(score is None for score in scores))
    assert counted.take() == expected
    assert counted.take() == Counts()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_release_that_does_not_say_what_it_parsed_is_counted_alike(name):
    reward = reward_function(name)

    def silent(completions, solution, **_):
        return reward(completions=completions, solution=solution)

    silent.__name__ = reward.__name__
    counted = CountedReward(silent)
    counted(completions=messages(COMPLETIONS), solution=SOLUTIONS)
    counts = counted.take()
    assert (counts.unparseable, counts.judged) == EXPECTED[name][1:]


def test_the_trainers_own_log_of_completions_still_gets_its_columns():
    seen = {}
    counted = CountedReward(reward_function("strip_reasoning_accuracy"))
    counted(completions=[BOXED, ""], solution=["72", "72"], log_extra=seen.__setitem__)
    assert seen == {"solution": ["72", "72"], "answer_parsed": ["72", "[unparseable]"]}


def test_nothing_counted_is_null_and_not_zero():
    assert set(Counts().shares().values()) == {None}
    assert Counts(4, 0, 0, 1, 4).shares() == {
        UNPARSEABLE_SHARE: None,
        UNCLOSED_SHARE: 0.25,
        UNSCORED_SHARE: 1.0,
    }


@pytest.fixture
def closed_journals():
    """A worker's process closes its journals by ending; here they are let go."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("closed_journals")
def test_a_run_journals_its_counts_where_it_sampled(tmp_path):
    """For real: each generation is trained on twice, so every other step has none of its own."""
    from harness.worker.grpo import train_grpo

    changed = {"num_iterations": 2, "max_steps": 4, "max_completion_length": 8}
    specs = expand(parse_matrix(MATRIX, "m"), changed)
    spec = next(s for s in specs if s.task == "grpo" and s.method == "lora")
    spec = spec.model_copy(
        update={
            "reward": "strip_reasoning_accuracy",
            "model": spec.model.model_copy(update={"dtype": "bfloat16"}),
        }
    )
    result = train_grpo(spec, Launch(), tmp_path, Progress())
    steps = [
        json.loads(line)["logs"]
        for line in (tmp_path / "steps.jsonl").read_text().split("\n")
        if line
    ]
    assert len(steps) == 4
    for sampled, reused in zip(steps[::2], steps[1::2], strict=True):
        for name in (UNPARSEABLE_SHARE, UNCLOSED_SHARE, UNSCORED_SHARE):
            assert 0 <= sampled[name] <= 1
            assert name in reused
            assert reused[name] is None
        assert "completions/clipped_ratio" in sampled
        assert "completions/clipped_ratio" not in reused
    held_out = [p for p in result.evaluations if p.split == "test"]
    assert [p.completions for p in held_out] == [8, 8]
    assert all(0 <= p.unparseable <= 8 and 0 <= p.unclosed <= 8 for p in held_out)
    config = json.loads((tmp_path / "resolved_config.json").read_bytes())
    assert config["dtypes"] == config["trainable_dtypes"] == ["torch.bfloat16"]
