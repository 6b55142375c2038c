"""`flops.json`: the training steps that a study's claims on compute had counted.

What this leaves out: the counting itself, which needs the ML libraries (`worker/flops`).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.claim_spec import ComputeClaim
from harness.compute import ComputeRatio
from harness.frozen import Frozen
from harness.samples import FORMAT
from harness.spec import Matrix
from harness.store import Store, read_model

FILE = "flops.json"
TOKENS = 1024  # of the sequence that is counted: attention's share grows with it


class CountedSteps(Frozen):
    """What was counted: LoRA's training step over the full one, by model and rank."""

    format: int = FORMAT
    ratios: tuple[ComputeRatio, ...]


def read_counted(store: Store) -> tuple[ComputeRatio, ...]:
    """Read what was counted; nothing if nothing was.

    Raises: StudyError if it is there and can't be read.
    """
    path = store.root / FILE
    return read_model(path, CountedSteps).ratios if path.is_file() else ()


def write_counted(store: Store, ratios: Sequence[ComputeRatio]) -> None:
    """Write what was counted."""
    counted = CountedSteps(ratios=tuple(ratios))
    store.write_json(store.root / FILE, counted.model_dump(mode="json"))


def to_count(matrix: Matrix, counted: Sequence[ComputeRatio]) -> tuple[list[str], list[int]]:
    """Return the models and ranks of a matrix's claims, if any of them is not counted yet."""
    claims = [c for c in matrix.claims.values() if isinstance(c, ComputeClaim)]
    wanted = {(model, rank) for c in claims for model in c.models for rank in c.ranks}
    if matrix.scale == "rehearsal" or wanted <= {(r.model, r.rank) for r in counted}:
        return [], []
    models = dict.fromkeys(model for c in claims for model in c.models)
    return list(models), sorted({rank for _, rank in wanted})
