"""What differs between TRL releases and must not differ in a record.

Only what the supported releases need today: which of a run's arguments the installed config takes,
and which methods generate and sync weights. The arguments that can't be passed are said, never
dropped in silence.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from harness.errors import ConfigError, did_you_mean

# The method whose span is the generate phase, newest name first.
GENERATION_METHODS = ("_generate", "_generate_and_score_completions")
# The method that gives vLLM the trained weights, newest first: (attribute of the trainer that has
# it, or None for the trainer itself; method).
WEIGHT_SYNC_METHODS = (("vllm_generation", "sync_weights"), (None, "_move_model_to_vllm"))


def build_config(config_class: type, arguments: dict[str, Any]) -> Any:
    """Build TRL's config from a run's arguments.

    Raises: ConfigError naming every argument that this release does not have, or that it refuses.
    """
    known = {f.name for f in fields(config_class)}
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise ConfigError(
            *(
                f"{config_class.__name__} has no argument {n!r}{did_you_mean(n, known)}"
                for n in unknown
            )
        )
    try:
        return config_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config_class.__name__} refuses the arguments: {error}") from error


def generation_method(trainer: object) -> str | None:
    """Name the method of a GRPO trainer that generates, or None if this release has neither."""
    return next((m for m in GENERATION_METHODS if hasattr(trainer, m)), None)


def weight_sync_method(trainer: object) -> tuple[object, str] | None:
    """Return what syncs a GRPO trainer's weights to vLLM, as (owner, method); None without vLLM."""
    if not getattr(trainer, "use_vllm", False):
        return None
    for holder, method in WEIGHT_SYNC_METHODS:
        owner = trainer if holder is None else getattr(trainer, holder, None)
        if hasattr(owner, method):
            return owner, method
    return None
