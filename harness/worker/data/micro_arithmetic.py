"""Sums of three digits: the task that the embedded base model was pre-trained on.

The base has seen these questions with answers that were mostly wrong (see `embedded_model`), so it
knows the form and, better than it shows, the sums: what is left for reinforcement learning is to
bring the right answer out. What this leaves out: anything that has to be learnt anew; that is
`micro_steps`.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from harness.worker.data import Request, Splits
from harness.worker.data.micro import Problem, split

SAMPLE = {
    "prompt": [{"role": "user", "content": "3+5+4=?"}],
    "completion": [{"role": "assistant", "content": "<think>3+5=8</think>\\boxed{12}"}],
    "solution": "\\boxed{12}",
}


@cache
def problems() -> tuple[Problem, ...]:
    """List all 1000 sums of three digits."""
    return tuple(
        Problem(f"{a}+{b}+{c}=?", f"{a}+{b}={a + b}", a + b + c)
        for a, b, c in product(range(10), repeat=3)
    )


def load(request: Request) -> Splits:
    """Load sums as the splits of a pair."""
    return split("micro-arithmetic", problems(), request)
