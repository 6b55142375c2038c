"""When two sides may be held against each other to the bit, and what is left where they may not.

Floating-point sums depend on the processor, and a GPU adds in whatever order it likes: there a small
difference proves nothing. What is counted, and what is far larger at the first step than rounding can be,
proves something anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.limits import Limits
from harness.compare.model import Difference, Kind
from harness.compare.side import RunSide, Side

# What a number's last digits and a time depend on; a kernel's or a container's name is not.
_FINGERPRINT = ("system", "machine", "cpu_model", "cpu_cores_logical", "cpu_cores_physical")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# No rounding reaches this far in one step.
BEYOND_ROUNDING = 1e-3
_MACHINE_FREE: tuple[Kind, ...] = ("configuration", "dependency", "missing")
_FROM_FIRST_STEP: tuple[Kind, ...] = ("loss", "gradient", "reward", "weights")
MEASURED: tuple[Kind, ...] = ("memory", "speed")


def machine_differences(base: Side, candidate: Side) -> list[str]:
    """Say in what two machines differ; a machine that is not known differs in nothing."""
    return fingerprint_differences(base.platform, candidate.platform) + [
        f"{name}={base.variables.get(name)} became {candidate.variables.get(name)}"
        for name in _VARIABLES
        if _differ(base.variables.get(name), candidate.variables.get(name))
    ]


def fingerprint_differences(base: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """Say in what two fingerprints differ, the same machine's after an update in nothing."""
    found = [
        f"{name} {ours!r} became {theirs!r}"
        for name in _FINGERPRINT
        if _differ(ours := base.get(name), theirs := candidate.get(name))
    ]
    ours, theirs = gpu_names(base), gpu_names(candidate)
    if ours != theirs:
        found.append(f"GPUs {', '.join(ours) or 'none'} became {', '.join(theirs) or 'none'}")
    return found


def gpu_names(platform: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the GPUs of a machine."""
    found = platform.get("gpus")
    rows = found if isinstance(found, list | tuple) else ()
    return tuple(str(g.get("name", g)) if isinstance(g, dict) else str(g) for g in rows)


def looseness(
    base: Side, candidate: Side, machines: Sequence[str], limits: Limits, *, has_controls: bool
) -> str | None:
    """Say why small differences prove nothing between two sides, or None.

    `machines` are the differences of the machines; `has_controls` says that runs were repeated on either
    side, which shows whether numbers repeat there.
    """
    if machines and not limits.across_machines:
        return f"measured on another machine ({'; '.join(machines)})"
    if not has_controls and (_trains_on_gpu(base) or _trains_on_gpu(candidate)):
        return "trained on a GPU, where reruns need not repeat, and no run was repeated to see"
    return None


def demote(found: Sequence[Difference], run: RunSide, why: str) -> list[Difference]:
    """Leave undecided what the machine alone could have made of a run."""
    sampled = any(d.kind == "sampling" and d.word == "changed" and d.step == 1 for d in found)
    return [
        d.model_copy(update={"word": "undecided", "sentence": f"{d.sentence}; {why}"})
        if d.word == "changed" and not _stands(d, run, sampled=sampled)
        else d
        for d in found
    ]


def _stands(found: Difference, run: RunSide, *, sampled: bool) -> bool:
    """Whether a difference proves a change on any machine."""
    if found.kind in _MACHINE_FREE or found.what == "dtypes":
        return True
    if found.kind == "data":
        return run.task == "sft"
    is_first = found.step is not None and found.step <= 1
    is_large = found.relative is not None and found.relative > BEYOND_ROUNDING
    return found.kind in _FROM_FIRST_STEP and is_first and is_large and not sampled


def _trains_on_gpu(side: Side) -> bool:
    return bool(gpu_names(side.platform)) and any(
        run.config.get("device") not in (None, "cpu") for run in side.runs if run.config
    )


def _differ(ours: object, theirs: object) -> bool:
    return ours is not None and theirs is not None and ours != theirs
