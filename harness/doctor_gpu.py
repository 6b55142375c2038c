"""GPUs: which are here, and would a run on one be measured cleanly?

Judged from what NVML told (`measure.gpus`). What this leaves out: the driver (`doctor_driver`), and
whether an arm fits a GPU's memory, which is `harness plan`'s reckoning (`doctor_matrix`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import psutil

from harness.doctor_check import Check, Word, word_if
from harness.doctor_driver import dotted
from harness.doctor_needs import Needs
from harness.measure.gpus import Gpu, GpuList
from harness.measure.hidden import explain_none
from harness.text import memory, plural

_AMPERE = (8, 0)
# Memory in use without a process in sight: an idle driver holds far less.
IDLE_BYTES = 2**30

NameOf = Callable[[int], str | None]


def process_name(pid: int) -> str | None:
    """Name a process of this machine."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def check_gpus(
    needs: Needs,
    found: GpuList,
    visible: Sequence[Gpu],
    absence: tuple[str, str],
    cuda_visible_devices: str | None = None,
) -> list[Check]:
    """List the GPUs that CUDA would show; `absence` says why there is none here, and what to do."""
    if visible:
        lost = [Check("gpu", "nvml", "note", found.note)] if found.note else []
        return [
            *(Check("gpu", "gpu", "ok", _describe(gpu), value=_plain(gpu)) for gpu in visible),
            *lost,
        ]
    if found.gpus:
        hidden = explain_none(found, cuda_visible_devices)
        known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in found.gpus)
        return [_none(needs, hidden, f"unset it, or name one in it: {known}")]
    return [_none(needs, *absence)]


def _none(needs: Needs, why: str, advice: str) -> Check:
    name = needs.matrix.name
    if not needs.uses_gpu:
        return Check("gpu", "gpu", "note", f"none: {why}", f"matrix {name!r} runs on the CPU")
    rehearse = (
        f"without a GPU `harness bench --matrix {needs.named} --rehearse` shows that every arm runs"
    )
    text = f"matrix {name!r} needs a CUDA GPU: {why}"
    return Check("gpu", "gpu", "problem", text, f"{advice}; {rehearse}", {"reason": "no GPU here"})


def check_use(
    needs: Needs, gpu: Gpu, *, has_host_pids: bool, name_of: NameOf = process_name
) -> list[Check]:
    """Find what would spoil a measurement on a GPU, or keep a run from it."""
    grave = word_if(needs.uses_gpu)
    checks = [_busy(gpu, grave, has_host_pids, name_of), _mode(gpu, grave), _ecc(gpu, grave)]
    checks.append(_mig(gpu, needs))
    if needs.uses_gpu and gpu.compute_capability and gpu.compute_capability < _AMPERE:
        checks.append(
            Check(
                "gpu",
                "bfloat16",
                "note",
                f"{_called(gpu)} has compute capability {dotted(gpu.compute_capability)}: below 8.0 "
                "bfloat16, which these matrices train with, is emulated and slow",
            )
        )
    return [check for check in checks if check is not None]


def check_pids(needs: Needs, visible: Sequence[Gpu], *, has_host_pids: bool) -> list[Check]:
    """Say that NVML's figures per process are off, where process ids are not the host's."""
    if has_host_pids or not visible or not needs.uses_gpu:
        return []
    text = (
        "process ids here are not the host's, so NVML's memory per process is not measured; the GPU's "
        "own memory is"
    )
    return [Check("gpu", "process lens", "note", text, "keep other programs off the GPU")]


