"""What a probe tries after training: reloading, merging, generating, resuming.

Everything here works with what was trained and leaves it as it is; random numbers are the checks' own. A
check that a method can't have is left out (an adapter is merged, a full model is not). What this leaves
out: whether a value is right, which only another stack's can say, but for `resume/same`.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, set_seed

from harness.probe import Check, ProbeStep
from harness.settings import Probing
from harness.spec import RunSpec
from harness.worker.methods import match_precision
from harness.worker.models import DTYPES, load_model
from harness.worker.probe_batches import digest
from harness.worker.probe_parameters import count_dtypes, trainable
from harness.worker.probing import Recorder
from harness.worker.trl_versions import build_config

PROMPTS = ("3+5+4=?", "9+0+7+2=?", "say a;7")
NEW_TOKENS = 16
# Up to which share of the largest logit a difference is rounding: many times what is seen, far below any
# fault.
AGREEING = {"float32": 1e-4, "bfloat16": 5e-2}
TRAINER_FOLDER = "trainer"  # where TRL writes, in the attempt's folder

Make = Callable[[PreTrainedModel, Any], Trainer]  # a run's trainer on a model, from TRL's config


@dataclass(frozen=True)
class Subject:
    """A trained run, with what it takes to begin it anew."""

    spec: RunSpec
    trainer: Trainer
    attempt: Path
    places: Mapping[str, str]  # the folders of repositories
    arguments: Mapping[str, Any]  # of TRL's config
    make: Make

    def base(self) -> PreTrainedModel:
        """Load the model as it was before training."""
        return load_model(self.spec.model, self.places).model

    def rebuild(self) -> Trainer:
        """Build a trainer as the run's own was built: seeded, and its adapter in the same precision."""
        config = build_config(self.spec.task, type(self.trainer.args), self.arguments).config
        set_seed(self.spec.training_seed)
        trainer = self.make(self.base(), config)
        if self.spec.probe is None or self.spec.probe.adapter_precision == "model":
            match_precision(trainer, self.spec.model.dtype)
        return trainer


def checkpointing(spec: RunSpec) -> dict[str, Any]:
    """Return the arguments that save a checkpoint to resume from, if the run's probe asks for one."""
    step = _checkpoint_step(spec)
    return {} if step is None else {"save_strategy": "steps", "save_steps": step}


def run_checks(recorder: Recorder, subject: Subject) -> dict[str, Check]:
    """Try what the probe of a run asks for."""
    asked, found = recorder.probing.checks, {}
    if asked:
        batch = _prompts(subject.trainer)
        logits = logits_of(subject.trainer.model, batch)
        found |= _numbers("trained", logits, "of the trained model")
        if "generation" in asked:
            found |= generation(subject.trainer, batch)
        if {"reload", "merge"} & set(asked):
            found |= _saved(subject, batch, asked)
        if "resume" in asked:
            found |= resume(recorder.steps, subject)
    shutil.rmtree(subject.attempt / TRAINER_FOLDER, ignore_errors=True)
    return found


def _checkpoint_step(spec: RunSpec) -> int | None:
    steps = spec.trainer.get("max_steps")
    if spec.probe is None or "resume" not in spec.probe.checks or not isinstance(steps, int):
        return None
    return steps // 2 + 1  # past the middle, so that it saves only once


