"""Reinforcement learning of one run with TRL's GRPOTrainer, judged by held-out reward.

The held-out reward is the mean over completions sampled from held-out prompts, with the reward
function that trains. Its random numbers are its own (seeded by the run's seed), so that evaluating
leaves training's as they were.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from harness.launch import Launch
from harness.record import EvaluationPoint, Result, Split
from harness.spec import Evaluation, RunSpec
from harness.worker.callbacks import StepJournal
from harness.worker.generation import (
    build_with_engine,
    describe_generation,
    engine_notes,
    mark_phases,
    prepare_engine,
)
from harness.worker.methods import peft_config
from harness.worker.progress import Progress
from harness.worker.reward_counts import CountedReward
from harness.worker.rewards import Reward, first_turn_only, reward_function, with_spread
from harness.worker.session import autocast, build, configure, open_session, train
from harness.worker.templates import NEXT_TURN


def _is_toy(spec: RunSpec) -> bool:
    return spec.model.source.startswith("toy:")


def train_grpo(spec: RunSpec, launch: Launch, attempt: Path, progress: Progress) -> Result:
    """Load, evaluate, train, evaluate."""
    session = open_session(spec, launch, attempt, progress)
    config = configure(session, GRPOConfig)
    reward = reward_function(spec.reward or "reasoning_accuracy")
    if spec.model.chat_template is not None:
        reward = first_turn_only(reward, NEXT_TURN[spec.model.chat_template])
    counted = CountedReward(with_spread(reward) if _is_toy(spec) else reward)

    def make() -> GRPOTrainer:
        progress.notes += prepare_engine(config, spec, is_cuda=bool(launch.gpus))
        return GRPOTrainer(
            model=session.loaded.model,
            reward_funcs=counted,
            args=config,
            train_dataset=session.splits.train,
            processing_class=session.loaded.tokenizer,
            peft_config=peft_config(spec, session.loaded.model),
        )

    trainer = build(session, lambda: build_with_engine(make, config, spec.seed))
    progress.generation = describe_generation(trainer)
    progress.notes += engine_notes(trainer, spec)
    mark_phases(trainer, session.journal)
    is_sharded = launch.parallel is not None and launch.parallel.strategy != "ddp"
    held_out = HeldOutReward(trainer, reward, spec.evaluation, spec.seed, is_sharded)
    rows = {"validation": session.splits.validation, "test": session.splits.test}
    per_step = session.rank.count * (
        config.per_device_train_batch_size * config.gradient_accumulation_steps
    )
    return train(
        session,
        trainer,
        StepJournal(
            session.journal,
            progress,
            per_step,
            config.generation_batch_size,
            lambda: counted.take().shares(),
        ),
        lambda split, step: held_out.measure(rows[split], split, step),
    )


class HeldOutReward:
    """Samples completions of held-out prompts and scores them."""

    def __init__(
        self,
        trainer: GRPOTrainer,
        reward: Reward,
        evaluation: Evaluation,
        seed: int,
        is_sharded: bool = False,
    ) -> None:
        self._trainer = trainer
        self._tokenizer = trainer.processing_class
        self._reward = CountedReward(reward)
        self._evaluation = evaluation
        self._seed = seed
        self._is_sharded = is_sharded

    @torch.no_grad()
    def measure(self, rows: Dataset, split: Split, step: int) -> EvaluationPoint:
        """Return the mean reward over rows × samples_per_prompt completions."""
        begin = time.monotonic()
        model = self._trainer.model
        was_training = model.training
        model.eval()
        examples = [rows[i] for i in range(len(rows))] * self._evaluation.samples_per_prompt
        size = self._evaluation.batch_size
        devices = [model.device] if model.device.type == "cuda" else []
        scores: list[float | None] = []
        with torch.random.fork_rng(devices=devices), autocast(self._trainer):
            torch.manual_seed(self._seed)
            for first in range(0, len(examples), size):
                scores += self._score(model, examples[first : first + size])
        model.train(was_training)
        known = [s for s in scores if s is not None]
        counts = self._reward.take()
        return EvaluationPoint(
            step=step,
            split=split,
            metric="reward",
            value=sum(known) / len(known) if known else None,
            rows=len(rows),
            unscored=len(scores) - len(known),
            completions=counts.completions,
            unparseable=counts.unparseable,
            unclosed=counts.unclosed,
            wall_s=time.monotonic() - begin,
        )

    def _score(self, model: torch.nn.Module, examples: list[dict[str, Any]]) -> list[float | None]:
        prompts = [
            self._tokenizer.apply_chat_template(
                e["prompt"], tokenize=False, add_generation_prompt=True
            )
            for e in examples
        ]
        batch = self._tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(model.device)
        args = self._trainer.args
        output = model.generate(
            **batch,
            do_sample=True,
            temperature=self._evaluation.temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=args.max_completion_length,
            pad_token_id=self._tokenizer.pad_token_id,
            # No process may stop before the others: each forward pass gathers what all of them hold.
            synced_gpus=self._is_sharded,
        )  # (B, P + C)
        texts = self._tokenizer.batch_decode(
            output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {k: [e[k] for e in examples] for k in examples[0] if k != "prompt"}
        return self._reward(completions=completions, **columns)
