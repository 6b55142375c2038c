"""A synthetic study whose matrix claims something by every rule, grids and controls included.

What a run's held-out metric is stands in `offset`, so that a test knows what each claim must come to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.claim_checks import check_claims
from harness.compute import ComputeRatio
from harness.spec import Matrix, RunSpec
from harness.view import StudyView
from tests.study_factory import Plan, build_study
from tests.study_parts import STEPS

NATS = "nats per completion token"
RATES = {"full": [1e-4, 3e-4, 1e-3, 3e-3], "lora": [1e-3, 3e-3, 1e-2, 3e-2]}
BEST = {"full": 4.2e-4, "lora": 4.4e-3}
BATCHES = (4, 32, 256)
LLAMA = "meta-llama/Llama-3.1-8B"
SMALL = "Qwen/Qwen3-0.6B"
SHORTFALL = {"lora-r1": 0.11, "lora-r16": 0.035, "lora-r256": 0.0, "starved": 0.3}


def lora(rank: int, targets: str = "all-linear", **more: Any) -> dict[str, Any]:
    """Describe a LoRA arm; with a grid unless it says otherwise."""
    swept = {} if more else {"rates": RATES["lora"]}
    return {"method": "lora", "lora": {"r": rank, "target_modules": targets}, **swept, **more}


def offset(spec: RunSpec, step: int) -> float:
    """Say how much more a run's metric has than the plain curve: by rank, layers, batch and rate."""
    done = step / STEPS[spec.task]
    luck = 0.004 * math.sin(spec.training_seed * 7.0 + len(spec.arm))
    more = SHORTFALL.get(spec.arm, 0.0) if spec.pair == "sft-rank" else 0.0
    if spec.arm == "lora-attn":
        more = 0.06
    if spec.pair.startswith("sft-batch") and spec.method == "lora":
        more = 0.01 * math.log2(spec.trainer["per_device_train_batch_size"])  # type: ignore[arg-type]
    if spec.stage == "select":
        away = math.log10(float(str(spec.trainer["learning_rate"])) / BEST[spec.method])
        more += 0.25 * (away + luck * 8) ** 2
    return luck + more * done


def claims_plan(**changed: Any) -> Plan:
    """Plan five seeds of everything, sampled seldom."""
    return replace(Plan(seeds=(0, 1, 2, 3, 4), hz=2.0, offset=offset), **changed)


def claims_study(plan: Plan | None = None, matrix: Matrix | None = None) -> StudyView:
    """Build the study, its compute counted."""
    study = build_study(plan or claims_plan(), matrix or claims_matrix())
    return replace(study, flops=counted())


def counted() -> tuple[ComputeRatio, ...]:
    """Give what `harness flops` counts for two models, three ranks each."""
    rows = {LLAMA: ((1, 0.666), (32, 0.677), (256, 0.761)), SMALL: ((1, 0.665), (32, 0.709))}
    return tuple(
        ComputeRatio(
            model=model,
            rank=rank,
            tokens=1024,
            linear=linear,
            closed_form=linear + 0.002,
            whole=linear + 0.01,
            attention_share=0.035,
        )
        for model, found in rows.items()
        for rank, linear in found
    )


def claims_matrix(words: str = "", only: Sequence[str] = (), **changed: Any) -> Matrix:
    """Build the matrix; `words` ends every sentence of a claim, `changed` replaces claims.

    only: the claims to keep, and with them the pairs they are about; all of them if empty.
    """
    common = {
        "model": {"source": "embedded:micro-llama"},
        "dataset": {"name": "micro-steps", "train_rows": 9, "validation_rows": 9, "test_rows": 9},
        "evaluation": {"every_steps": 10},
        "margin_reason": "a tenth of what training gains",
    }
    sft = {"task": "sft", "margin": 0.02, **common}
    full = {"method": "full", "trainer": {"learning_rate": 1e-4}}
    fixed = {"trainer": {"learning_rate": 1e-3}}
    pairs: dict[str, Any] = {"sft-rank": {**sft, "arms": _rank_arms()}}
    for size in BATCHES:
        pairs[f"sft-batch-{size}"] = {
            **sft,
            "trainer": {"per_device_train_batch_size": size},
            "arms": {"full": full, "lora-r16": lora(16, **fixed), "lora-r64": lora(64, **fixed)},
        }
    pairs["rl"] = {
        "task": "grpo",
        "margin": 0.03,
        "reward": "reasoning_accuracy",
        **common,
        "evaluation": {"every_steps": 50},
        "arms": {"full": full, **{f"lora-r{r}": lora(r, **fixed) for r in (1, 8, 32)}},
    }
    claims = {**_claims(words), **changed}
    if only:
        claims = {name: claims[name] for name in only}
        about = json.dumps(claims)
        pairs = {name: pair for name, pair in pairs.items() if f'"{name}' in about}
    return checked(
        {
            "format": 1,
            "name": "cpu",
            "title": "Claims on a micro model",
            "scale": "embedded",
            "seeds": [0, 1, 2, 3, 4],
            "selection": {"seeds": [100, 101, 102]},
            "pairs": pairs,
            "claims": claims,
        }
    )