@torch.no_grad()
def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of prompts, in evaluation mode and without autocast; padding left out."""
    was_training = model.training
    model.eval()
    logits = model(**batch).logits.double()  # (B, T, V)
    model.train(was_training)
    return logits[batch["attention_mask"].bool()]


@torch.no_grad()
def generation(trainer: Trainer, batch: dict[str, torch.Tensor]) -> dict[str, Check]:
    """Generate from fixed prompts, greedily and with a seed."""
    model, tokenizer = trainer.model, trainer.processing_class
    was_training, width = model.training, batch["input_ids"].shape[1]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    ways = {"greedy": {"do_sample": False}, "sampled": {"do_sample": True, "temperature": 1.0}}
    checks = {}
    for name, settings in ways.items():
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            filters = {"top_k": 0, "top_p": 1.0} if settings["do_sample"] else {}
            output = model.generate(
                **batch,
                **settings,
                **filters,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
        tokens = [
            " ".join(str(i) for i in row if i != tokenizer.pad_token_id)
            for row in output[:, width:].tolist()
        ]
        checks[f"generation/{name}"] = Check(
            value=tuple(tokens), what=f"tokens generated from fixed prompts, {name}"
        )
    model.train(was_training)
    return checks


def resume(steps: list[ProbeStep], subject: Subject) -> dict[str, Check]:
    """Continue the run from its checkpoint in a new trainer, and compare with the run itself."""
    at = _checkpoint_step(subject.spec)
    folder = subject.attempt / TRAINER_FOLDER / f"checkpoint-{at}"
    trainer = subject.rebuild()
    recorder = Recorder(Probing())
    recorder.watch(trainer)
    trainer.train(resume_from_checkpoint=str(folder))
    later = {step.step: step for step in steps if at is not None and step.step > at}
    again = {step.step: step for step in recorder.steps}
    losses = tuple(loss for step in recorder.steps for loss in step.losses)
    # A step's update is counted from where its own trainer began: the checkpoint, here.
    return {
        "resume/steps": Check(value=tuple(again), what="steps trained after the checkpoint"),
        "resume/losses": Check(value=losses, is_exact=False, what="losses of these steps"),
        "resume/batches": Check(
            value=digest(b for step in recorder.steps for b in step.batches),
            what="hash of what their micro-batches held",
        ),
        "resume/rate": Check(
            value=tuple(step.numbers.get("lr/0") for step in recorder.steps),
            is_exact=False,
            what="learning rates of these steps",
        ),
        "resume/same": Check(
            value=_same(later, again),
            what="whether they end with the weights of the run that was not interrupted",
        ),
        **_norms(trainer),
    }


def _same(later: dict[int, ProbeStep], again: dict[int, ProbeStep]) -> bool:
    return later.keys() == again.keys() and all(
        later[step].sha256 == again[step].sha256 for step in later
    )


def _norms(trainer: Trainer) -> dict[str, Check]:
    norms = [
        torch.linalg.vector_norm(p.detach().double()) for p in trainable(trainer.model).values()
    ]
    total = math.sqrt(sum(norm.item() ** 2 for norm in norms))
    return {
        "resume/weights": Check(
            value=total,
            is_exact=False,
            what="L2 norm of the weights after resuming and training on",
        )
    }


def _saved(
    subject: Subject, batch: dict[str, torch.Tensor], asked: tuple[str, ...]
) -> dict[str, Check]:
    """Save the model as TRL does, load it with PEFT or transformers, and compare the logits."""
    spec, trainer = subject.spec, subject.trainer
    before, found = logits_of(trainer.model, batch), {}
    with tempfile.TemporaryDirectory(dir=subject.attempt) as folder:
        trainer.save_model(folder)
        if spec.lora is None:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[spec.model.dtype])
        else:
            model = PeftModel.from_pretrained(subject.base(), folder)
        if "reload" in asked:
            logits = logits_of(model, batch)
            found |= _numbers("reload", logits, "of the saved and loaded model")
            found["reload/agrees"] = _agrees("the saved and loaded model", logits, before, spec)
            found |= _files(Path(folder))
        if "merge" in asked and spec.lora is not None:
            merged = model.merge_and_unload()
            logits = logits_of(merged, batch)
            found |= _numbers("merge", logits, "of the merged model")
            found["merge/agrees"] = _agrees("the merged model", logits, before, spec)
            found["merge/dtypes"] = Check(
                value=tuple(count_dtypes(merged.parameters())), what="precision of the merged model"
            )
    return found


def _files(folder: Path) -> dict[str, Check]:
    """Say what was saved: the tensors' names, shapes and dtypes."""
    lines = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                part = file.get_slice(name)
                lines.append(f"{name} {part.get_shape()} {part.get_dtype()}")
    return {
        "reload/tensors": Check(value=len(lines), what="tensors in the saved files"),
        "reload/names": Check(
            value=digest(lines), what="hash of the saved tensors' names, shapes and precisions"
        ),
    }


def _numbers(name: str, logits: torch.Tensor, whose: str) -> dict[str, Check]:
    values = {
        "l2": torch.linalg.vector_norm(logits).item(),
        "mean": logits.mean().item(),
        "max": logits.max().item(),
    }
    return {
        f"{name}/logits_{kind}": Check(
            value=value if math.isfinite(value) else None,
            is_exact=False,
            what=f"logits of fixed prompts {whose}: {kind}",
        )
        for kind, value in values.items()
    }


def _agrees(name: str, logits: torch.Tensor, before: torch.Tensor, spec: RunSpec) -> Check:
    """Say whether logits are the trained model's but for rounding.

    Yes or no, for the difference itself is rounding where all is well, and no two stacks round alike.
    """
    largest, apart = before.abs().max().item(), (logits - before).abs().max().item()
    return Check(
        value=apart <= AGREEING[spec.model.dtype] * largest,
        what=f"{name}: whether its logits are the trained model's but for rounding",
    )


def _prompts(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return fixed prompts, rendered by the tokenizer's template and padded on the left."""
    tokenizer = trainer.processing_class
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in PROMPTS
    ]
    batch = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    device = trainer.model.device
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
