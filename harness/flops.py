"""`harness flops`: what a training step costs with LoRA and without, counted on the real architectures.

No GPU, no download and no weights: the worker's code counts on shapes alone. What this leaves out: time,
which runs measure, and memory, which `harness plan` estimates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.options import JSON, POSITIVE

if TYPE_CHECKING:
    from harness.compute import ComputeRatio

# The models of the page and of its sources; the Instruct twins have the same shapes.
PAGE_MODELS = (
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen3-8B-Base",
    "meta-llama/Llama-3.2-3B",
    "HuggingFaceTB/SmolLM3-3B",
    "Qwen/Qwen2.5-3B-Instruct",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen3-0.6B",
)
EXAMPLES = """\b
Examples:
  harness flops
  harness flops --model Qwen/Qwen3-0.6B --rank 1 --rank 512 --tokens 4096 --json
"""


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a catalogued model."""
    from harness.catalog import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


@click.command(epilog=EXAMPLES)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_model,
    help="a catalogued model; several; default the seven of the page and of its sources",
)
@click.option(
    "--rank",
    "ranks",
    type=POSITIVE,
    multiple=True,
    default=(1, 32, 256),
    show_default=True,
    help="a LoRA rank, on every linear layer; several",
)
@click.option(
    "--tokens", type=POSITIVE, default=1024, show_default=True, help="length of the sequence"
)
@JSON
def flops(models: tuple[str, ...], ranks: tuple[int, ...], tokens: int, is_json: bool) -> int:
    """Count the FLOPs of a training step, LoRA over full fine-tuning; needs no GPU and no weights."""
    from harness.catalog import MODELS
    from harness.counting import count_steps
    from harness.errors import ConfigError, did_you_mean

    unknown = [name for name in models if name not in MODELS]
    if unknown:
        raise ConfigError(
            *(
                f"--model {name!r} is not in the catalogue{did_you_mean(name, MODELS)}; expected one of "
                f"{', '.join(MODELS)}"
                for name in unknown
            )
        )
    steps, ratios = count_steps(list(dict.fromkeys(models)) or PAGE_MODELS, ranks, tokens)
    if is_json:
        for line in (*steps, *ratios):
            click.echo(json.dumps(line.model_dump(mode="json")))
    else:
        _print(ratios, tokens)
    return 0


def _print(ratios: Sequence[ComputeRatio], tokens: int) -> None:
    from harness.terminal import answer_console, plain_table

    table = plain_table(
        "model", "rank", "linear layers", "2/3 + rank term", "whole step", "attention's share"
    )
    for ratio in ratios:
        shares = (ratio.linear, ratio.closed_form, ratio.whole, ratio.attention_share)
        table.add_row(ratio.model, str(ratio.rank), *(f"{share:.3f}" for share in shares))
    console = answer_console()
    console.print(
        f"FLOPs of a training step over {tokens} tokens: LoRA on every linear layer, over full "
        "fine-tuning. The whole step counts attention's products and the output head too; attention's "
        "share is of the full step."
    )
    console.print(table)
