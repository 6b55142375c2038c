"""Is this machine fit for a matrix? Checks that cost seconds, before hours are spent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from harness.caches import smollm2_is_cached
from harness.errors import MachineError
from harness.matrix import load_matrix
from harness.measure.gpus import GpuList, list_gpus, visible_gpus
from harness.spec import Matrix

GIB = 2**30
NEEDED = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "math-verify")
REASONING_GYM = ("gsm_symbolic", "chain_sum")  # datasets that the package generates
STUDIES = Path("results")  # where `bench` writes unless told otherwise
DISK_BYTES = 2 * GIB  # a study of the shipped CPU matrices stays far below it
MEMORY_BYTES = 4 * GIB


@dataclass(frozen=True)
class Check:
    """One finding about the machine."""

    name: str
    word: Literal["ok", "note", "problem"]
    text: str

    @property
    def exit_code(self) -> int:
        """The exit code this finding asks for."""
        return MachineError.exit_code if self.word == "problem" else 0

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return asdict(self)


def examine(matrix_name: str) -> list[Check]:
    """Check the machine against a matrix.

    Raises: ConfigError if the matrix is unknown or wrong.
    """
    matrix = load_matrix(matrix_name).matrix
    has_smollm2 = smollm2_is_cached()
    memory = psutil.virtual_memory()
    return [
        check_packages(matrix, has_smollm2),
        check_cores(),
        check_memory(matrix, memory.available, memory.total),
        check_disk(STUDIES),
        check_gpu(matrix, list_gpus(), os.environ),
        *check_models(matrix, has_smollm2, os.environ),
    ]


def check_packages(
    matrix: Matrix, has_smollm2: bool, find_version: Callable[[str], str] = version
) -> Check:
    """Look for every package that the matrix needs; `gguf` only builds the cache of SmolLM2."""
    wanted = list(NEEDED)
    if any(pair.dataset.name in REASONING_GYM for pair in matrix.pairs.values()):
        wanted.append("reasoning-gym")
    if "smollm2" in _sources(matrix) and not has_smollm2:
        wanted.append("gguf")
    found, missing = [], []
    for name in wanted:
        try:
            found.append(f"{name} {find_version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "problem", f"missing {', '.join(missing)}; run `make setup`")
    return Check("packages", "ok", ", ".join(found))


def check_cores() -> Check:
    """Count the cores that workers may use."""
    cores = len(os.sched_getaffinity(0))
    return Check("cpu", "ok", f"{cores} usable cores, one worker each unless --jobs says otherwise")


def check_memory(matrix: Matrix, available_bytes: int, total_bytes: int) -> Check:
    """Compare free memory with what a worker takes; an embedded model takes little."""
    text = f"{available_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB free"
    if available_bytes < MEMORY_BYTES and matrix.scale != "embedded":
        return Check(
            "memory", "problem", f"{text}; a worker needs up to {MEMORY_BYTES / GIB:.0f} GiB"
        )
    return Check("memory", "ok", text)


def check_disk(folder: Path) -> Check:
    """Look at the disk that a study's folder is on, or will be on once it is made."""
    folder = folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / GIB:.1f} GiB free where studies are written"
    if free < DISK_BYTES:
        return Check("disk", "problem", f"{text}; expected at least {DISK_BYTES / GIB:.0f} GiB")
    return Check("disk", "ok", text)


def check_gpu(matrix: Matrix, found: GpuList, environ: Mapping[str, str]) -> Check:
    """List the GPUs that CUDA would show; without one, say whether the matrix needs one."""
    gpus = visible_gpus(found.gpus, environ.get("CUDA_VISIBLE_DEVICES"))
    if gpus:
        shown = ", ".join(
            f"{g.name} ({'?' if g.total_bytes is None else f'{g.total_bytes / GIB:.0f} GiB'}, {g.uuid})"
            for g in gpus
        )
        return Check("gpu", "ok", f"{shown}; driver {gpus[0].driver_version}")
    note = found.note or "CUDA_VISIBLE_DEVICES hides them"
    if matrix.device == "gpu":
        return Check("gpu", "problem", f"matrix {matrix.name!r} needs a CUDA GPU: {note}")
    return Check("gpu", "note", f"none ({note}); matrix {matrix.name!r} runs on the CPU")


def check_models(matrix: Matrix, has_smollm2: bool, environ: Mapping[str, str]) -> list[Check]:
    """Say where each model comes from."""
    checks = []
    for source in _sources(matrix):
        if source.startswith("embedded:"):
            checks.append(Check("model", "ok", f"{source} ships with the harness"))
        elif source == "smollm2":
            checks.append(_smollm2(has_smollm2, environ))
        else:
            checks.append(Check("model", "note", f"{source}: from the Hub, or a local folder"))
    return checks


def _smollm2(is_cached: bool, environ: Mapping[str, str]) -> Check:
    if is_cached:
        return Check("model", "ok", "smollm2 is in the cache")
    missing = "smollm2 is not in the cache: run `make smollm2` once (about 93 MB)"
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Check("model", "problem", f"{missing}; HF_HUB_OFFLINE keeps it from the Hub")
    return Check("model", "note", f"{missing}, or each run looks for it on the Hub")


def _sources(matrix: Matrix) -> list[str]:
    return sorted({pair.model.source for pair in matrix.pairs.values()})
