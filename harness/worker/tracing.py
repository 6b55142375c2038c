"""`python -m harness.worker.tracing`: which storages live in a training step, allocation by allocation.

The contract. stdin is JSON Lines, a question each: {"subject": …, "length": tokens of a row}. stdout is
JSON Lines, a `Trace` or {"error": sentence} each, in the same order.

Three steps run: moments are made in the first, the second and third are alike, and the third is kept as
the step that repeats. What this leaves out: everything outside a step.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.catalog import ModelFacts
from harness.errors import ConfigError, HarnessError
from harness.memory_trace import Trace, fold
from harness.subject import LEAST_TOKENS, Subject
from harness.worker.kernels import as_on_cpu, as_on_gpu
from harness.worker.model_step import (
    build_model,
    build_optimizer,
    build_reference,
    clip,
    loss_of,
    score_rows,
)
from harness.worker.storages import StorageLog

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768  # of TRL's kernels
# What a model's code raises that asks a fake tensor for a value, or meets an unknown kernel or no library.
UNTRACEABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
    StopIteration,
)
UNITS = 3  # that are run; the middle one is then repeated


def trace(subject: Subject, length: int, *, is_whole: bool = False) -> Trace:
    """Trace a subject's steps with rows of a length, and of a shorter one.

    `is_whole` runs all layers, where else a few are run and the middle ones repeated. Raises: ConfigError
    for rows of a token or two.
    """
    if length < LEAST_TOKENS:
        raise ConfigError(
            f"rows of {length} tokens can't be traced; expected at least {LEAST_TOKENS}: a step is traced "
            "with rows of that length and with shorter ones, and each needs a token to predict"
        )
    facts = subject.facts
    lengths = (length, shorter(subject, length))
    each = period(facts)
    units = facts.layers // each
    if is_whole or facts.layers % each or units < UNITS:  # or a model too small to have a middle
        each, units = facts.layers, 1
    run_layers = each * min(units, UNITS)
    cut = subject.model_copy(update={"facts": facts.model_copy(update={"layers": run_layers})})
    is_gpu = subject.device == "cuda"
    width = 2 if subject.has_autocast or subject.dtype != "float32" else 4
    gc.collect()
    gc.disable()  # or cycles would be collected at moments that hang on the machine
    try:
        has_padding = subject.has_padding
        kernels = (
            as_on_gpu(has_padding=has_padding)
            if is_gpu
            else as_on_cpu(facts.vocab, width, has_padding=has_padding)
        )
        with FakeTensorMode(), kernels as tile:
            log = StorageLog((facts.vocab, min(TILE_VOCABULARY, facts.vocab), tile))
            run(cut, lengths, log, each if units >= UNITS else None)
    finally:
        gc.enable()
    return fold(log.events, log.kinds, units, lengths)


def shorter(subject: Subject, length: int) -> int:
    """The shortest length, from a half on, whose step takes as many tiles of tokens: the same events."""
    if subject.loop == "transformers":
        return max(2, length // 2)
    tiles = -(-_scored(subject, length) // TILE_TOKENS)
    first = next(
        n for n in range(max(2, length // 2), length + 1)
        if -(-_scored(subject, n) // TILE_TOKENS) == tiles
    )  # fmt: skip
    return min(first, length - 1)


def _scored(subject: Subject, length: int) -> int:
    return subject.batch * min(max(1, round(length * subject.scored_share)), length - 1)


def period(facts: ModelFacts) -> int:
    """After how many layers a model repeats: SmolLM3 leaves RoPE out of every fourth."""
    return 4 if facts.architecture == "smollm3" else 1


def run(subject: Subject, lengths: tuple[int, int], log: StorageLog, each: int | None) -> None:
    """Build, and take a step twice at one length and once at the other."""
    model = build_model(subject)
    reference = build_reference(subject)
    for whole in (model, reference):
        if whole is not None:
            see_weights(whole, log, each)
            if each is not None:
                follow_layers(whole, log, each)
    optimizer = build_optimizer(subject, model)
    watch_gradients(model, log)
    with log:
        for length in (lengths[0], lengths[0], lengths[1]):
            log.mark("step")
            if subject.keeps_gradients:
                optimizer.zero_grad()
            for _ in range(subject.accumulation):
                if reference is not None:
                    score_reference(subject, reference, length, log)
                micro_batch(subject, model, length, log)
            log.mark("optimizer")
            clip(model)
            optimizer.step()
            for parameter, state in optimizer.state.items():
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        log.see(value, "optimizer", like=parameter)
            if not subject.keeps_gradients:
                optimizer.zero_grad()
            gc.collect()
    log.end()


def micro_batch(subject: Subject, model: Any, length: int, log: StorageLog) -> None:
    """Forward and backward over one micro batch."""
    log.mark("forward")
    scored = max(1, round(length * subject.scored_share))
    log.scored = _scored(subject, length)
    shape = (1, subject.batch * length) if subject.is_flattened else (subject.batch, length)
    ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.ones(shape, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=subject.has_autocast):
        loss = loss_of(subject, model, ids, mask, scored)
    log.mark("backward")
    loss.backward()
    log.mark("between")


def score_reference(subject: Subject, reference: Any, length: int, log: StorageLog) -> None:
    """The reference model's forward pass: TRL scores the same rows with it, without gradients."""
    log.mark("reference")
    log.scored = _scored(subject, length)
    ids = torch.zeros((subject.batch, length), dtype=torch.long)
    mask = torch.ones((subject.batch, length), dtype=torch.long)
    scored = max(1, round(length * subject.scored_share))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=subject.has_autocast):
        score_rows(reference, ids, mask, scored)
    log.mark("between")


