"""Supervised fine-tuning of one run with TRL's SFTTrainer, judged by held-out NLL.

The held-out rows are tokenised by the trainer itself, so template, masking and truncation are the
ones that training uses. The NLL pools tokens: the sum over all completion tokens of all rows, divided
by their number. (The trainer's own eval_loss averages batches of unequal token counts.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from harness.launch import Launch
from harness.record import EvaluationPoint, Result, Split
from harness.spec import RunSpec
from harness.worker.callbacks import StepJournal, finite
from harness.worker.methods import peft_config
from harness.worker.progress import Progress
from harness.worker.session import autocast, build, configure, open_session, train


def train_sft(spec: RunSpec, launch: Launch, attempt: Path, progress: Progress) -> Result:
    """Load, evaluate, train, evaluate."""
    session = open_session(spec, launch, attempt, progress)
    config = configure(session, SFTConfig)
    held_out = {"validation": session.splits.validation, "test": session.splits.test}

    def make(model: PreTrainedModel, arguments: SFTConfig) -> SFTTrainer:
        return SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=session.splits.train,
            eval_dataset={k: v for k, v in held_out.items() if len(v)},
            processing_class=session.loaded.tokenizer,
            peft_config=peft_config(spec, model),
        )

    trainer = build(session, lambda: make(session.loaded.model, config))
    per_step = session.rank.count * (
        config.per_device_train_batch_size * config.gradient_accumulation_steps
    )
    return train(
        session,
        trainer,
        StepJournal(session.journal, progress, per_step),
        lambda split, step: held_out_nll(
            trainer, split, step, spec.evaluation.batch_size, session.journal.beat
        ),
        make,
    )


@torch.no_grad()
def held_out_nll(
    trainer: SFTTrainer,
    split: Split,
    step: int,
    batch_size: int,
    beat: Callable[[], object] = lambda: None,
) -> EvaluationPoint:
    """Measure the NLL of a split in nats per completion token; `beat` is called after every batch.

    Rows are batched by hand: a DataLoader would draw from the global random generator, and an
    evaluation must leave training's random numbers as they were.
    """
    begin = time.monotonic()
    rows = trainer.eval_dataset[split]
    model = trainer.model
    was_training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    for first in range(0, len(rows), batch_size):
        examples = [rows[i] for i in range(first, min(first + batch_size, len(rows)))]
        batch = trainer.data_collator(examples)
        labels = batch.pop("labels")[:, 1:].to(model.device)  # (B, T-1)
        inputs = {
            k: batch[k].to(model.device)
            for k in ("input_ids", "attention_mask", "position_ids")
            if k in batch
        }
        with autocast(trainer):
            logits = model(**inputs).logits[:, :-1]  # (B, T-1, V)
        kept = labels != -100
        nats += cross_entropy(logits[kept].float(), labels[kept], reduction="sum").item()
        tokens += int(kept.sum())
        beat()
    model.train(was_training)
    return EvaluationPoint(
        step=step,
        split=split,
        metric="nll",
        value=finite(nats / tokens) if tokens else None,
        rows=len(rows),
        tokens=tokens,
        wall_s=time.monotonic() - begin,
    )
