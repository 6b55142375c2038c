"""The rewards on completions whose score can be told by reading them."""

from __future__ import annotations

import sys
import threading
import time
import types

import pytest

from harness.errors import ConfigError
from harness.settings import REWARDS
from harness.worker.rewards import first_turn_only, reward_function, with_spread, without_reasoning

BOXED = r"The answer is \boxed{72}."
THOUGHT = "<think>6 times 12 is 72.</think>"
# (completion, gold answer, accuracy, reasoning_accuracy, strip_reasoning_accuracy)
TABLE = {
    "boxed, no tags": (BOXED, "72", 1.0, 0.0, 1.0),
    "boxed after a closed block": (THOUGHT + BOXED, "72", 1.0, 1.0, 1.0),
    "wrong after a closed block": (THOUGHT + r"\boxed{71}", "72", 0.0, 0.0, 0.0),
    "boxed inside the block alone": (
        r"<think>\boxed{72}</think> so it is.",
        "72",
        1.0,
        0.0,
        0.0,
    ),
    "unclosed block": (r"<think>I say \boxed{72}", "72", 1.0, 0.0, 1.0),
    "an end without a beginning": (r"6 · 12 </think> \boxed{72}", "72", 1.0, 1.0, 1.0),
    "nested blocks": (rf"<think>a<think>b</think>c</think>{BOXED}", "72", 1.0, 1.0, 1.0),
    "two blocks": (rf"{THOUGHT}\boxed{{71}} no, {THOUGHT}{BOXED}", "72", 0.0, 1.0, 0.0),
    "boxes within two blocks": (
        r"<think>\boxed{1}</think><think>\boxed{2}</think>" + BOXED,
        "72",
        1.0,
        1.0,
        1.0,
    ),
    "tags in the wrong order": (rf"</think>{BOXED}<think>", "72", 1.0, 1.0, 1.0),
    "dollars": ("The final answer is $72$.", "72", 1.0, 0.0, 1.0),
    "dollars that announce nothing": ("so it is $72$.", "72", 0.0, 0.0, 0.0),
    "no LaTeX": ("The final answer is 72", "72", 0.0, 0.0, 0.0),
    "nothing": ("", "72", 0.0, 0.0, 0.0),
    "a fraction": (r"\boxed{\frac{1}{2}}", "0.5", 1.0, 0.0, 1.0),
    "a fraction against LaTeX": (r"\boxed{0.5}", r"\frac{1}{2}", 1.0, 0.0, 1.0),
    "units": (r"\boxed{72 \text{ cm}}", "72", 1.0, 0.0, 1.0),
    "a comma in thousands": (r"\boxed{1{,}234}", "1234", 1.0, 0.0, 1.0),
    "a big integer": (rf"\boxed{{{10**40 + 1}}}", str(10**40 + 1), 1.0, 0.0, 1.0),
    "a big integer, off by one": (rf"\boxed{{{10**40}}}", str(10**40 + 1), 0.0, 0.0, 0.0),
    "gold that says nothing": (BOXED, r"\text{}", None, 0.0, None),
}
HOSTILE = (
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{(10^9)!}",
    r"\boxed{" + "(" * 500 + "1" + ")" * 500 + "}",
    r"\boxed{" * 2000,
    "<think>" * 20_000,
    "$" * 4000,
    "\\boxed{" + "9" * 6000 + "}",
    "\x00\ud800\u202e\\boxed{\\",
)


def scored(name, completion, gold):
    return reward_function(name)(
        completions=[[{"role": "assistant", "content": completion}]], solution=[gold]
    )


@pytest.mark.parametrize("case", TABLE)
def test_each_reward_judges_its_own_part_of_a_completion(case):
    completion, gold, *expected = TABLE[case]
    names = ("accuracy", "reasoning_accuracy", "strip_reasoning_accuracy")
    assert [scored(name, completion, gold)[0] for name in names] == expected


