"""Facts about a built trainer that a release may change in silence: rows, optimizer, dropout, reference.

Each is a `Check`, named as in `rows/sha256`. They are read from the trainer as it stands, once it is built
or at its first step, and most have to be the same under another stack. What this leaves out: the arguments
themselves, which are in resolved_config.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer

from harness.probe import Check
from harness.worker.probe_batches import IGNORED, describe, digest
from harness.worker.probe_parameters import count_dtypes, trainable

ROWS = 8  # prepared rows whose lengths are listed
LONGEST = 160  # characters of a decoded text
# What transformers' sampling is made of: (class, its value, name of the check).
_PROCESSORS = (
    ("TemperatureLogitsWarper", "temperature", "temperature"),
    ("TopKLogitsWarper", "top_k", "top_k"),
    ("TopPLogitsWarper", "top_p", "top_p"),
    ("MinPLogitsWarper", "min_p", "min_p"),
    ("RepetitionPenaltyLogitsProcessor", "penalty", "repetition_penalty"),
)


def rows(trainer: Trainer) -> dict[str, Check]:
    """Say what the trainer made of the rows it trains on; nothing for GRPO, which tokenises later."""
    data = trainer.train_dataset
    if "input_ids" not in getattr(data, "column_names", ()):
        return {}
    tokenizer = trainer.processing_class
    batches = [trainer.data_collator([data[i]]) for i in range(len(data))]
    found = [describe(batch, tokenizer.pad_token_id) for batch in batches]
    trained = [b["input_ids"][b["labels"] != IGNORED].tolist() for b in batches]
    some = slice(0, ROWS)
    return {
        "rows/count": Check(value=len(data), what="rows that the trainer made of the dataset"),
        "rows/sha256": Check(
            value=digest(b.sha256 for b in found), what="hash of every prepared row with its labels"
        ),
        "rows/input_tokens": Check(
            value=tuple(b.counts["input_tokens"] for b in found[some]),
            what="tokens of the first prepared rows",
        ),
        "rows/trained_tokens": Check(
            value=tuple(b.counts["trained_tokens"] for b in found[some]),
            what="of them, tokens that carry loss",
        ),
        "rows/first_trained": Check(
            value=tuple(tokenizer.decode(ids[:2]) for ids in trained[some]),
            what="the first two trained tokens of these rows: where the loss begins",
        ),
        "rows/last_trained": Check(
            value=tuple(tokenizer.decode(ids[-2:]) for ids in trained[some]),
            what="the last two trained tokens of these rows: where it ends",
        ),
        "rows/end_trained": Check(
            value=sum(tokenizer.eos_token_id in ids for ids in trained),
            what="rows whose end-of-sequence token is trained",
        ),
    }


def parameters(model: torch.nn.Module) -> dict[str, Check]:
    """Say what is trained, and how an adapter is scaled."""
    names = [name.replace(".default", "") for name in trainable(model)]
    scales = sorted(
        {
            float(scale)
            for module in model.modules()
            for scale in _values(getattr(module, "scaling", None))
        }
    )
    checks = {
        "parameters/names": Check(value=digest(names), what="hash of the names of what is trained"),
        "parameters/tensors": Check(value=len(names), what="how many tensors are trained"),
    }
    if scales:
        checks["adapter/scaling"] = Check(
            value=tuple(scales),
            is_exact=False,
            what="factor of the adapter's update, over all layers",
        )
    return checks


def reference(trainer: Trainer) -> dict[str, Check]:
    """Say what the policy is held against (GRPO), and how far that is from the model at the start."""
    if not hasattr(trainer, "ref_model"):
        return {}
    model, beta = trainer.ref_model, getattr(trainer, "beta", 0.0)
    kind = "model" if model is not None else "adapter switched off" if beta else "none"
    checks = {"reference/kind": Check(value=kind, what="what the KL penalty is measured against")}
    if model is not None:
        dtypes = count_dtypes(dict(model.named_parameters()).values())
        checks["reference/dtypes"] = Check(
            value=tuple(f"{dtype} {count}" for dtype, count in dtypes.items()),
            what="precision of the reference's weights",
        )
        ours = dict(trainer.model.named_parameters())
        apart = max(
            (p.double() - ours[name].double()).abs().max().item()
            for name, p in model.named_parameters()
            if name in ours
        )
        checks["reference/same"] = Check(
            value=apart == 0.0, what="whether its weights are the model's before training"
        )
        checks["reference/trained"] = Check(
            value=len(trainable(model)), what="tensors of the reference that ask for a gradient"
        )
    return checks


def modes(model: torch.nn.Module) -> dict[str, Check]:
    """Say in which mode a model trains; to be called within a step."""
    active = [
        m.p for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p and m.training
    ]
    attention = getattr(model.config, "attention_dropout", 0.0) or 0.0
    return {
        "mode/training": Check(value=model.training, what="whether the model is in training mode"),
        "dropout/active": Check(value=len(active), what="dropout modules that drop something"),
        "dropout/share": Check(value=tuple(sorted(set(active))), what="the shares that they drop"),
        "dropout/attention": Check(value=float(attention), what="the configured attention dropout"),
    }


def optimizer(trainer: Trainer) -> dict[str, Check]:
    """Say which optimizer steps, over which groups of parameters, with which settings."""
    found = trainer.optimizer
    found = getattr(found, "optimizer", found)  # accelerate wraps it
    groups = [
        f"{len(group['params'])} tensors: "
        + ", ".join(
            f"{name} {group[name]}" for name in ("weight_decay", "betas", "eps") if name in group
        )
        for group in found.param_groups
    ]
    return {
        "optimizer/class": Check(value=type(found).__name__, what="class of the optimizer"),
        "optimizer/groups": Check(value=tuple(groups), what="its groups and their settings"),
    }


def first_batch(trainer: Trainer, inputs: Mapping[str, Any]) -> dict[str, Check]:
    """Decode the first sequence of the first micro-batch, for a reader."""
    tokenizer = trainer.processing_class
    names = ("prompt_ids", "completion_ids") if "completion_ids" in inputs else ("input_ids",)
    checks = {}
    for name in names:
        ids = [i for i in inputs[name][0].tolist() if i != tokenizer.pad_token_id]
        checks[f"first_batch/{name.removesuffix('_ids')}"] = Check(
            value=tokenizer.decode(ids)[:LONGEST],
            what="the first sequence of the first micro-batch",
        )
    return checks


def watch_sampling(model: Any, keep: Callable[[dict[str, Check]], None]) -> None:
    """Keep how the next generation samples: the settings that it came to, whoever gave them.

    transformers merges what TRL passes with what the checkpoint brings; what samples is what is left. It
    is read where that is decided, once; a transformers without these methods keeps nothing.
    """
    base: PreTrainedModel = getattr(model, "get_base_model", lambda: model)()
    original = getattr(base, "_get_logits_processor", None)
    if original is None:
        return

    def look(generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        processors = original(generation_config, *args, **kwargs)
        keep(sampling(generation_config, processors))
        del base._get_logits_processor  # the instance's; the class has its own
        return processors

    base._get_logits_processor = look


def sampling(config: Any, processors: Any) -> dict[str, Check]:
    """Say how a generation samples; a filter that is not there is null."""
    by_class = {type(p).__name__: p for p in processors}
    found: dict[str, Any] = {}
    for kind, attribute, name in _PROCESSORS:
        value = getattr(by_class.get(kind), attribute, None)
        found[name] = value if value is None else round(float(value), 9)
    checks = {
        f"sampling/{name}": Check(value=value, what=f"the {name} that completions are sampled with")
        for name, value in found.items()
    }
    checks["sampling/filters"] = Check(
        value=tuple(sorted(by_class)), what="everything that changes the model's distribution"
    )
    for name in ("do_sample", "max_new_tokens", "pad_token_id"):
        checks[f"sampling/{name}"] = Check(
            value=getattr(config, name, None), what=f"{name} as completions are sampled"
        )
    ends = getattr(config, "eos_token_id", None)
    ends = tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,)
    checks["sampling/eos_token_ids"] = Check(value=ends, what="tokens that end a completion")
    return checks


def _values(scaling: Any) -> list[float]:
    """The scales of an adapter layer; none of any other module."""
    if not isinstance(scaling, dict):
        return []
    return [s for s in scaling.values() if isinstance(s, int | float) and math.isfinite(s)]
