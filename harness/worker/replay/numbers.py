"""The small functions that losses and batches of GRPO are made of, on fixed numbers.

A loss can be right on average and wrong where it matters: missing rewards, the order of prompts, gradients
that don't flow. Each is asked once, in float32 and, where training would, in bfloat16.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from harness.worker.replay.items import Items

NAN = math.nan
UTILITIES = "trl.trainer.utils"


def replay_numbers(items: Items) -> None:
    """Ask every function that this stack has."""
    _logarithms(items)
    _missing_numbers(items)
    _batches(items)
    _orders(items)


def _logits(dtype: torch.dtype) -> torch.Tensor:
    """Fixed logits of 2 rows × 3 places × 11 tokens."""
    return (3 * torch.sin(torch.arange(66, dtype=torch.float64))).reshape(2, 3, 11).to(dtype)


def _logarithms(items: Items) -> None:
    index = torch.tensor([[0, 10, 5], [3, 7, 1]])
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        if selected := _find(items, "selective_log_softmax"):
            _with_gradient(
                items,
                f"loss/selective_log_softmax/{kind}",
                lambda logits, selected=selected: selected(logits, index),
                dtype,
            )
        if entropy := _find(items, "entropy_from_logits"):
            _with_gradient(items, f"loss/entropy_from_logits/{kind}", entropy, dtype)


def _with_gradient(
    items: Items, name: str, function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    """Keep what a function gives, and the gradient that flows back through it."""
    logits = _logits(dtype).requires_grad_()
    items.call(f"{name}/value", lambda: function(logits))
    items.call(
        f"{name}/gradient", lambda: torch.autograd.grad(function(logits).float().sum(), logits)[0]
    )


def _missing_numbers(items: Items) -> None:
    rewards = torch.tensor([1.0, NAN, 0.0, 0.5, NAN, 0.25])
    for name in ("nanstd", "nanmin", "nanmax"):
        if function := _find(items, name):
            items.call(f"loss/{name}/some-missing", lambda function=function: function(rewards))
            items.call(
                f"loss/{name}/none-missing",
                lambda function=function: function(torch.tensor([1.0, 0.0, 0.5])),
            )


def _batches(items: Items) -> None:
    rows = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])]
    if pad := _find(items, "pad"):
        for side in ("left", "right"):
            items.call(
                f"data/pad/{side}", lambda side=side: pad(rows, padding_value=9, padding_side=side)
            )
        if "pad_to_multiple_of" in inspect.signature(pad).parameters:
            items.call("data/pad/multiple-of-4", lambda: pad(rows, pad_to_multiple_of=4))
    held = {
        "ids": torch.arange(12).reshape(6, 2),
        "scores": torch.arange(6),
        "nothing": None,
        "total": torch.tensor(3),
    }
    if split := _find(items, "split_tensor_dict"):
        items.call("data/split_tensor_dict/3", lambda: split(held, 3))
    if shuffle := _find(items, "shuffle_sequence_dict", "shuffle_tensor_dict"):
        items.call("data/shuffle_sequence_dict/seeded", lambda: _seeded(shuffle, held))
    if flush := _find(items, "flush_left"):
        mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
        items.call("data/flush_left/2", lambda: list(flush(mask, torch.arange(8).reshape(2, 4))))


def _seeded(function: Callable[[Any], Any], argument: Any) -> Any:
    torch.manual_seed(0)
    return function(argument)


def _orders(items: Items) -> None:
    """The order in which GRPO reads its prompts."""
    sampler = _find(items, "RepeatSampler")
    if sampler is None:
        return
    for name, options in (
        ("in-order", {"shuffle": False}),
        ("shuffled", {"shuffle": True, "seed": 3}),
    ):
        if set(options) <= set(inspect.signature(sampler).parameters):
            items.call(
                f"data/RepeatSampler/{name}",
                lambda options=options: list(
                    sampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=2, **options)
                ),
            )


def _find(items: Items, *names: str) -> Any:
    """Look for a function among TRL's utilities, and where older releases have it."""
    modules = (UTILITIES, "trl.trainer.grpo_trainer")
    return items.find(*(f"{module}:{name}" for name in names for module in modules))
