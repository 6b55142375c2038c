"""Reward functions, TRL's and the harness's own, on every completion of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from math_verify import parse

from harness.worker.replay.corpus import Corpus, Scored
from harness.worker.replay.items import Items
from harness.worker.rewards import (
    STRIP,
    first_turn_only,
    has_answer,
    reward_function,
    with_spread,
)
from harness.worker.templates import NEXT_TURN

# TRL's reward functions that take a completion and its gold answer.
OF_ANSWERS = ("accuracy_reward", "reasoning_accuracy_reward")
LENGTHS = (0, 1, 12, 13, 19, 20, 21, 40)
# What a penalty of repeated tokens is asked about.
REPEATS = {
    "none": [1, 2, 3, 4, 5, 6],
    "one-token": [7, 7, 7, 7, 7],
    "pairs": [1, 2, 1, 2, 1, 2],
    "one": [1],
    "empty": [],
}
Score = Callable[..., Sequence[Any]]


def replay_rewards(items: Items, corpus: Corpus) -> None:
    """Score the corpus with every function that this stack has."""
    _score_answers(items, corpus)
    _score_lengths(items)
    _parse_answers(items, corpus)


def _score_answers(items: Items, corpus: Corpus) -> None:
    for name in OF_ANSWERS:
        if function := items.find(f"trl.rewards:{name}"):
            score_all(items, f"reward/{name}", function, corpus.scored)
    if think := items.find("trl.rewards:think_format_reward"):
        score_all(items, "reward/think_format_reward", think, corpus.scored)
    if factory := items.find("trl.rewards:get_cosine_scaled_reward"):
        score_all(items, "reward/cosine_scaled_reward", factory(max_len=20), corpus.scored)
    strip = reward_function(STRIP)
    score_all(items, f"reward/{STRIP}_reward", strip, corpus.scored)
    first = first_turn_only(strip, NEXT_TURN["plain"])
    score_all(items, "reward/first_turn_only", first, corpus.scored)
    score_all(items, "reward/with_spread", with_spread(first), corpus.scored[:8])


def score_all(items: Items, group: str, function: Score, rows: Sequence[Scored]) -> None:
    """Score rows together, as training does, and one by one where that raises."""
    known = [row for row in rows if row.solution is not None]
    try:
        scores = _score(function, known)
        for row, score in zip(known, scores, strict=True):
            items.put(f"{group}/{row.name}", score)
        left = [row for row in rows if row.solution is None]
    except Exception:  # noqa: BLE001 - whatever a release raises: one by one says where
        left = list(rows)
    for row in left:
        items.call(f"{group}/{row.name}", lambda row=row: _score(function, [row])[0])


def _score(function: Score, rows: Sequence[Scored]) -> Sequence[Any]:
    return function(
        prompts=[[{"role": "user", "content": "?"}] for _ in rows],
        completions=[[{"role": "assistant", "content": row.completion}] for row in rows],
        solution=[row.solution for row in rows],
        completion_ids=[list(range(min(len(row.completion), 30))) for row in rows],
    )


def _score_lengths(items: Items) -> None:
    if factory := items.find("trl.rewards:get_soft_overlong_punishment"):
        punish = factory(max_completion_len=20, soft_punish_cache=8)
        for length in LENGTHS:
            items.call(
                f"reward/soft_overlong_punishment/{length}-tokens",
                lambda length=length: punish(completion_ids=[list(range(length))])[0],
            )
    if factory := items.find("trl.rewards:get_repetition_penalty_reward"):
        penalize = factory(ngram_size=2)
        for name, ids in REPEATS.items():
            items.call(
                f"reward/repetition_penalty/{name}",
                lambda ids=ids: penalize(completion_ids=[ids])[0],
            )


def _parse_answers(items: Items, corpus: Corpus) -> None:
    """Keep what math-verify reads: a score can stay the same though the answer is read otherwise."""
    for row in corpus.scored:
        text = row.completion
        items.call(f"reward/parsed_answer/{row.name}", lambda text=text: str(parse(text)))
        items.call(f"reward/has_answer/{row.name}", lambda text=text: has_answer(text))
        if row.solution is not None:
            gold = row.solution
            items.call(f"reward/parsed_gold/{row.name}", lambda gold=gold: str(parse(gold)))
