"""Having the FLOPs of training steps counted, by the worker's code on shapes alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.asking import ask_worker
from harness.catalog import MODELS
from harness.compute import ComputeRatio, StepFlops, compare_steps

COMMAND = (sys.executable, "-m", "harness.worker.flops")


def count_steps(
    models: Sequence[str], ranks: Sequence[int], tokens: int
) -> tuple[list[StepFlops], list[ComputeRatio]]:
    """Count catalogued models' steps, full and at every rank, and set each rank beside full.

    Units: tokens of the one sequence of a step. Raises: MachineError with the worker's last words.
    """
    question = {"models": list(models), "ranks": sorted(set(ranks)), "tokens": tokens}
    steps = ask_worker(COMMAND, question, StepFlops, "counting FLOPs")
    full = {step.model: step for step in steps if step.rank is None}
    return steps, [compare_steps(MODELS[s.model], full[s.model], s) for s in steps if s.rank]
