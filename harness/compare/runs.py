"""Two runs of one seed through the layers that need no statistics: contents, steps, trajectory, checks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compare.checks import GROWN, compare_checks, compare_evaluations
from harness.compare.exact import Stacks, compare_exact
from harness.compare.limits import Limits
from harness.compare.missing import compare_contents
from harness.compare.model import Difference, Word
from harness.compare.side import RunSide
from harness.compare.trajectory import compare_trajectory

_COARSE = ("bfloat16", "float16")
_TRAINED = ("loss", "gradient", "weights", "data", "sampling", "reward", "configuration")


def compare_runs(
    base: RunSide, candidate: RunSide, stacks: Stacks, limits: Limits, tolerance: float
) -> list[Difference]:
    """List in what two runs differ, without what rounding explains of their hashes."""
    contents = compare_contents(base, candidate, stacks)
    exact = compare_exact(base, candidate, stacks, limits, tolerance)
    later = compare_trajectory(base, candidate, limits, exact, tolerance)
    trained: Word = "same"
    if any(is_training_change(d) for d in (*contents, *exact, *later)):
        trained = "changed"
    elif any(d.word == "rounding" for d in (*exact, *later)):
        trained = "rounding"
    grown = GROWN if trained == "rounding" else tolerance
    means_count = trained == "changed" or stacks.is_same_software
    rest = compare_checks(base, candidate, max(grown, tolerance), means_count=means_count)
    rest += compare_evaluations(base, candidate, tolerance, trained=trained)
    found = [*contents, *exact, *later, *rest]
    if len({base.seed, candidate.seed}) > 1:
        return found
    return [d.model_copy(update={"seed": base.seed}) for d in found]


def is_training_change(found: Difference) -> bool:
    """Whether a difference says that a step of training came out otherwise."""
    return (
        found.layer in ("exact", "trajectory")
        and found.kind in _TRAINED
        and found.word in ("changed", "undecided")
        and not found.what.startswith(("check/", "evaluation/"))
    )


def is_coarse(runs: Sequence[RunSide]) -> bool:
    """Whether runs compute in a precision in which rounding is larger than the tolerance."""
    return any(_computes_coarsely(run) for run in runs)


def _computes_coarsely(run: RunSide) -> bool:
    if run.probe is not None and run.probe.precision != "float32":
        return True
    arguments = run.config.get("arguments")
    given = arguments if isinstance(arguments, dict) else {}
    dtypes = [*(run.probe.dtypes if run.probe else ()), *_listed(run.config.get("dtypes"))]
    return bool(given.get("bf16") or given.get("fp16")) or any(
        word in str(dtype) for dtype in dtypes for word in _COARSE
    )


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()