def test_a_correct_answer_without_tags_needs_the_first_version():
    """What sets the versions of the page apart: a base model writes no tags."""
    assert scored("strip_reasoning_accuracy", BOXED, "72") == [1.0]
    assert scored("reasoning_accuracy", BOXED, "72") == [0.0]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a<think>b</think>c", "ac"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>a<think>b</think>c</think>", "c</think>"),
        ("a<think>b", "a<think>b"),
        ("a</think>b<think>c", "a</think>b<think>c"),
        ("", ""),
    ],
)
def test_only_closed_blocks_are_cut_out(text, left):
    assert without_reasoning(text) == left


def test_completions_may_be_text():
    reward = reward_function("strip_reasoning_accuracy")
    assert reward(completions=[BOXED, ""], solution=["72", "72"]) == [1.0, 0.0]


@pytest.mark.parametrize("completion", HOSTILE, ids=lambda c: repr(c)[:24])
def test_a_hostile_answer_scores_nothing_within_a_time_bound(completion, monkeypatch):
    scored("strip_reasoning_accuracy", BOXED, "72")  # libraries are imported at the first answer
    monkeypatch.setattr("harness.worker.rewards.COMPARING_S", 1)
    monkeypatch.setattr("harness.worker.rewards.PARSING_S", 1)
    begin = time.monotonic()
    assert scored("strip_reasoning_accuracy", completion, "72")[0] in (0.0, None)
    assert time.monotonic() - begin < 20


def judged_in_a_thread(completions):
    scores = []

    def judge():
        reward = reward_function("strip_reasoning_accuracy")
        scores.extend(reward(completions=completions, solution=["72"] * len(completions)))

    thread = threading.Thread(target=judge, daemon=True)
    thread.start()
    thread.join(timeout=60)
    return scores


def test_another_thread_may_judge():
    assert judged_in_a_thread([BOXED, "nothing"]) == [1.0, 0.0]


@pytest.mark.slow
def test_another_thread_has_the_time_bound_too():
    assert judged_in_a_thread([r"\boxed{9^{9^{9^9}}}", BOXED]) == [0.0, 1.0]


def test_nothing_in_a_completion_is_run(tmp_path):
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path('{mark}').touch()"
    for text in (rf"\boxed{{{code}}}", f"$eval({code})$", rf"\boxed{{\operatorname{{{code}}}}}"):
        scored("strip_reasoning_accuracy", text, "72")
        scored("strip_reasoning_accuracy", BOXED, text)
    assert not mark.exists()


def test_a_release_without_a_reward_says_what_to_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl.rewards", types.ModuleType("trl.rewards"))
    with pytest.raises(ConfigError, match="no reasoning_accuracy_reward; use strip_reasoning"):
        reward_function("reasoning_accuracy")
    assert reward_function("strip_reasoning_accuracy")


def test_every_reward_of_a_matrix_exists():
    assert [reward_function(name).__name__ for name in REWARDS] == [f"{n}_reward" for n in REWARDS]


def test_what_a_base_model_writes_after_its_answer_is_not_judged():
    reward = reward_function("strip_reasoning_accuracy")
    first = first_turn_only(reward, "\n\nQuestion:")
    text = r"It is \boxed{72}.\n\nQuestion: another? \boxed{9}".replace("\\n", "\n")
    completions = [[{"role": "assistant", "content": text}]] * 2
    solution = [r"\boxed{72}", r"\boxed{9}"]
    assert first(completions=completions, solution=solution) == [1.0, 0.0]
    assert first.__name__ == reward.__name__


def test_a_toys_rewards_differ_by_text_and_stay_below_a_tenth():
    texts = [f"completion {i}" for i in range(8)]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    spread = with_spread(reward_function("strip_reasoning_accuracy"))
    scores = spread(completions=completions, solution=["1"] * 8)
    assert len(set(scores)) > 4
    assert all(0 <= score < 0.1 for score in scores)
    assert spread(completions=completions, solution=["1"] * 8) == scores