def checked(data: dict[str, Any]) -> Matrix:
    """Parse a matrix and refuse claims that can't be judged."""
    matrix = Matrix.model_validate_json(json.dumps(data))
    problems = check_claims(matrix)
    assert not problems, problems
    return matrix


def _rank_arms() -> dict[str, Any]:
    return {
        "full": {"method": "full", "rates": RATES["full"]},
        "full-again": {"method": "full", "rate_of": "full", "seed_offset": 500},
        **{f"lora-r{rank}": lora(rank) for rank in (1, 16, 256)},
        "lora-attn": lora(38, "attention", rate_of="lora-r16"),
        "lora-mlp": lora(22, "mlp", rate_of="lora-r16"),
        "lora-all": lora(14, "all-linear", rate_of="lora-r16"),
        "starved": lora(4, trainer={"learning_rate": 1e-7}),
    }


def _claim(sentence: str, words: str, **more: Any) -> dict[str, Any]:
    return {
        "sentence": sentence + words,
        "page": "The adapter needs sufficient capacity" + words,
        "blog": "Results",
        "estimand": "held-out NLL, paired by seed" + words,
        "unit": NATS,
        "margin_reason": "a tenth of what training gains" + words,
        "speaks_for": "a micro model on synthetic steps" + words,
        **more,
    }


def _claims(words: str) -> dict[str, Any]:
    match: dict[str, Any] = {"rule": "match", "pair": "sft-rank", "margin": 0.02}
    rank: dict[str, Any] = {"pair": "sft-rank", "margin": 0.02}
    told = {
        "match-r256": ("High-rank LoRA learns as well as full fine-tuning.", {**match, "arm": "lora-r256"}),
        "match-r16": ("LoRA of rank 16 learns as well as full fine-tuning.", {**match, "arm": "lora-r16"}),
        "match-rl": (
            "In reinforcement learning, LoRA matches full fine-tuning even at rank 1.",
            {"rule": "match", "pair": "rl", "arm": "lora-r1", "margin": 0.03, "unit": "reward"},
        ),
        "memory": (
            "LoRA uses significantly less memory than full fine-tuning.",
            {"rule": "memory", "comparisons": ["sft-rank.lora-r256", "rl.lora-r1"], "unit": "ratio"},
        ),
        "compute": (
            "LoRA takes only about 67 % of the compute of full fine-tuning.",
            {
                "rule": "compute", "models": [LLAMA, SMALL], "ranks": [1, 32], "ratio": 0.667,
                "margin": 0.02, "comparisons": ["sft-rank.lora-r256"], "unit": "ratio",
            },
        ),
        "layers": (
            "LoRA performs better on all weight matrices; attention alone underperforms even at a higher "
            "rank that matches parameters.",
            {"rule": "layers", "attention": "lora-attn", "mlp": "lora-mlp", "every": "lora-all", **rank},
        ),
        "capacity": (
            "For datasets that exceed its capacity, LoRA underperforms full fine-tuning.",
            {"rule": "capacity", "arms": ["lora-r1", "lora-r16", "lora-r256"], **rank},
        ),
        "rates": (
            "LoRA's best learning rate is ten times that of full fine-tuning, whatever the rank.",
            {
                "rule": "rate-ratio", "pair": "sft-rank", "arm": "lora-r256",
                "ranks": ["lora-r1", "lora-r16", "lora-r256"], "unit": "ratio",
            },
        ),
        "batch": (
            "In some scenarios, LoRA is less tolerant of large batch sizes than full fine-tuning.",
            {
                "rule": "batch", "pairs": [f"sft-batch-{size}" for size in BATCHES],
                "arm": "lora-r16", "raised": "lora-r64", "margin": 0.02,
            },
        ),
        "rank-free": (
            "Reinforcement learning needs little capacity: any rank will do.",
            {
                "rule": "rank-free", "pair": "rl", "arms": ["lora-r1", "lora-r8", "lora-r32"],
                "margin": 0.03, "unit": "reward",
            },
        ),
        "control-starved": (
            "A LoRA that hardly moves learns as well as full fine-tuning.",
            {**match, "arm": "starved", "role": "positive-control"},
        ),
        "control-again": (
            "Full fine-tuning with other seeds learns as well as full fine-tuning.",
            {**match, "arm": "full-again", "role": "negative-control"},
        ),
    }  # fmt: skip
    return {name: _claim(sentence, words, **more) for name, (sentence, more) in told.items()}