def _busy(gpu: Gpu, grave: Word, has_host_pids: bool, name_of: NameOf) -> Check | None:
    value = {"uuid": gpu.uuid, "processes": [asdict(p) for p in gpu.processes]}
    spoils = "what runs there would be in every measurement"
    advice = "free it, or choose another GPU with CUDA_VISIBLE_DEVICES"
    if gpu.processes:
        known = [p.used_bytes for p in gpu.processes if p.used_bytes is not None]
        held = f" with {memory(sum(known))}" if known else ""
        who = ""
        if has_host_pids:
            shown = [f"{p.pid} {name_of(p.pid) or '?'}" for p in gpu.processes[:3]]
            more = len(gpu.processes) - len(shown)
            who = f" ({', '.join(shown)}{f' and {more} more' if more else ''})"
        count = plural(len(gpu.processes), "process").replace("processs", "processes")
        text = f"{_called(gpu)} is busy: {count}{held}{who}; {spoils}"
        return Check("gpu", "busy", grave, text, advice, value)
    if gpu.used_bytes is not None and gpu.used_bytes > IDLE_BYTES and not gpu.is_mig_enabled:
        text = (
            f"{_called(gpu)} is busy: {memory(gpu.used_bytes)} are in use, by processes that NVML does not "
            f"list here; {spoils}"
        )
        return Check("gpu", "busy", grave, text, advice, value)
    return None


def _mode(gpu: Gpu, grave: Word) -> Check | None:
    reset = f"`nvidia-smi -i {gpu.index} -c DEFAULT` as root"
    if gpu.compute_mode == "prohibited":
        text = f"{_called(gpu)} is in compute mode 'prohibited': no program may use it"
        return Check("gpu", "compute mode", grave, text, reset)
    if gpu.compute_mode and gpu.compute_mode.startswith("exclusive"):
        text = f"{_called(gpu)} is in compute mode {gpu.compute_mode!r}: one program at a time"
        return Check("gpu", "compute mode", "note", text, f"{reset} lets several share it")
    return None


def _ecc(gpu: Gpu, grave: Word) -> Check | None:
    if not gpu.ecc_uncorrected:
        return None
    errors = plural(gpu.ecc_uncorrected, "uncorrected ECC error")
    text = f"{_called(gpu)} had {errors} since its driver loaded"
    advice = "reset it (`nvidia-smi -r`), and have it replaced if they come back"
    return Check("gpu", "ecc", grave, f"{text}: results on it can't be trusted", advice)


def _mig(gpu: Gpu, needs: Needs) -> Check | None:
    if not gpu.is_mig_enabled:
        return None
    value = {"uuid": gpu.uuid, "slices": [asdict(s) for s in gpu.mig_slices]}
    whole = f"`nvidia-smi -i {gpu.index} -mig 0` makes it one GPU again"
    if not gpu.mig_slices:
        text = f"{_called(gpu)} is in MIG mode and has no slice: no program can use it"
        return Check("gpu", "mig", word_if(needs.uses_gpu), text, whole, value)
    shown = ", ".join(f"{s.name or s.uuid} ({memory(s.total_bytes)})" for s in gpu.mig_slices)
    text = (
        f"{_called(gpu)} is cut into MIG slices, {shown}; runs get {gpu.name}, whose own memory is "
        "measured, not its power and energy, which it has not apart; CUDA_VISIBLE_DEVICES names another"
    )
    lacks = needs.gpu_bytes is not None and (gpu.total_bytes or 0) < needs.gpu_bytes
    if lacks:
        text += f"; the largest arm takes {memory(needs.gpu_bytes)}"
    return Check("gpu", "mig", word_if(lacks), text, whole, value)


def _describe(gpu: Gpu) -> str:
    parts = [gpu.uuid]
    parts += [f"{memory(gpu.total_bytes)}"] if gpu.total_bytes is not None else ["memory not told"]
    parts += [f"{memory(gpu.free_bytes)} free"] if gpu.free_bytes is not None else []
    parts += [f"capability {dotted(gpu.compute_capability)}"] if gpu.compute_capability else []
    if gpu.is_ecc_enabled is not None:
        parts.append("ECC on" if gpu.is_ecc_enabled else "ECC off")
    parts += ["MIG on"] if gpu.is_mig_enabled else []
    return f"{gpu.index}: {gpu.name}, {', '.join(parts)}"


def _plain(gpu: Gpu) -> dict[str, Any]:
    return {key: value for key, value in asdict(gpu).items() if key != "processes"}


def _called(gpu: Gpu) -> str:
    return f"GPU {gpu.index}"
