"""Reinforcement learning of one run with TRL's GRPOTrainer, judged by held-out reward.

The held-out reward (`held_out`) is the mean over completions sampled from held-out prompts, with the
reward function that trains.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from harness.launch import Launch
from harness.record import Result
from harness.spec import RunSpec
from harness.worker.callbacks import StepJournal
from harness.worker.generation import (
    build_with_engine,
    describe_generation,
    engine_notes,
    mark_phases,
    prepare_engine,
)
from harness.worker.held_out import HeldOutReward
from harness.worker.methods import peft_config
from harness.worker.progress import Progress
from harness.worker.reward_counts import CountedReward
from harness.worker.rewards import first_turn_only, reward_function, with_spread
from harness.worker.session import build, configure, open_session, train
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

    others = [reward_function(name) for name in spec.other_rewards]

    def make(model: PreTrainedModel, arguments: GRPOConfig) -> GRPOTrainer:
        return GRPOTrainer(
            model=model,
            reward_funcs=[counted, *others],
            args=arguments,
            train_dataset=session.splits.train,
            processing_class=session.loaded.tokenizer,
            peft_config=peft_config(spec, model),
        )

    def make_first() -> GRPOTrainer:
        progress.notes += prepare_engine(config, spec, is_cuda=bool(launch.gpus))
        return make(session.loaded.model, config)

    trainer = build(session, lambda: build_with_engine(make_first, config, spec.training_seed))
    progress.generation = describe_generation(trainer)
    progress.notes += engine_notes(trainer, spec)
    mark_phases(trainer, session.journal)
    is_sharded = launch.parallel is not None and launch.parallel.strategy != "ddp"
    held_out = HeldOutReward(
        trainer, reward, spec.evaluation, spec.training_seed, is_sharded, session.journal.beat
    )
    progress.notes += held_out.notes()
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
        make,
    )
