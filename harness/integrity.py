"""Could the reward teach anything? What became of a GRPO run's completions, from its step rows.

A reward curve is only worth as much as the answers behind it: completions in which no answer could
be read score 0 however good they are, a group whose members all score the same has no advantage, a
completion that was cut at the limit never came to its answer, and lengths that drift are a change of
policy that the reward does not show. What the harness counts itself stands in the logs under
`integrity/`, the rest under TRL's names; a step that reuses an earlier generation has neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.frozen import Frozen
from harness.record import UNCLOSED_SHARE, UNPARSEABLE_SHARE, UNSCORED_SHARE, StepRow

# Above these the reward could hardly teach anything, whatever the verdict.
MOST_UNPARSEABLE = 0.5
MOST_ZERO_VARIANCE = 0.9

_SHARES = {
    "unparseable": UNPARSEABLE_SHARE,
    "unclosed": UNCLOSED_SHARE,
    "unscored": UNSCORED_SHARE,
    "clipped": "completions/clipped_ratio",
    "zero_variance": "frac_reward_zero_std",
}
_LENGTH = "completions/mean_length"


class Share(Frozen):
    """A share of completions (or groups), as the mean over steps; null where it was not measured."""

    all_steps: float | None = None
    last_fifth: float | None = None


class RewardIntegrity(Frozen):
    """What a run's reward could and could not judge."""

    unparseable: Share = Field(description="completions in which the reward found no answer")
    unclosed: Share = Field(description="completions without the end of a reasoning block")
    unscored: Share = Field(description="completions that the reward function returned None for")
    clipped: Share = Field(description="completions cut at max_completion_length")
    zero_variance: Share = Field(description="groups whose completions all scored the same")
    length_tokens: float | None = Field(description="mean completion length, last fifth of steps")
    length_drift_tokens: float | None = Field(
        description="mean completion length, last fifth of the steps minus the first fifth"
    )
    length_drift_ratio: float | None = Field(description="that drift over the first fifth's length")


def reward_integrity(steps: Sequence[StepRow]) -> RewardIntegrity:
    """Derive a run's figures from its step rows, in their order."""
    lengths = [s.logs.get(_LENGTH) for s in steps]
    fifth = max(1, len(steps) // 5)
    last = _mean(lengths[-fifth:])
    first = _mean(lengths[:fifth]) if len(steps) > 1 else None
    drift = last - first if last is not None and first is not None else None
    return RewardIntegrity(
        **{name: _share([s.logs.get(key) for s in steps], fifth) for name, key in _SHARES.items()},
        length_tokens=last,
        length_drift_tokens=drift,
        length_drift_ratio=drift / first if drift is not None and first else None,
    )


def average(runs: Sequence[RewardIntegrity]) -> RewardIntegrity:
    """Average the figures of an arm's runs; a figure is null where no run has it."""
    shares = {
        name: Share(
            all_steps=_mean([getattr(run, name).all_steps for run in runs]),
            last_fifth=_mean([getattr(run, name).last_fifth for run in runs]),
        )
        for name in _SHARES
    }
    return RewardIntegrity(
        **shares,
        length_tokens=_mean([run.length_tokens for run in runs]),
        length_drift_tokens=_mean([run.length_drift_tokens for run in runs]),
        length_drift_ratio=_mean([run.length_drift_ratio for run in runs]),
    )


def doubts(figures: RewardIntegrity) -> list[str]:
    """Say why a reward could hardly teach anything; nothing where it could."""
    found = []
    unparseable, same = figures.unparseable.all_steps, figures.zero_variance.all_steps
    if unparseable is not None and unparseable > MOST_UNPARSEABLE:
        found.append(f"no answer could be read in {unparseable:.0%} of the completions")
    if same is not None and same > MOST_ZERO_VARIANCE:
        found.append(f"all completions scored the same in {same:.0%} of the groups")
    return found


def _share(values: Sequence[float | None], fifth: int) -> Share:
    return Share(all_steps=_mean(values), last_fifth=_mean(values[-fifth:]))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
