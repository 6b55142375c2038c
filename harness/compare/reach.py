"""Which part of training a package can change: how far a new release of it reaches.

A guess from what the package does, as data. What this leaves out: TRL's own releases, which are known
one by one (`boundaries`).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare.boundary import METHODS, When, is_on
from harness.compare.model import Kind
from harness.spec import Method, Task
from harness.translation_table import BOTH, GRPO

_UPDATE: tuple[Kind, ...] = ("loss", "gradient", "weights")
_COSTS: tuple[Kind, ...] = ("memory", "speed")
_ALL: tuple[Kind, ...] = ("data", "sampling", "reward", *_UPDATE, "metric", "checkpoint", *_COSTS)


@dataclass(frozen=True)
class Reach:
    """What a package does in a run, and where a change of it would show first."""

    does: str
    kinds: tuple[Kind, ...]
    weight: float = 0.6  # how often such a package is at fault, by judgement
    tasks: tuple[Task, ...] = BOTH
    methods: tuple[Method, ...] = METHODS
    when: When | None = None


REACHES: dict[str, Reach] = {
    "trl": Reach("the trainers, their losses and rewards", _ALL, 0.8),
    "peft": Reach(
        "adapters: their weights, their scale, saving and merging",
        (*_UPDATE, "checkpoint", *_COSTS),
        0.7,
        methods=("lora",),
    ),
    "transformers": Reach("the model, its tokenizer, generation and the training loop", _ALL, 0.6),
    "accelerate": Reach(
        "the training loop: accumulation, precision, the order of the data",
        ("data", *_UPDATE, *_COSTS),
        0.5,
    ),
    "torch": Reach("every number", ("sampling", *_UPDATE, *_COSTS), 0.5),
    "datasets": Reach("the rows and their order", ("data", "reward"), 0.5),
    "tokenizers": Reach("token ids", ("data",), 0.5),
    "jinja2": Reach("chat templates", ("data",), 0.4),
    "math-verify": Reach("the rewards of mathematical answers", ("reward",), 0.5, GRPO),
    "latex2sympy2-extended": Reach("how answers are read", ("reward",), 0.4, GRPO),
    "reasoning-gym": Reach("rows and their rewards", ("data", "reward"), 0.5),
    "vllm": Reach("generation", ("sampling", *_UPDATE, *_COSTS), 0.6, GRPO, when=is_on("use_vllm")),
    "liger-kernel": Reach("fused losses", (*_UPDATE, *_COSTS), 0.6, when=is_on("use_liger_kernel")),
    "bitsandbytes": Reach("quantised weights and optimizers", (*_UPDATE, *_COSTS), 0.4),
    "triton": Reach("kernels on a GPU", (*_UPDATE, *_COSTS), 0.3),
    "numpy": Reach("random numbers and orders outside torch", ("data", "sampling"), 0.3),
    "safetensors": Reach("reading and writing weights", ("checkpoint", "weights"), 0.3),
}
# Of a package that isn't listed nobody has said what it does.
UNKNOWN = Reach("no part of training that is known here", _ALL, 0.1)


def reach_of(package: str) -> Reach:
    """Return what a package can change."""
    return REACHES.get(package.lower().replace("_", "-"), UNKNOWN)
