"""Several stacks trained in turn, so that what disturbs a machine falls on all of them alike.

A B, then B A: a machine that grows slower, or warmer, favours neither. What this leaves out: training
(`bench`), and what is made of it (`compare/statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.errors import ConfigError
from harness.plan import Request
from harness.ready import Ready
from harness.rehearsal import BLOCK
from harness.spec import Matrix
from harness.text import plural


def in_turn(
    ready: Sequence[Ready], request: Request, matrix: Matrix
) -> list[tuple[Ready, Request]]:
    """Return the turns of stacks, each with one seed more; the report is for a stack's last.

    Raises: ConfigError where seeds are not known beforehand, or there is nothing to take turns.
    """
    block = request.seed_block * BLOCK
    seeds = request.seeds or tuple(seed - block for seed in matrix.seeds)
    if request.until_decided:
        raise ConfigError(
            "--interleave and --until-decided: turns need seeds that are known; drop one of them"
        )
    if len(ready) < 2 or len(seeds) < 2:
        raise ConfigError(
            f"--interleave: found {plural(len(ready), 'stack')} and {plural(len(seeds), 'seed')}, expected "
            "at least two of both; name a second --trl, more --seeds, or leave it out"
        )
    turns = []
    for number in range(1, len(seeds) + 1):
        renders = request.renders_report and number == len(seeds)
        own = replace(request, seeds=seeds[:number], renders_report=renders)
        turns += [(each, own) for each in (ready if number % 2 else reversed(ready))]
    return turns
