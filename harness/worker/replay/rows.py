"""What becomes of rows on their way into a batch: packing, cutting, collation, SFTTrainer's preparation.

SFTTrainer is built on the corpus's pairs in the settings in which rows get lost or labels move, and never
trains: what its collator makes of the rows it prepared is kept, and the loss of that batch with its
gradient (`loss/sft`). Columns of the prepared rows are left out: releases keep labels in different ones.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import ConfigError
from harness.worker.models import locate
from harness.worker.replay.chats import MODEL
from harness.worker.replay.corpus import Corpus
from harness.worker.replay.items import Items
from harness.worker.trl_versions import build_config, pairing_problem

LIMIT = 64  # tokens; `exactly-fits` has as many, `one-too-long` one more
BATCH = ("input_ids", "labels", "attention_mask", "position_ids")  # in every release
IGNORED = -100  # label of a token that is not trained on
UNEVEN = [[11, 12, 13, 14, 15], [21, 22], [31, 32, 33], [41], [51, 52, 53, 54, 55, 56, 57, 58, 59]]
# The same strategy has had two names.
STRATEGIES = {"bfd": ("bfd",), "split": ("bfd_split", "bfd-requeue"), "wrapped": ("wrapped",)}


@dataclass(frozen=True)
class Case:
    """A way to prepare rows for supervised fine-tuning."""

    arguments: dict[str, Any]
    rows: Sequence[dict[str, Any]] = field(default=())


def replay_rows(items: Items, corpus: Corpus) -> None:
    """Pack, cut, collate and prepare."""
    _pack(items)
    _collate(items)
    problem = pairing_problem("sft")
    if problem:
        items.notes.append(f"SFTTrainer was not built: {problem}.")
        return
    for name, case in _cases(corpus).items():
        _prepare(items, name, case)


def _pack(items: Items) -> None:
    masks = [[1] * len(ids) for ids in UNEVEN]
    rows = {"input_ids": UNEVEN, "attention_mask": masks}
    if pack := items.find("trl.data_utils:pack_dataset"):
        for kind, names in STRATEGIES.items():
            for length in (4, 6):
                for name in names:
                    try:
                        packed = pack(Dataset.from_dict(rows), seq_length=length, strategy=name)
                    except ValueError:  # a strategy that this release does not know by that name
                        continue
                    items.put(f"data/pack_dataset/{kind}-{length}", packed[:])
                    break
    if cut := items.find("trl.data_utils:truncate_dataset"):
        items.call("data/truncate_dataset/3", lambda: cut(Dataset.from_dict(rows), max_length=3)[:])


def _collate(items: Items) -> None:
    kind = items.find("trl.trainer.sft_trainer:DataCollatorForLanguageModeling")
    if kind is None:
        return
    plain = [{"input_ids": ids} for ids in UNEVEN]
    packed = [
        {"input_ids": [11, 12, 13, 21, 22], "seq_lengths": [3, 2]},
        {"input_ids": [31, 32, 33, 34], "seq_lengths": [1, 3]},
    ]
    for name, rows, options in (
        ("padded", plain, {}),
        ("multiple-of-8", plain, {"pad_to_multiple_of": 8}),
        ("padding-free", plain, {"padding_free": True}),
        ("packed", packed, {"padding_free": True}),
    ):
        items.call(
            f"data/collator/{name}",
            lambda rows=rows, options=options: _common(
                kind(pad_token_id=0, **options)(copy.deepcopy(rows))
            ),
        )


def _common(batch: Any) -> dict[str, Any]:
    return {name: batch[name] for name in BATCH if name in batch}


def _cases(corpus: Corpus) -> dict[str, Case]:
    pairs = [dict(pair) for pair in corpus.pairs.values()]
    # Templates refuse some conversations, and which is `chats`'s question.
    names = ("answered", "system", "multi-turn", "thought", "spaces-around", "empty-answer", "long")
    chats = [{"messages": corpus.chats[name]} for name in names]
    texts = [{"text": f"{i}+{i}={i + i}" * (i + 1)} for i in range(9)]
    return {
        "completion-only": Case({}, pairs),
        "whole-pair": Case({"completion_only_loss": False}, pairs),
        "conversation": Case({}, chats),
        "assistant-only": Case({"assistant_only_loss": True}, chats),
        "text": Case({}, texts),
        "packed": Case({"packing": True, "packing_strategy": "bfd"}, pairs),
        "packed-assistant-only": Case({"packing": True, "assistant_only_loss": True}, chats),
        "wrapped": Case({"packing": True, "packing_strategy": "wrapped"}, pairs),
        "short-limit": Case({"max_length": 12}, pairs),
        "dft": Case({"loss_type": "dft"}, pairs),
    }


def _prepare(items: Items, name: str, case: Case) -> None:
    """Build a trainer, and keep what its rows become and what their loss is."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            trainer = _trainer(case, folder)
            batch = trainer.data_collator(list(trainer.train_dataset))
        except ConfigError as error:  # an argument that this release does not have
            items.notes.append(f"data/sft/{name} was left out: {error.problems[0]}")
            return
        except Exception as error:  # noqa: BLE001 - whatever a release raises on these rows
            items.put(f"data/sft/{name}/outcome", f"raises {type(error).__name__}")
            items.notes.append(f"data/sft/{name} raises {type(error).__name__}: {error}"[:300])
            return
        items.put(f"data/sft/{name}/outcome", "prepared")
        items.put(f"data/sft/{name}/rows", len(trainer.train_dataset))
        items.put(f"data/sft/{name}/trained_tokens", int((batch["labels"] != IGNORED).sum()))
        for column, value in _common(batch).items():
            items.put(f"data/sft/{name}/{column}", value.tolist())
        items.call(f"loss/sft/{name}/loss", lambda: _loss(trainer, dict(batch)))
        items.call(f"loss/sft/{name}/gradient", lambda: _gradient(trainer.model))


def _trainer(case: Case, folder: str) -> Any:
    from trl import SFTConfig, SFTTrainer

    arguments = {
        "output_dir": folder,
        "max_length": LIMIT,
        "loss_type": "nll",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
        **case.arguments,
    }
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            locate(MODEL), dtype=torch.float32, use_safetensors=True
        ),
        args=build_config("sft", SFTConfig, arguments).config,
        train_dataset=Dataset.from_list(copy.deepcopy(list(case.rows))),
        processing_class=AutoTokenizer.from_pretrained(locate(MODEL)),
    )


def _loss(trainer: Any, batch: dict[str, Any]) -> float:
    """Return the loss of a batch as TRL computes it, having gone back through it."""
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach())


def _gradient(model: torch.nn.Module) -> float:
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())
