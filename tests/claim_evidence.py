"""Hand-made studies for the rules of claims: a matrix of named arms, and what each run came to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.claim_checks import NATS
from harness.claim_spec import Claim
from harness.record import Status
from harness.selection import GridPoint, at_an_edge, choose, waiting
from harness.settings import DatasetSpec, Lora, Model
from harness.spec import Arm, Matrix, Pair, Selection
from harness.summary import RunSummary
from harness.verdicts.evidence import Evidence
from harness.verdicts.judge import judge_claims
from harness.verdicts.model import ClaimVerdict

BASE = 2.0  # the untrained model's NLL
GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# What every claim says for people.
WORDS = {
    "sentence": "A sentence.",
    "estimand": "a quantity",
    "margin_reason": "a test",
    "speaks_for": "a toy",
}
# NLL of full fine-tuning by seed: what other arms are given as differences to.
FULL = (1.00, 1.05, 0.98)
Value = float | str | None  # a final value, a status, or a run that was not started


def claim(model: type, unit: str = NATS, **fields: Any) -> Claim:
    """A claim of a rule, with words that decide nothing."""
    (rule,) = model.model_fields["rule"].annotation.__args__
    return model(**{**WORDS, "rule": rule, "unit": unit, **fields})


def matrix_of(
    claims: Mapping[str, Claim],
    arms: Sequence[str] = ("full", "r1", "r4", "r16"),
    pairs: Sequence[str] = ("p",),
    **changes: Any,
) -> Matrix:
    """A matrix whose arms are called 'full', or after their rank, 'r4' or 'r4-twin'; `swept` have grids.

    `task`, `swept`, `scale` and `selection` may be given besides.
    """
    task, swept = changes.get("task", "sft"), changes.get("swept", ())
    built = {name: _arm(name, GRID if name in swept else ()) for name in arms}
    pair = Pair(
        task=task,
        model=Model(source="embedded:micro-llama"),
        dataset=DatasetSpec(name="micro-steps", train_rows=8, validation_rows=4, test_rows=4),
        arms=built,
        margin=0.02,
        margin_reason="a test",
    )
    seeds = changes.get("selection", (100, 101, 102) if swept else ())
    return Matrix(
        format=1,
        name="toy",
        title="A toy",
        scale=changes.get("scale", "small"),
        seeds=(0, 1, 2),
        selection=Selection(seeds=seeds) if seeds else None,
        pairs=dict.fromkeys(pairs, pair),
        claims=dict(claims),
    )


def study(
    matrix: Matrix,
    values: Mapping[str, Sequence[Value]],
    peaks: Mapping[str, Sequence[int | None]] | None = None,
    **more: Any,
) -> Evidence:
    """What a study of the matrix came to.

    values: 'pair.arm' or 'arm' of the pair p → by seed. peaks: bytes of peak memory in training.
    more: fields of Evidence; of `points` alone, choices, edges and what waits follow.
    """
    cells = {}
    for cell, found in values.items():
        pair, arm = _split(cell)
        for seed, value in enumerate(found):
            peak = (peaks or {}).get(cell, [None] * len(found))[seed]
            cells[pair, arm, seed] = _cell(matrix.pairs[pair].task, value, seed, peak)
    if "points" in more:
        more.setdefault("waiting", waiting(matrix, more["points"]))
        more.setdefault("edges", at_an_edge(matrix, choose(matrix, more["points"])))
    return Evidence(matrix=matrix, cells=cells, **more)


def verdict(evidence: Evidence) -> ClaimVerdict:
    """The verdict on a matrix's only claim."""
    (found,) = judge_claims(evidence)
    return found


def worse(*differences: float) -> list[float]:
    """NLL by seed of an arm that is so much worse than FULL."""
    return [a + d for a, d in zip(FULL, differences, strict=True)]


def parabola(
    arm: str, best: Sequence[float], rates: Sequence[float] = GRID, pair: str = "p"
) -> list[GridPoint]:
    """An arm's grid whose loss is a parabola over the rate's decades, lowest at a seed's best rate."""
    return [
        GridPoint(pair, arm, rate, 100 + i, Status.OK, 1 + math.log10(rate / at) ** 2)
        for i, at in enumerate(best)
        for rate in rates
    ]


def _arm(name: str, rates: tuple[float, ...]) -> Arm:
    found = re.match(r"r(\d+)", name)
    trainer = {} if rates else {"learning_rate": 1e-3}
    if found is None:
        return Arm(method="full", rates=rates, trainer=trainer)
    return Arm(method="lora", lora=Lora(r=int(found[1])), rates=rates, trainer=trainer)


def _split(cell: str) -> tuple[str, str]:
    pair, _, arm = cell.rpartition(".")
    return pair or "p", arm


def _cell(
    task: str, value: Value, seed: int, peak: int | None
) -> tuple[Status | None, RunSummary | None]:
    if value is None:
        return None, None
    if isinstance(value, str) and value != "no reward":
        return Status(value), None
    final = value if isinstance(value, float) else 0.5
    return Status.OK, RunSummary(
        metric="nll" if task == "sft" else "reward",
        base_value=BASE if task == "sft" else 0.1,
        final_value=final,
        train_reward_last=None if task == "sft" or value == "no reward" else final,
        steps=10,
        steps_excluded=0,
        step_s_median=0.1,
        trained_tokens_per_s=None,
        generated_tokens_per_s=None,
        samples_per_s=None,
        model_flops_per_step=None,
        wall_s=1.0 + seed / 7 + final,
        peak_bytes={} if peak is None else {"nvml-device": {"training": peak}},
        baseline_bytes={},
    )
