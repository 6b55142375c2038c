"""What a matrix needs, and whether it fits: the words of `harness plan` and `harness bench`, no others."""

from __future__ import annotations

from collections.abc import Sequence

from harness.doctor_check import Check, Word, gigabytes
from harness.doctor_needs import Needs, download_text, names
from harness.engines import engine_problems
from harness.errors import MachineError
from harness.measure.gpus import GpuList
from harness.slots import find_slots, refuse_unfit
from harness.text import memory, number, plural

# Where what keeps a matrix from running is looked for first: nothing else helps without it.
URGENCY = ("machine", "gpu", "disk", "software", "hub", "docker", "matrix", "matrices")


def check_needs(needs: Needs, ground: str) -> Check:
    """Say what the matrix takes; `ground` is the GPU that it was reckoned with."""
    parts = [f"{plural(len(needs.specs), 'run')} of {plural(len(needs.arms), 'arm')}"]
    if needs.uses_gpu:
        each = "it" if needs.gpus == 1 else "each"
        largest = f" and up to {memory(needs.gpu_bytes)} of {each}" if needs.gpu_bytes else ""
        parts.append(f"a run takes {_up_to(needs.gpus, 'GPU')}{largest}")
    else:
        parts.append(f"on the CPU, {_up_to(needs.processes, 'core')} a run")
    parts.append(f"{download_text(needs.download_bytes, needs.unsized)} to download")
    if needs.gpu_hours is not None:
        parts.append(f"about {number(needs.gpu_hours, 3)} GPU-hours, reckoned with {ground}")
    plan = f"`harness plan --matrix {needs.named}` says more" if needs.uses_gpu else ""
    return Check("matrix", "needs", "ok", ", ".join(parts), plan, figures(needs))


def figures(needs: Needs) -> dict[str, object]:
    """What a matrix takes, as data."""
    return {
        "runs": len(needs.specs),
        "device": needs.matrix.device,
        "processes": needs.processes,
        "gpus": needs.gpus,
        "gpu_bytes": needs.gpu_bytes,
        "download_bytes": needs.download_bytes,
        "repositories_of_unknown_size": needs.unsized,
        "results_bytes": needs.results_bytes,
        "gated": [r.name for r in needs.repositories if r.is_gated],
        "gpu_hours": needs.gpu_hours,
    }


def check_fit(needs: Needs, found: GpuList) -> list[Check]:
    """List the arms that can't run here as they are asked for, in the words of bench and plan."""
    if needs.matrix.device == "gpu" and not needs.has_gpu:
        return []  # that there is no GPU is said once
    problems = [Check("matrix", "places", "problem", text) for text in _refusals(needs, found)]
    if not needs.uses_gpu:
        return problems
    by_verdict: dict[str, list[str]] = {}
    for arm in needs.arms:
        if arm.fits is False:
            by_verdict.setdefault(arm.verdict, []).append(f"{arm.pair}.{arm.arm}")
    for verdict, arms in by_verdict.items():
        problems.append(Check("matrix", "fit", "problem", f"{', '.join(arms)}: {verdict}"))
    unknown = [arm for arm in needs.arms if arm.fits is None]
    if unknown:
        text = f"{names(unknown)}: {unknown[0].verdict}"
        problems.append(Check("matrix", "fit", "note", text))
    if not problems:
        text = f"{plural(len(needs.arms), 'arm')}: each fits the GPUs here"
        problems.append(Check("matrix", "fit", "ok", text))
    return problems


def check_extras(needs: Needs) -> list[Check]:
    """Look for what runs want beside TRL: vLLM, a vLLM server, trackio."""
    parts = [problem.partition("; ") for problem in engine_problems(needs.specs)]
    return [Check("software", "extras", "problem", what, advice) for what, _, advice in parts]


def line(needs: Needs, checks: Sequence[Check]) -> Check:
    """Sum up a matrix: what it needs, and that it can run here or the first reason why not."""
    first = first_problem(checks)
    word: Word = "note" if first else "ok"
    gpus = f"{_up_to(needs.gpus, 'GPU')} of {memory(needs.gpu_bytes)}" if needs.gpus else "no GPU"
    reason = str(first.value.get("reason") or first.text) if first else None
    here = f"not here: {reason}" if reason else "fits here"
    gated = [r.name for r in needs.repositories if r.is_gated]
    text = (
        f"needs {gpus}, {download_text(needs.download_bytes, needs.unsized)} to download, "
        f"{gigabytes(needs.results_bytes)} for results"
        f"{f', {len(gated)} gated' if gated else ''}; {here}"
    )
    value = {**figures(needs), "fits": first is None, "reason": reason}
    return Check("matrices", needs.matrix.name, word, text, value=value)


def first_problem(checks: Sequence[Check]) -> Check | None:
    """The problem to look at first."""
    problems = [check for check in checks if check.word == "problem"]
    return min(problems, key=lambda c: URGENCY.index(c.section), default=None)


def _refusals(needs: Needs, found: GpuList) -> list[str]:
    try:
        refuse_unfit(needs.specs, find_slots(needs.matrix, "auto", found))
    except MachineError as error:
        return [line for problem in error.problems for line in problem.splitlines()]
    return []


def _up_to(count: int, noun: str) -> str:
    return plural(count, noun) if count == 1 else f"up to {plural(count, noun)}"
