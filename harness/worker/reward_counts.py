"""What a reward function could not judge, counted while it judges.

A reward curve can stay flat because nothing was learned, or because no completion held an answer
that could be read. TRL logs the cut completions and the groups without variance; the rest is counted
here, in a wrapper around the reward function. Both TRL's functions and ours report the parsed
answer through `log_extra`, so nothing is parsed twice; where a release does not report it, the
answer is parsed once more.

Counted per process: in a run of several, the main process's own completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.record import UNCLOSED_SHARE, UNPARSEABLE_SHARE, UNSCORED_SHARE
from harness.worker.rewards import (
    CLOSE,
    INCOMPLETE,
    SKIPPED,
    UNPARSEABLE,
    Completion,
    Reward,
    has_answer,
    judged_text,
    text_of,
)


@dataclass
class Counts:
    """Completions since the last look."""

    completions: int = 0
    judged: int = 0  # those whose gold answer could be parsed
    unparseable: int = 0  # of the judged: nothing to compare with the gold answer
    unclosed: int = 0  # without the end of a reasoning block
    unscored: int = 0  # the reward function answered None

    def shares(self) -> dict[str, float | None]:
        """Return the counts as shares, by their names in StepRow.logs; null where nothing was."""
        return {
            UNPARSEABLE_SHARE: self.unparseable / self.judged if self.judged else None,
            UNCLOSED_SHARE: self.unclosed / self.completions if self.completions else None,
            UNSCORED_SHARE: self.unscored / self.completions if self.completions else None,
        }


class CountedReward:
    """A reward function that keeps count of what it could not judge."""

    def __init__(self, reward: Reward) -> None:
        self.__name__ = getattr(reward, "__name__", type(reward).__name__)  # TRL logs by it
        self._reward = reward
        self._counts = Counts()

    def __call__(self, *, completions: list[Completion], **kwargs: Any) -> list[float | None]:
        """Score completions as the reward function does."""
        reported: dict[str, list[str]] = {}
        forward = kwargs.pop("log_extra", None)

        def log_extra(column: str, values: list[str]) -> None:
            reported[column] = values
            if forward is not None:
                forward(column, values)

        scores = self._reward(completions=completions, log_extra=log_extra, **kwargs)
        answers = reported.get("answer_parsed") or self._parse(completions, scores)
        self._count(completions, scores, answers)
        return scores

    def take(self) -> Counts:
        """Return the counts since the last call, and start over."""
        counts, self._counts = self._counts, Counts()
        return counts

    def _count(
        self,
        completions: list[Completion],
        scores: Sequence[float | None],
        answers: Sequence[str],
    ) -> None:
        counts = self._counts
        counts.completions += len(completions)
        counts.unscored += sum(score is None for score in scores)
        counts.unclosed += sum(CLOSE not in text_of(c) for c in completions)
        counts.judged += sum(answer != SKIPPED for answer in answers)
        counts.unparseable += sum(answer in (UNPARSEABLE, INCOMPLETE) for answer in answers)

    def _parse(self, completions: list[Completion], scores: Sequence[float | None]) -> list[str]:
        """Say what could be parsed, for a release of TRL that does not."""
        answers = []
        for completion, score in zip(completions, scores, strict=True):
            text = judged_text(self.__name__, text_of(completion))
            if score is None:
                answers.append(SKIPPED)
            else:
                answers.append(UNPARSEABLE if text is None or not has_answer(text) else "")
        return answers
