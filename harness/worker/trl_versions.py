"""What differs between TRL releases and must not differ in a record.

Which of a run's arguments the installed config takes and how (`translation` holds what changed when),
whether the installed releases can train at all, and which methods generate and sync weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from harness.errors import ConfigError, MachineError
from harness.record import Translation
from harness.releases import installed_versions, unfit_pairing
from harness.spec import Task
from harness.translation import changed_defaults, translate

# The method whose span is the generate phase, newest name first.
GENERATION_METHODS = ("_generate", "_generate_and_score_completions")
# The method that gives vLLM the trained weights, newest first: (attribute of the trainer that has
# it, or None for the trainer itself; method).
WEIGHT_SYNC_METHODS = (("vllm_generation", "sync_weights"), (None, "_move_model_to_vllm"))


@dataclass(frozen=True)
class Built:
    """TRL's config, and what stands between it and the arguments of the matrix."""

    config: Any
    translations: tuple[Translation, ...]
    notes: tuple[str, ...]


def pairing_problem(task: Task) -> str | None:
    """Say why the installed releases can't train a task together, or None. Imports none of them."""
    return unfit_pairing(task, installed_versions(), has_triton=find_spec("triton") is not None)


def check_pairing(task: Task) -> None:
    """Refuse releases that can't train a task together; to be called before TRL is imported.

    Raises: MachineError saying what is installed and what would do.
    """
    reason = pairing_problem(task)
    if reason:
        raise MachineError(reason)


def build_config(task: Task, config_class: type, arguments: Mapping[str, Any]) -> Built:
    """Build TRL's config from a run's arguments, translated to the installed release.

    Raises: ConfigError naming every argument that this release can't be given, or that it refuses.
    """
    known = {f.name for f in fields(config_class) if f.init}
    versions = installed_versions()
    passed, translations = translate(task, dict(arguments), known, versions)
    try:
        config = config_class(**passed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config_class.__name__} refuses the arguments: {error}") from error
    return Built(config, translations, changed_defaults(task, dict(arguments), versions))


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
