"""What TRL logs, by its names: what each says about training, and which a release defined anew.

The names are stable enough to be compared; what stands behind some is not. A key that was defined anew
between two releases says nothing about training, and what only clocks know is left out altogether.
Source: TRL's releases 0.20 to 1.16, each run on a CPU.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from harness.compare.model import Kind
from harness.releases import numbers
from harness.spec import Task

# Clocks, and what transformers derives from them.
_TIMELIKE = ("*time*", "*_per_second", "*runtime*", "total_flos", "memory/*", "*_mem_*")
# The first pattern that a name matches.
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("loss", "loss"),
    ("*aux_loss", "loss"),
    ("grad_norm", "gradient"),
    ("learning_rate", "configuration"),
    ("reward*", "reward"),
    ("frac_reward_zero_std", "reward"),
    ("integrity/*", "reward"),
    ("completions/*", "sampling"),
    ("sampling/*", "sampling"),
    ("num_tokens", "data"),
    ("num_input_tokens_seen", "data"),
    ("epoch", "data"),
)
# Whole numbers: none of them is rounded.
_COUNTED = ("num_tokens", "num_input_tokens_seen", "completions/min*", "completions/max*")
# Without these a run's training can't be judged.
ESSENTIAL: dict[Task, tuple[str, ...]] = {
    "sft": ("loss", "grad_norm"),
    "grpo": ("loss", "grad_norm", "reward"),
}


@dataclass(frozen=True)
class Redefinition:
    """A logged key that means something else from a release on."""

    pattern: str
    task: Task
    release: str
    how: str


REDEFINED = (
    Redefinition("entropy", "sft", "1.3.0", "shifted and masked as the loss is"),
    Redefinition("reward_std", "grpo", "0.27.0", "over all rewards, before the mean of groups"),
    Redefinition("rewards/*/std", "grpo", "0.27.0", "over all rewards, before the mean of groups"),
    Redefinition("reward", "grpo", "1.0.0", "several rewards are weighted by reward_weights"),
    Redefinition("reward_std", "grpo", "1.0.0", "several rewards are weighted by reward_weights"),
    Redefinition("clip_ratio/*", "grpo", "1.9.0", "weighted by tokens"),
    Redefinition("kl", "grpo", "1.9.0", "weighted by tokens"),
    Redefinition("entropy", "grpo", "1.9.0", "weighted by tokens"),
)


def is_timelike(key: str) -> bool:
    """Whether a logged key is of clocks, or of what only clocks know."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in _TIMELIKE)


def kind_of_log(key: str) -> Kind:
    """Say what a logged key tells about."""
    return next((kind for p, kind in _KINDS if fnmatch.fnmatchcase(key, p)), "metric")


def is_counted(key: str) -> bool:
    """Whether a logged key is a whole number."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in _COUNTED)


def redefinition(
    key: str, task: Task, base: Mapping[str, str | None], candidate: Mapping[str, str | None]
) -> Redefinition | None:
    """Return what defined a key anew between the releases of TRL that two sides have, or None."""
    versions = [side.get("trl") for side in (base, candidate)]
    if None in versions:
        return None
    low, high = sorted(numbers(version or "") for version in versions)
    return next(
        (
            each
            for each in REDEFINED
            if each.task == task
            and fnmatch.fnmatchcase(key, each.pattern)
            and low < numbers(each.release) <= high
        ),
        None,
    )
