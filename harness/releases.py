"""Which release is older than which, and which of them can't train together.

The standard library alone: an image's build asks here before anything is installed. What this leaves
out: how an argument is passed to a release (`translation`), and drivers and CUDA, which are the
machine's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.spec import Task

Versions = Mapping[str, str | None]
# The packages whose release decides how an argument is passed.
DECISIVE = ("trl", "transformers")


def installed_versions() -> dict[str, str | None]:
    """Return the installed releases of the decisive packages; None for what is not installed."""
    return {package: _version(package) for package in DECISIVE}


def is_before(versions: Versions, package: str, release: str) -> bool:
    """Whether the installed package is older than a release; an unknown version is the newest."""
    found = versions.get(package)
    return found is not None and numbers(found) < numbers(release)


def numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, filled with zeros: what decides the order."""
    found = [int(part) for part in re.findall(r"\d+", version)[:3]]
    return (*found, *(0 for _ in range(3 - len(found))))


def head_problem(versions: Versions) -> str | None:
    """Say why the installed TRL can't train an adapter on the output head, or None.

    Source: SFTTrainer and GRPOTrainer since 1.15 read the head's weight themselves and refuse one.
    """
    trl = versions.get("trl")
    if trl is None or is_before(versions, "trl", "1.15"):
        return None
    return (
        f"TRL {trl} computes log-probabilities from lm_head.weight itself, so an adapter there would "
        "never be trained, and its trainers refuse one; leave lm_head out, or install TRL 1.14 or older"
    )


def unfit_pairing(task: Task, versions: Versions, *, has_triton: bool) -> str | None:
    """Say why the installed releases can't train a task at all, or None.

    Source: each release of TRL run for some steps on a CPU, under transformers 4.57 and 5.
    """
    trl, transformers = versions.get("trl"), versions.get("transformers")
    if trl and numbers(trl)[:2] == (1, 15) and not has_triton:
        return (
            f"TRL {trl} can't train without Triton, which is not installed here (its loss needs a "
            "kernel); install TRL 1.16 or newer, or a torch build with Triton"
        )
    if transformers is None or is_before(versions, "transformers", "5.0"):
        return None
    if task == "grpo" and is_before(versions, "trl", "0.29"):
        return (
            f"TRL {trl}'s GRPOTrainer can't be imported under transformers {transformers}; install "
            "transformers 4.57, or TRL 0.29 or newer"
        )
    if task == "sft" and is_before(versions, "trl", "0.27"):
        # Its apply_chat_template returns a mapping, whose length TRL takes for the prompt's.
        return (
            f"TRL {trl}'s SFTTrainer trains on prompts too under transformers {transformers}, without "
            "a word; install transformers 4.57, or TRL 0.27 or newer"
        )
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
