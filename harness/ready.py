"""A stack made ready to train: its environment made and looked into, and the launcher that uses it.

What this leaves out: which stacks there are (`stacks`) and running a matrix with one (`bench`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.environments import look_into, make_environment
from harness.installed import Installed
from harness.launch import Launcher
from harness.launch.local import LocalLauncher
from harness.preflight import COMMAND as PREFLIGHT
from harness.releases import unfit_pairing
from harness.spec import RunSpec
from harness.stacks import Stack


@dataclass(frozen=True)
class Ready:
    """What runs a stack's study."""

    stack: Stack
    launcher: Launcher
    preflight: tuple[str, ...] = (
        PREFLIGHT  # looks at models and datasets, with the stack's own code
    )
    notes: tuple[str, ...] = ()  # to be said before its first run


def make_ready(
    stack: Stack, specs: Sequence[RunSpec], tell: Callable[[str], None], *, is_cold: bool
) -> Ready:
    """Make what a stack trains with.

    Releases that can't train a task are no error: its runs say so in their records, and the other stacks
    train. Raises: ConfigError or MachineError if its environment can't be made.
    """
    if stack.image is not None:
        from harness.launch.docker import DockerLauncher

        return Ready(stack, DockerLauncher(stack.image, trl=stack.trl))
    if not stack.packages:
        return Ready(stack, LocalLauncher(is_cold=is_cold))
    environment = make_environment(stack.packages, stack.name, tell)
    found = look_into(environment)
    _, *module = PREFLIGHT
    return Ready(
        stack,
        LocalLauncher(is_cold=is_cold, python=environment.python, installed=found),
        (environment.python, *module),
        (*stack.notes, *unsupported(specs, found)),
    )


def unsupported(specs: Sequence[RunSpec], found: Installed) -> list[str]:
    """Say of which runs an environment's releases train none, and why."""
    notes = []
    for task in dict.fromkeys(spec.task for spec in specs):
        reason = unfit_pairing(task, found.versions, has_triton="triton" in found.importable)
        if reason:
            count = sum(spec.task == task for spec in specs)
            notes.append(f"unsupported here: {count} {task} runs: {reason}")
    return notes
