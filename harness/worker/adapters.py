"""Keeping a trained adapter beside its run's record, for `harness publish`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer

from harness.files import ADAPTER
from harness.record import Source


def save_adapter(
    trainer: Trainer, attempt: Path, base: str, sources: Sequence[Source]
) -> list[str]:
    """Save the trained adapter beside the run's record; return why not, if it can't be.

    The base model goes by its repository's name: the folder it was read from is this machine's own.
    """
    if getattr(trainer, "is_fsdp_enabled", False) or getattr(
        trainer, "is_deepspeed_enabled", False
    ):
        return ["The adapter was not saved: its weights are sharded over several processes."]
    if not trainer.is_world_process_zero():
        return []
    folder = attempt / ADAPTER
    for config in trainer.model.peft_config.values():
        config.base_model_name_or_path = base
        config.revision = commit_of(sources, base)
    try:
        # No token was added, so the base's embeddings are not the adapter's; PEFT would ask the Hub.
        trainer.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # names places; `harness publish` writes one
    except OSError as error:  # a full disk: what was trained and measured counts all the same
        return [f"The adapter was not saved: {error.strerror or type(error).__name__}."]
    return []


def commit_of(sources: Sequence[Source], repository: str) -> str | None:
    """Return the commit of a repository that this run read; None for what has none."""
    return next((s.commit for s in sources if s.repository == repository), None)
