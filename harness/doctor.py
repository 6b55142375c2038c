"""Is this machine fit for a matrix? Checks that cost seconds, before hours are spent."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from harness.errors import MachineError
from harness.matrix import load_matrix
from harness.measure.gpus import list_gpus, visible_gpus
from harness.spec import Matrix

GIB = 2**30
NEEDED = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "math-verify")
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
    return [_packages(), _cores(), _memory(), _disk(), _gpu(matrix), *_models(matrix)]


def _packages() -> Check:
    found, missing = [], []
    for name in NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "problem", f"missing {', '.join(missing)}; run `make setup`")
    return Check("packages", "ok", ", ".join(found))


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    return Check("cpu", "ok", f"{cores} usable cores, one worker each unless --jobs says otherwise")


def _memory() -> Check:
    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < MEMORY_BYTES:
        return Check("memory", "problem", f"{text}; a worker of the CPU matrices needs up to 4 GiB")
    return Check("memory", "ok", text)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / GIB:.1f} GiB free where studies are written"
    if free < DISK_BYTES:
        return Check("disk", "problem", f"{text}; expected at least {DISK_BYTES / GIB:.0f} GiB")
    return Check("disk", "ok", text)


def _gpu(matrix: Matrix) -> Check:
    found = list_gpus()
    gpus = visible_gpus(found.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
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


def _models(matrix: Matrix) -> list[Check]:
    """Say where each model comes from; SmolLM2 needs its cache or the Hub."""
    checks = []
    for source in sorted({pair.model.source for pair in matrix.pairs.values()}):
        if source.startswith("embedded:"):
            checks.append(Check("model", "ok", f"{source} ships with the harness"))
        elif source == "smollm2":
            checks.append(
                Check(
                    "model",
                    "note",
                    "smollm2: from the cache that `make smollm2` fills, else the Hub",
                )
            )
        else:
            checks.append(Check("model", "note", f"{source}: from the Hub, or a local folder"))
    return checks
