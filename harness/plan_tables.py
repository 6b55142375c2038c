"""A plan as a person reads it: tables and sentences on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from rich.console import Console
from rich.text import Text

from harness.activations import Term
from harness.downloads import Repository
from harness.outlook import ArmOutlook, Purse
from harness.spec import Matrix
from harness.terminal import answer_console, plain_table
from harness.text import duration, harmless, number, plural, scaled

UNKNOWN = "unknown"
OOM = "harness bench skips no run for its size: one that does not fit ends out of memory, the others go on"
_PLACES = {
    "hub": "Hub",
    "cache": "in the cache",
    "folder": "local folder",
    "shipped": "ships with the harness",
    "generated": "generated here",
}


def print_plan(
    matrix: Matrix,
    note: str,
    repositories: Sequence[Repository],
    arms: Sequence[ArmOutlook],
    purse: Purse | None,
) -> None:
    """Print everything that a plan found."""
    out = answer_console()
    _say(out, f"{matrix.name}: {matrix.title}", "bold")
    _say(out, note)
    _repositories(out, repositories)
    for arm in arms:
        _arm(out, arm)
    _totals(out, repositories, arms)
    if any(arm.fits is False for arm in arms):
        _say(out, OOM, "yellow")
    if purse is not None:
        _purse(out, purse)


def _repositories(out: Console, repositories: Sequence[Repository]) -> None:
    table = plain_table("kind", "repository", "where", "size", "to fetch", "gated", "licence")
    for repository in repositories:
        gated = {None: UNKNOWN, True: "yes", False: "no"}[repository.is_gated]
        cells = (
            repository.kind,
            repository.name + (f"@{repository.revision}" if repository.revision else ""),
            _PLACES[repository.place],
            _gigabytes(repository.bytes) if repository.place != "shipped" else "",
            _gigabytes(repository.download_bytes),
            gated if repository.place in ("hub", "cache") else "",
            repository.licence or "",
        )
        table.add_row(*(Text(harmless(c)) for c in cells))
    out.print()
    out.print(table)
    for repository in repositories:
        if repository.needs_access:
            _say(out, f"{repository.name}: {repository.needs_access}", "yellow")


def _arm(out: Console, arm: ArmOutlook) -> None:
    gpus = f"{plural(arm.gpus, 'GPU')}{f' ({arm.strategy})' if arm.strategy else ''} each"
    out.print()
    _say(
        out,
        f"{arm.pair}.{arm.arm}: {arm.task}, {arm.method}, of {arm.model} on {arm.dataset}; "
        f"{plural(arm.runs, 'run')}, {gpus if arm.gpus else 'on the CPU'}",
        "bold",
    )
    if arm.memory is not None:
        table = plain_table("  term", "GiB", "what")
        table.columns[1].justify = "right"
        for term, gib in zip(arm.memory.terms, shown_gib(arm.memory.terms), strict=True):
            table.add_row(f"  {term.name}", gib, Text(harmless(term.note)))
        table.add_row("  total", _gib(arm.memory.total_bytes), f"of {_gib(arm.gpu_bytes)} per GPU")
        out.print(table)
    by = "by formulas: " if arm.memory is not None else ""
    _say(out, f"  {by}{arm.verdict}", "yellow" if arm.fits is False else "")
    _say(out, f"  {_price(arm)}")
    for note in arm.notes:
        _say(out, f"  note: {note}")
    for reason in arm.skips:
        _say(out, f"  would not train here: {reason}", "yellow")


def shown_gib(terms: Sequence[Term]) -> list[str]:
    """Write terms in GiB so that what is shown adds up to the total that is shown.

    Each is the step between two rounded running sums, so it is off by a hundredth at most.
    """
    sums = [round(total / 2**30, 2) for total in accumulate((t.bytes for t in terms), initial=0)]
    return [f"{after - before:.2f}" for before, after in pairwise(sums)]


def _price(arm: ArmOutlook) -> str:
    if arm.work is None or arm.cost is None:
        return "tokens, FLOPs, time and cost unknown"
    tokens = f"{scaled(arm.work.trained_tokens, '').strip()} tokens trained"
    if arm.work.generated_tokens:
        tokens += f", {scaled(arm.work.generated_tokens, '').strip()} sampled"
    each = (
        f"{arm.work.steps:,} steps, {tokens}, {scaled(arm.work.total_flops, 'FLOP')}, "
        f"{duration(arm.cost.wall_s)}, {number(arm.cost.gpu_hours, 3)} GPU-hours, "
        f"{_usd(arm.cost.usd)} a run"
    )
    return f"{each}; {arm.runs} runs {_usd(arm.usd or 0)}" if arm.runs > 1 else each


def _totals(out: Console, repositories: Sequence[Repository], arms: Sequence[ArmOutlook]) -> None:
    known = sum(r.download_bytes or 0 for r in repositories)
    unknown = sum(r.download_bytes is None for r in repositories)
    priced = [arm for arm in arms if arm.cost is not None]
    unpriced = sum(arm.runs for arm in arms if arm.cost is None)
    hours = sum(arm.cost.gpu_hours * arm.runs for arm in priced if arm.cost)
    runs = sum(arm.runs for arm in arms)
    out.print()
    _say(
        out,
        f"{plural(runs, 'run')}: {_gigabytes(known)} to fetch"
        + (f" and {plural(unknown, 'repository')} of unknown size" if unknown == 1 else "")
        + (f" and {unknown} repositories of unknown size" if unknown > 1 else "")
        + (
            f", {number(hours, 3)} GPU-hours, {_usd(sum(arm.usd or 0 for arm in priced))}"
            if priced
            else ""
        )
        + (f"; the price of {plural(unpriced, 'run')} is unknown" if unpriced else ""),
        "bold",
    )


def _purse(out: Console, purse: Purse) -> None:
    _say(
        out,
        f"{_usd(purse.limit_usd)} pay for the first {plural(len(purse.paid), 'run')} that fit, "
        f"{_usd(purse.spent_usd)} in all:",
        "bold",
    )
    for word, cells in (
        ("paid for", purse.paid),
        ("not paid for", purse.unpaid),
        ("too large", purse.skipped),
        ("price unknown", purse.unknown),
    ):
        if cells:
            _say(out, f"  {word}: {', '.join(cells)}")


def _say(out: Console, text: str, style: str = "") -> None:
    out.print(Text(harmless(text), style=style))


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f}"


def _gigabytes(value: int | None) -> str:
    """Sizes of files in GB, as the Hub shows them."""
    return UNKNOWN if value is None else f"{value / 1e9:.2f} GB"


def _usd(value: float) -> str:
    return f"{value:,.2f} USD"
