"""TRL's own reward functions, by the name a matrix uses.

`reasoning_accuracy` judges what stands after `</think>` and gives 0 to a completion without it;
`accuracy` judges the whole completion. Both compare with math-verify, and answer None where the
gold answer can't be parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from harness.errors import ConfigError

Reward = Callable[..., list[float | None]]


def reward_function(name: str) -> Reward:
    """Return a reward function of TRL by its name in the matrix.

    Raises: ConfigError if the installed release has none of that name.
    """
    # Asked for by name: releases without it must still import this module.
    reward: Reward | None = getattr(import_module("trl.rewards"), f"{name}_reward", None)
    if reward is None:
        version = import_module("trl").__version__
        raise ConfigError(
            f"TRL {version} has no {name}_reward (reasoning_accuracy_reward came with TRL 0.26); use "
            "reward: strip_reasoning_accuracy, or install a newer TRL"
        )
    return reward
