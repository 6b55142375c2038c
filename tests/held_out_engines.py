"""Judges the micro model by both engines in one process, for tests/test_worker_vllm.py.

Arguments: a matrix, and a folder for found.json. A process of its own: the tests' own does not import vLLM.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from harness.matrix import expand, load_matrix, select
from harness.worker.data import load_splits
from harness.worker.generation import build_with_engine, prepare_engine
from harness.worker.held_out import HeldOutReward
from harness.worker.models import load_model
from harness.worker.rewards import reward_function

matrix, folder = sys.argv[1:]
spec = select(expand(load_matrix(matrix).matrix), ["full"])[0]
loaded = load_model(spec.model, {})
splits = load_splits(spec.task, spec.dataset, {}, loaded.tokenizer)
config = GRPOConfig(output_dir=folder, use_cpu=True, **spec.trainer)
prepare_engine(config, spec, is_cuda=False)
reward = reward_function("reasoning_accuracy")
trainer = build_with_engine(
    lambda: GRPOTrainer(
        model=loaded.model,
        reward_funcs=reward,
        args=config,
        train_dataset=splits.train,
        processing_class=loaded.tokenizer,
    ),
    config,
    spec.seed,
)
without = SimpleNamespace(
    model=trainer.model, processing_class=trainer.processing_class, args=trainer.args
)


def judge(by: Any, seed: int) -> dict[str, Any]:
    texts: list[str] = []
    beats: list[int] = []

    def scored(completions: Any, **columns: Any) -> list[float | None]:
        texts.extend(c[0]["content"] for c in completions)
        return reward(completions=completions, **columns)

    before = torch.get_rng_state()
    evaluation = spec.evaluation.model_copy(update={"samples_per_prompt": 4})
    held_out = HeldOutReward(by, scored, evaluation, seed, beat=lambda: beats.append(1))
    value = held_out.measure(splits.test, "test", 0).value
    return {
        "value": value,
        "texts": texts,
        "beats": len(beats),
        "moved_training": not torch.equal(before, torch.get_rng_state()),
        "notes": held_out.notes(),
    }


found = {"transformers": judge(without, 0), "vllm": judge(trainer, 0)}
torch.rand(7)  # training's random numbers go on; an evaluation's do not depend on them
found["again"] = judge(trainer, 0)
found["other seed"] = judge(trainer, 1)
with torch.no_grad():
    for weight in trainer.model.parameters():
        weight.mul_(0.5)
found["other weights"] = judge(trainer, 0)
(Path(folder) / "found.json").write_text(json.dumps(found))
