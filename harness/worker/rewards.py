"""TRL's own reward functions, by the name a matrix uses.

`reasoning_accuracy` judges what stands after `</think>` and gives 0 to a completion without it;
`accuracy` judges the whole completion. Both compare with math-verify, and answer None where the
gold answer can't be parsed.
"""

from __future__ import annotations

from collections.abc import Callable

from trl.rewards import accuracy_reward, reasoning_accuracy_reward

Reward = Callable[..., list[float | None]]
_REWARDS: dict[str, Reward] = {
    "reasoning_accuracy": reasoning_accuracy_reward,
    "accuracy": accuracy_reward,
}


def reward_function(name: str) -> Reward:
    """Return a reward function of TRL by its name in the matrix."""
    return _REWARDS[name]
