"""A fixed piece of work, timed: what a second of this processor was worth at that moment.

Processor time leaves out what others ran, and not that they shared caches and execution units: the same
step takes up to 1.4 times as much of it beside a busy neighbour. What this leaves out: what is made of it
(`compare/speed`).
"""

from __future__ import annotations

import time

import torch

WIDTH, PRODUCTS, ADDITIONS = 192, 6, 20_000  # 3 ms or so: as much tensor work as Python


@torch.no_grad()
def fixed_work() -> float:
    """Do the work and return its processor time in seconds. Draws no random number."""
    begin = time.process_time()
    matrix = torch.full((WIDTH, WIDTH), 1.0 / WIDTH)
    values = matrix
    for _ in range(PRODUCTS):
        values = torch.tanh(values @ matrix)
    total = 0
    for number in range(ADDITIONS):
        total += number
    return time.process_time() - begin
