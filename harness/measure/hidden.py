"""Why CUDA would show no GPU: none is here, or CUDA_VISIBLE_DEVICES leaves none.

CUDA itself is silent about an entry that names nothing: a program then sees fewer GPUs, or none.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.measure.gpus import Gpu, GpuList, named_gpus
from harness.text import plural

VARIABLE = "CUDA_VISIBLE_DEVICES"


def explain_none(found: GpuList, cuda_visible_devices: str | None) -> str:
    """Say why none of these GPUs can be used, for one who has seen that none can."""
    if not found.gpus:
        return found.note or "NVML lists no GPU"
    count = plural(len(found.gpus), "GPU")
    why = _explain(found.gpus, (cuda_visible_devices or "").strip())
    return f"{VARIABLE} hides the {count} of this machine: {why}"


def _explain(gpus: Sequence[Gpu], value: str) -> str:
    first = value.split(",")[0].strip()
    if not value:
        return "it is empty"
    if not first:
        return f"{value!r} begins with an empty entry"
    named = named_gpus(gpus, first)
    if len(named) == 1:
        return f"{value!r} names a GPU twice"
    if named:
        return f"{first!r} fits {len(named)} of them, {' and '.join(gpu.uuid for gpu in named)}"
    if first.lstrip("-").isdecimal():
        return f"it says {first!r}, and they are numbered {_numbers(gpus)}"
    if first.startswith(("GPU-", "MIG-")):
        what = "GPU" if first.startswith("GPU-") else "MIG slice"
        return f"no {what} here has a UUID that begins with {first!r}"
    return f"{first!r} is neither the number of one nor the beginning of its UUID (GPU-…, MIG-…)"


def _numbers(gpus: Sequence[Gpu]) -> str:
    return ", ".join(str(gpu.index) for gpu in gpus)
