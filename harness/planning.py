"""`harness plan`: what a matrix needs, what it would cost, and what is missing, before anything runs.

Nothing is downloaded and no network is touched. Memory is traced on tensors without memory (`arm_forecast`)
and beside it reckoned by closed forms; work comes from closed forms, speed and price from the rate card's
assumptions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import ConfigError
from harness.options import FILTER, JSON, MAP, MATRIX, SEEDS, SETTINGS

if TYPE_CHECKING:
    from harness.arm_forecast import ArmForecast
    from harness.downloads import Repository
    from harness.measure.gpus import GpuList
    from harness.outlook import ArmOutlook, Ground, Purse
    from harness.rates import RateCard
    from harness.spec import RunSpec

EXAMPLES = """\b
Examples:
  harness plan --matrix blog
  harness plan --matrix blog --filter 'grpo-*' --budget 50usd
  harness plan --power results/findings-cpu
  harness plan --matrix blog --gpu 'H200 141GB' --rate-card my-rates.yaml --json
"""


@click.command(epilog=EXAMPLES)
@MATRIX
@SETTINGS
@FILTER
@SEEDS
@MAP
@click.option(
    "--budget",
    metavar="short|standard|full|50usd",
    help="how long each pair trains, by the matrix's budgets; or money: which runs it pays for",
)
@click.option(
    "--gpu", metavar="NAME", help="a GPU of the rate card; default this machine's, else the card's"
)
@click.option(
    "--rate-card",
    "rate_card",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="your own assumptions on speed and price, instead of the shipped ones",
)
@click.option(
    "--power",
    "power",
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="how many seeds each claim of a study takes, by the spread between its own seeds; plans nothing",
)
@click.option(
    "--formulas",
    "by_formulas",
    is_flag=True,
    help="memory by closed forms alone; else each arm's step is traced (minutes, then kept)",
)
@JSON
def plan(
    budget: str | None,
    gpu: str | None,
    rate_card: Path | None,
    power: Path | None,
    by_formulas: bool,
    is_json: bool,
    **asked: Any,
) -> int:
    """Say what a matrix needs, what it would cost, and what is missing."""
    if power is not None:
        return _tell_power(power, is_json)
    from harness.access import has_token
    from harness.downloads import hub_cache, list_repositories
    from harness.forecast_tables import print_arms
    from harness.measure.gpus import list_gpus
    from harness.outlook import outlook, spend
    from harness.plan import Request, resolve
    from harness.plan_tables import print_plan
    from harness.rates import load_rates

    limit_usd = parse_money(budget)
    request = Request(**asked, budget=None if limit_usd is not None else budget)
    card = load_rates(rate_card)
    found = resolve(request)
    ground, note = look_around(card, gpu, list_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    repositories = list_repositories(
        found.foreseen, request.maps, hub_cache(), has_token=has_token()
    )
    missing = {
        c: f"{r.name} {r.needs_access}" for r in repositories if r.needs_access for c in r.cells
    }
    matrix = found.loaded.matrix
    arms = outlook(found.foreseen, ground, matrix.device, missing)
    purse = spend(found.foreseen, arms, limit_usd) if limit_usd is not None else None
    told = [] if by_formulas or matrix.device == "cpu" else _forecast(found.foreseen, ground)
    if is_json:
        for line in json_lines(ground, repositories, arms, purse):
            click.echo(json.dumps(line))
        for arm in told:
            line = {"line": "forecast", **arm.model_dump(mode="json")}
            if arm.forecast is not None:
                line["forecast"]["notes"] = arm.forecast.remarks
            click.echo(json.dumps(line))
    else:
        print_plan(matrix, note, repositories, arms, purse)
        print_arms(told)
    return 0


def _forecast(specs: Sequence[RunSpec], ground: Ground) -> list[ArmForecast]:
    """Forecast the memory of every arm, with progress on stderr."""
    from harness.arm_forecast import forecast_arms
    from harness.gpu_classes import classes, is_hopper
    from harness.terminal import complain

    return forecast_arms(
        specs,
        ground.card,
        ground.memory_bytes,
        classes(ground.card),
        is_hopper=is_hopper(ground.name),
        has_tiles=ground.has_tiles,
        progress=lambda done, of: complain(f"traced {done} of {of} training steps"),
    )


def _tell_power(study: Path, is_json: bool) -> int:
    """Print how many seeds the claims of a study take."""
    from harness.power_table import power_rows, print_power
    from harness.store import Store
    from harness.view import load_view

    view = load_view(Store(study))
    rows = power_rows(view)
    if is_json:
        for row in rows:
            click.echo(json.dumps(row.model_dump(mode="json")))
    else:
        print_power(rows, view.study.looks)
    return 0


def parse_money(text: str | None) -> float | None:
    """Read '50usd', '50 USD' or '$50' as dollars; None for anything that is no amount.

    Raises: ConfigError for an amount without a currency, or in another one.
    """
    words = (text or "").strip().lower()
    if not re.search(r"[\d$€£]", words):
        return None
    amount = re.fullmatch(r"(?:\$\s*)?(\d{1,9}(?:\.\d+)?)\s*(?:usd)?", words)
    if amount and ("$" in words or "usd" in words):
        return float(amount.group(1))
    raise ConfigError(
        f"--budget {words[:80]!r}: expected short, standard or full, or an amount in US dollars such as "
        "50usd"
    )


def look_around(
    card: RateCard, gpu: str | None, found: GpuList, cuda_visible_devices: str | None
) -> tuple[Ground, str]:
    """Choose the GPU that a plan reckons with, and say which: asked for, this machine's, the card's.

    Raises: ConfigError if the card has no such GPU.
    """
    from harness.measure.gpus import visible_gpus
    from harness.measure.hidden import explain_none
    from harness.outlook import Ground

    gpus = visible_gpus(found.gpus, cuda_visible_devices)
    sizes = sorted((g.total_bytes, g.name) for g in gpus if g.total_bytes is not None)
    assumed = "; every speed, price and overhead is an assumption (--rate-card replaces them)"
    if gpu is None and sizes:
        memory_bytes, device = sizes[0]
        like = card.named_like(device, memory_bytes)
        name, rates = card.gpu(like)
        size = rates.gigabytes if like else round(memory_bytes / 1e9)
        ground = Ground(card, rates, device, memory_bytes, size, len(gpus), has_tiles())
        count = f"{len(gpus)} × {device}" if len(gpus) > 1 else device
        speeds = "" if like else f", which is not on the rate card: speed and price of {name}"
        return ground, f"reckoned with this machine's {count}{speeds}{assumed}"
    name, rates = card.gpu(gpu)
    memory_bytes = rates.memory_bytes.value
    here = len(gpus) if gpu is None else None
    ground = Ground(card, rates, name, memory_bytes, rates.gigabytes, here, has_tiles())
    why = explain_none(found, cuda_visible_devices) if here == 0 else None
    none = f"no GPU here ({why}); " if why else ""
    return (
        ground,
        f"{none}reckoned with {name} at {rates.usd_per_hour.value:g} USD an hour{assumed}",
    )


def has_tiles() -> bool:
    """Whether the installed TRL scores tokens in tiles; where none is installed, a plan assumes not."""
    from importlib.metadata import PackageNotFoundError, version

    from harness.activations import TILES_SINCE

    try:
        major, minor, *_ = version("trl").split(".")
        return (int(major), int(minor)) >= TILES_SINCE
    except (PackageNotFoundError, ValueError):
        return False


def json_lines(
    ground: Ground,
    repositories: list[Repository],
    arms: list[ArmOutlook],
    purse: Purse | None,
) -> list[dict[str, Any]]:
    """Return a plan as data: a line per repository and arm, and a total."""
    lines = [{"line": "repository", **r.model_dump(mode="json")} for r in repositories]
    for arm in arms:
        totals = {
            "memory_bytes": arm.memory.total_bytes if arm.memory else None,
            "flops": arm.work.total_flops if arm.work else None,
            "runs": arm.runs,
            "usd_all_runs": arm.usd,
        }
        lines.append({"line": "arm", **arm.model_dump(mode="json"), **totals})
    priced = [arm for arm in arms if arm.cost is not None]
    sizes = [r.download_bytes for r in repositories]
    lines.append(
        {
            "line": "total",
            "runs": sum(arm.runs for arm in arms),
            "runs_without_price": sum(arm.runs for arm in arms if arm.cost is None),
            "runs_skipped": sum(arm.runs for arm in arms if arm.skips),
            "download_bytes": None if None in sizes else sum(s for s in sizes if s is not None),
            "known_download_bytes": sum(s for s in sizes if s is not None),
            "gpu_hours": _sum(a.cost.gpu_hours * a.runs for a in priced if a.cost),
            "usd": _sum(a.usd for a in priced if a.usd is not None),
            "gpu": ground.name,
            "gpu_bytes": ground.memory_bytes,
            "gpus_here": ground.here,
            "rates": ground.rates.model_dump(mode="json"),
            "budget": purse.model_dump(mode="json") if purse else None,
        }
    )
    return lines


def _sum(values: Iterable[float]) -> float | None:
    """A sum; None if there is nothing to add."""
    known = list(values)
    return sum(known) if known else None
