"""`harness doctor`: the command. What it asks is in `doctor`, how it reads in `doctor_text`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.options import BUDGET, FILTER, JSON, MAP, MATRIX, OFFLINE, SEEDS

EXAMPLES = """\b
Examples:
  harness doctor --matrix blog
  harness doctor --matrix blog --filter 'sft-*' --seeds 0 --budget short
  harness doctor --all                          what every matrix needs, and what fits here
  harness doctor --matrix blog --image lora-harness:cuda
"""


# Every option but json is a field of doctor.Asked, by its name there.
@click.command(epilog=EXAMPLES)
@MATRIX
@FILTER
@SEEDS
@BUDGET
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="study folder whose disk is looked at; default results/MATRIX",
)
@MAP
@OFFLINE
@click.option(
    "--image", metavar="NAME", help="the image that is to train: is it there, does it fit"
)
@click.option("--all", "lists_all", is_flag=True, help="every shipped matrix too, a line each")
@JSON
def doctor(is_json: bool, **asked: Any) -> int:
    """Check this machine: driver, GPUs, disk, token, Docker, and what a matrix needs."""
    from harness.doctor import Asked, examine
    from harness.doctor_text import print_checks

    is_whole = not asked["filters"] and asked["seeds"] is None and asked["budget"] is None
    checks = examine(Asked(**asked))
    if is_json:
        for check in checks:
            click.echo(json.dumps(check.as_dict()))
    else:
        print_checks(checks, asked["matrix"], is_whole=is_whole)
    return max((check.exit_code for check in checks), default=0)
