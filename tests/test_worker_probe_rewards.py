"""Rewards of probes: of the text alone, on the scale they say, None where they say so."""

from __future__ import annotations

import pytest

from harness.worker.probe_rewards import REWARDS
from harness.worker.reward_counts import CountedReward

TEXTS = [f"<think>{n}+4={n + 4}</think>\\boxed{{{n + 4}}}" for n in range(30)]


def chat(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize("name", REWARDS)
def test_a_completion_scores_the_same_as_text_and_as_messages(name):
    scores = REWARDS[name](completions=TEXTS, solution=TEXTS)
    assert scores == REWARDS[name](completions=chat(TEXTS), log_extra=None)
    assert len({s for s in scores if s is not None}) > 1, "a group without variance trains nothing"


def test_one_reward_is_none_for_some_and_only_for_some():
    scores = REWARDS["probe_partial"](completions=TEXTS)
    assert 0 < sum(score is None for score in scores) < len(scores)
    others = [REWARDS[n](completions=TEXTS) for n in REWARDS if n != "probe_partial"]
    assert not any(score is None for scores in others for score in scores)


def test_one_reward_is_on_another_scale():
    assert max(REWARDS["probe_scale"](completions=TEXTS)) > 20
    assert all(0 <= s <= 1 for s in REWARDS["probe_length"](completions=TEXTS))
    assert all(0 <= s <= 1 for s in REWARDS["probe_digits"](completions=TEXTS))


def test_nothing_is_parsed_to_count_what_they_could_not_judge():
    counted = CountedReward(REWARDS["probe_partial"])
    scores = counted(completions=chat(TEXTS))
    counts = counted.take()
    assert counts.completions == counts.judged == len(TEXTS)
    assert counts.unscored == sum(score is None for score in scores)
    assert counts.unparseable == 0


def test_an_empty_completion_has_a_score():
    for name in ("probe_length", "probe_digits", "probe_parity", "probe_scale"):
        assert REWARDS[name](completions=["", [], [{"content": None}]]) == [0.0, 0.0, 0.0]
