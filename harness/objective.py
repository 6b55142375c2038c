"""The blog's reinforcement-learning objective, in the arguments of TRL's GRPOConfig.

'LoRA Without Regret' maximises Σ_t (p_learner / p_sampler) · advantage, the advantage being a
completion's reward less the mean of its group: no division by a standard deviation, no clip, no KL
penalty. TRL's defaults do all three or may. What TRL cannot be told and stays its own: the loss is
divided by the constant batch × max_completion_length (Adam does not see it, but for its epsilon and
the clip of the gradient's norm), and with vLLM the ratio of a token is cut at
vllm_importance_sampling_clip_max. `num_generations` is the matrix's: the blog's groups differ by task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """An argument that the objective needs, and why."""

    value: Any
    reason: str


BLOG: dict[str, Setting] = {
    "beta": Setting(0.0, "no KL penalty"),
    "scale_rewards": Setting("none", "the group's mean is subtracted, nothing is divided"),
    "loss_type": Setting(
        "dr_grpo", "a sum over tokens: no completion counts less because it is long"
    ),
    "importance_sampling_level": Setting("token", "a ratio for every token"),
    "num_iterations": Setting(
        1, "one update per generation: the ratio is 1, so nothing is clipped"
    ),
    "lr_scheduler_type": Setting("constant", "no warm-up and no cool-down"),
    "temperature": Setting(1.0, "sampled from the policy that is trained"),
    "top_p": Setting(1.0, "sampled from the whole of its distribution"),
}
# With vLLM the sampler is another program than the learner: their ratio is the objective's own.
BLOG_WITH_VLLM: dict[str, Setting] = {
    "vllm_importance_sampling_correction": Setting(
        True, "p_learner / p_sampler is part of the objective"
    ),
    "vllm_importance_sampling_mode": Setting(
        "token_truncate", "a ratio for every token, none dropped"
    ),
}


def settings(objective: str, arguments: Mapping[str, Any]) -> dict[str, Setting]:
    """Return what an objective sets on top of a run's merged arguments; nothing for 'trl'."""
    if objective != "blog":
        return {}
    accumulation = arguments.get("gradient_accumulation_steps", 1)
    on_policy = Setting(accumulation, "a generation is trained on in one update: on-policy")
    vllm = BLOG_WITH_VLLM if arguments.get("use_vllm") is True else {}
    return {**BLOG, "steps_per_generation": on_policy, **vllm}


def objective_arguments(objective: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that an objective sets on top of a run's merged arguments."""
    return {name: setting.value for name, setting in settings(objective, arguments).items()}


def contradictions(objective: str, arguments: Mapping[str, Any], where: str) -> Iterator[str]:
    """Say which of a run's merged arguments an objective can't have: nothing is overridden."""
    needed = settings(objective, arguments)
    for name, setting in needed.items():
        if name in arguments and arguments[name] != setting.value:
            yield (
                f"{where}: {name} is {arguments[name]!r}, but objective {objective!r} expects "
                f"{setting.value!r} ({setting.reason}); remove it, or set objective: trl"
            )
    if needed and arguments.get("generation_batch_size") is not None:
        yield (
            f"{where}: generation_batch_size is {arguments['generation_batch_size']!r}, but objective "
            f"{objective!r} sets steps_per_generation, and TRL takes one of them; remove it"
        )
