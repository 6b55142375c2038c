"""Sums of three digits worked out to the end: a form that the embedded base has yet to learn.

The base stops its working after the first step and then answers, mostly wrongly. Here every step
is written down and the answer is right, so supervised fine-tuning has a longer form to teach and
wrong answers to undo. What this leaves out: sums in the form that the base knows, which are
`micro_arithmetic`, and any operation that it has never met.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from harness.worker.data import Request, Splits
from harness.worker.data.micro import Problem, split

SAMPLE = {
    "prompt": [{"role": "user", "content": "3+5+4=?"}],
    "completion": [
        {"role": "assistant", "content": "<think>3+5=8;8+4=12</think>\\boxed{12}"},
    ],
    "solution": "\\boxed{12}",
}


@cache
def problems() -> tuple[Problem, ...]:
    """List all 1000 sums of three digits, each with both of its steps."""
    return tuple(
        Problem(f"{a}+{b}+{c}=?", f"{a}+{b}={a + b};{a + b}+{c}={a + b + c}", a + b + c)
        for a, b, c in product(range(10), repeat=3)
    )


def load(request: Request) -> Splits:
    """Load worked sums as the splits of a pair."""
    return split("micro-steps", problems(), request)