def follow_layers(model: Any, log: StorageLog, each: int) -> None:
    """Tell the log which unit of layers the step is in, forward and backward."""

    def enter(unit: int | None) -> Any:
        def set_unit(*_: Any) -> None:
            log.unit = unit

        return set_unit

    def watch(unit: int, is_first: bool) -> tuple[Any, Any]:
        def before(_: Any, args: Any) -> None:
            log.unit = unit
            if is_first and args and args[0].requires_grad and log.phase == "forward":
                args[0].register_hook(enter(None))

        def after(_: Any, __: Any, result: Any) -> None:
            if log.phase == "forward":
                hidden = result[0] if isinstance(result, tuple) else result
                if hidden.requires_grad:
                    hidden.register_hook(enter(unit))

        return before, after

    decoder = next(
        m for m in model.modules() if isinstance(getattr(m, "layers", None), nn.ModuleList)
    )
    for i, layer in enumerate(decoder.layers):
        before, after = watch(i // each, i == 0)
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)
    decoder.norm.register_forward_pre_hook(enter(None))


def see_weights(model: Any, log: StorageLog, each: int | None) -> None:
    """Note the weights and buffers that stand from the start."""
    for name, parameter in model.named_parameters():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        log.unit = int(layer.group(1)) // each if layer and each else None
        log.see(parameter, "adapter" if "lora_" in name else "weights")
    log.unit = None
    for buffer in model.buffers():
        log.see(buffer, "weights")


def watch_gradients(model: Any, log: StorageLog) -> list[Any]:
    """Call the storage of a parameter's gradient what it is, once it has one."""

    def note(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            log.see(parameter.grad, "gradients")

    return [
        p.register_post_accumulate_grad_hook(note) for p in model.parameters() if p.requires_grad
    ]


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Trace what is asked for, or say why it can't be."""
    subject = Subject.model_validate_json(json.dumps(question["subject"]))
    try:
        return trace(subject, question["length"]).model_dump(mode="json")
    except HarnessError as error:
        return {"error": str(error)}
    except UNTRACEABLE as error:
        return {"error": f"this step can't be traced: {type(error).__name__}: {str(error)[:200]}"}


def main() -> int:
    """Answer stdin's questions on stdout."""
    gc.freeze()  # a collection would look through all of torch, four times a trace
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the contract's answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
