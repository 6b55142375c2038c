"""Matrices and GPUs as `harness doctor` sees them: what its tests pass in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from harness.doctor_needs import Needs, needs_of
from harness.measure.gpus import Gpu, GpuList
from harness.plan import Request
from harness.planning import look_around
from tests.plan_matrix import CARD

GIB = 2**30
# What else runs on a machine decides these.
OF_ROOM = {"memory", "results", "Hub cache", "harness cache", "temporary files", "disk"}
H100 = Gpu(
    index=0,
    uuid="GPU-0",
    name="NVIDIA H100 80GB HBM3",
    total_bytes=81559 * 2**20,
    driver_version="580.65.06",
    cuda_driver_version="13.0",
    is_mig_enabled=False,
    mig_uuids=(),
    processes=(),
    used_bytes=0,
    free_bytes=81559 * 2**20,
    compute_capability=(9, 0),
    compute_mode="default",
    is_ecc_enabled=True,
    ecc_uncorrected=0,
)


def gpus(count: int) -> tuple[Gpu, ...]:
    """H100s, by their index."""
    return tuple(replace(H100, index=i, uuid=f"GPU-{i}") for i in range(count))


def exit_code_for(rows: Sequence[dict[str, Any]]) -> int:
    """Return what the command ends with on this machine, which has no problem but one of room."""
    problems = {row["name"] for row in rows if row["word"] == "problem"}
    assert problems <= OF_ROOM
    return 7 if problems else 0


@cache
def needs(
    name: str = "cpu",
    here: int | None = None,
    cached: tuple[str, ...] = (),
    has_token: bool = False,
    maps: tuple[tuple[str, str], ...] = (),
) -> Needs:
    """What a matrix needs on a machine with so many H100s; by default as many as it wants."""
    found = GpuList(gpus({"blog": 4}.get(name, 1) if here is None else here), None)
    ground, _ = look_around(CARD, None, found, None)
    size = 10**12  # whole, whatever the repository
    return needs_of(
        Request(name, maps=dict(maps)),
        ground,
        lambda _kind, repository: size if repository in cached else None,
        has_token=has_token,
    )


def changed(of: Needs, **matrix: Any) -> Needs:
    """The needs of a matrix that says something else."""
    return replace(of, matrix=of.matrix.model_copy(update=matrix))
