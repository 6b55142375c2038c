"""What differs between TRL releases and must not differ in a record.

Only what the supported releases need today: which of a run's arguments the installed config takes,
and which method generates. The arguments that can't be passed are said, never dropped in silence.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from harness.errors import ConfigError, did_you_mean

# The method whose span is the generate phase, newest name first.
GENERATION_METHODS = ("_generate", "_generate_and_score_completions")


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
