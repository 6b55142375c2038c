"""The reward functions of a matrix: TRL's own, and the page's first version.

`reasoning_accuracy` judges what stands after `</think>` and gives 0 to a completion without it;
`accuracy` judges the whole completion; `strip_reasoning_accuracy` judges what is left once closed
reasoning blocks are cut out, so that a base model which never writes a tag can score. All compare
with math-verify, and answer None where the gold answer can't be parsed.

Completions and gold answers come from outside. math-verify parses them with a grammar and runs
nothing; what it computes can still take for ever (`9^{9^{9^9}}`), so every call has a time limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, lru_cache
from importlib import import_module
from multiprocessing import get_context
from typing import Any, TypeVar
from zlib import crc32

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from harness.errors import ConfigError
from harness.worker.probe_rewards import REWARDS as PROBES

Reward = Callable[..., list[float | None]]
Completion = str | Sequence[dict[str, Any]]  # text, or chat messages
T = TypeVar("T")

STRIP = "strip_reasoning_accuracy"
OPEN, CLOSE = "<think>", "</think>"
# What a reward function reports as its parsed answer where there is none; TRL's own words.
UNPARSEABLE, SKIPPED, INCOMPLETE = "[unparseable]", "[skipped]", "[incomplete reasoning]"
# math-verify's own defaults, which the page's script left as they are. Whole seconds: SIGALRM.
PARSING_S = 5
COMPARING_S = 5

# An answer has to be well-formed LaTeX and marked as such; a boxed one counts first.
_ANSWER = LatexExtractionConfig(
    boxed_match_priority=0,
    try_extract_without_anchor=False,
    normalization_config=NormalizationConfig(units=True),
)
_GOLD = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=True)


def reward_function(name: str) -> Reward:
    """Return a reward function by its name in the matrix.

    Raises: ConfigError if it is one of TRL's and the installed release does not have it.
    """
    if name == STRIP:
        return strip_reasoning_accuracy_reward
    if name in PROBES:
        return PROBES[name]
    # Asked for by name: releases before it was added must still import this module.
    reward = getattr(import_module("trl.rewards"), f"{name}_reward", None)
    if reward is None:
        version = import_module("trl").__version__
        raise ConfigError(
            f"reward {name!r}: this TRL ({version}) has no {name}_reward; use {STRIP}, which needs "
            "none of TRL, or a newer TRL"
        )
    return reward


def first_turn_only(reward: Reward, end: str) -> Reward:
    """Return a reward function that judges a completion up to where its text asks the next question.

    A base model goes on writing after its answer, and would be judged by an answer to a question that
    it made up.
    """

    def judge(*, completions: list[Completion], **kwargs: Any) -> list[float | None]:
        cut = [[{"role": "assistant", "content": text_of(c).split(end)[0]}] for c in completions]
        return reward(completions=cut, **kwargs)

    judge.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return judge


def with_spread(reward: Reward) -> Reward:
    """Return a reward function that adds up to 0.1 by a completion's text, for a rehearsal's toys.

    A toy earns nothing, all advantages of a group would be zero, and whatever should be updated would
    stand still unseen.
    """

    def spread(*, completions: list[Completion], **kwargs: Any) -> list[float | None]:
        scores = reward(completions=completions, **kwargs)
        extra = [crc32(text_of(c).encode(errors="replace")) % 1000 / 10_000 for c in completions]
        return [None if s is None else s + e for s, e in zip(scores, extra, strict=True)]

    spread.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return spread


def strip_reasoning_accuracy_reward(
    completions: list[Completion],
    solution: list[str],
    log_extra: Callable[[str, list[str]], None] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score completions 1 or 0 by what stands outside closed reasoning blocks.

    None where the gold answer can't be parsed, or the comparison raises: TRL skips these.

    Source: `strip_reasoning_accuracy_reward` in the script that the first version of TRL's page
    'LoRA Without Regret' linked (huggingface.co/datasets/burtenshaw/lora-without-regrets, grpo.py):
    the gold answer as '$…$', an unclosed or missing tag without consequence.
    """
    texts = [without_reasoning(text_of(c)) for c in completions]
    judged = [_in_time(_judge, *pair) for pair in zip(texts, solution, strict=True)]
    if log_extra is not None:
        log_extra("solution", list(solution))
        log_extra("answer_parsed", [answer for _, answer in judged])
    return [score for score, _ in judged]


def text_of(completion: Completion) -> str:
    """Return a completion's text; of chat messages the first, as TRL's own rewards do."""
    if isinstance(completion, str):
        return completion
    return str(completion[0].get("content") or "") if completion else ""


def without_reasoning(text: str) -> str:
    """Cut every closed `<think>…</think>` out of a text, each from its `<think>` to the next end."""
    kept, at = [], 0
    while (begin := text.find(OPEN, at)) >= 0 and (end := text.find(CLOSE, begin)) >= 0:
        kept.append(text[at:begin])
        at = end + len(CLOSE)
    return "".join(kept) + text[at:]


def judged_text(name: str, text: str) -> str | None:
    """Return the part of a completion that a reward function parses; None if it stops before."""
    if name.startswith(STRIP):
        return without_reasoning(text)
    if name.startswith("reasoning_accuracy"):
        return text.rpartition(CLOSE)[2] if CLOSE in text else None
    return text


def has_answer(text: str) -> bool:
    """Whether math-verify reads an answer in a text, in time."""
    return bool(_in_time(_parsed_answer, text))


def _judge(text: str, gold_text: str) -> tuple[float | None, str]:
    """Return the score of a text and what was read as its answer."""
    gold = _parsed_gold(gold_text)
    if not gold:
        return None, SKIPPED
    answer = _parsed_answer(text)
    # The text that it was read from: writing a number out can take for ever.
    sources = [part for part in answer if isinstance(part, str)]
    shown = sources[0] if sources else type(answer[0]).__name__ if answer else UNPARSEABLE
    try:
        return float(verify(gold, answer, timeout_seconds=COMPARING_S)), shown
    except Exception:  # noqa: BLE001 - whatever sympy raises: the page's script leaves it unscored
        return None, shown


def _parsed_answer(text: str) -> list[Any]:
    return parse(
        text,
        extraction_config=[_ANSWER],
        extraction_mode="first_match",
        parsing_timeout=PARSING_S,
    )


@lru_cache(maxsize=4096)  # every completion of a group has the same gold answer
def _parsed_gold(text: str) -> list[Any]:
    return parse(f"${text}$", extraction_config=[_GOLD], parsing_timeout=PARSING_S)


def _in_time(function: Callable[..., T], *arguments: str) -> T:
    """Call what uses math-verify where its time limits hold.

    They are SIGALRM, which only a main thread gets. Another thread borrows that of a child process:
    nothing inside this process could stop a power that is computed in C with the interpreter's lock.
    """
    if threading.current_thread() is threading.main_thread():
        return function(*arguments)
    return _child().submit(function, *arguments).result()


@cache
def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
