"""How many seeds each claim of a study takes, by the spread that its own seeds showed.

Power is that of showing what a claim allows if the true difference were none (or, for a claim that
something is larger, if it were what was seen). The spread is an estimate itself, from few seeds: 'about'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from harness.frozen import Count, Frozen
from harness.power import POWER, match_power, seeds_needed
from harness.stats import mean_interval
from harness.verdicts.model import Effect, Part
from harness.view import StudyView


class PowerRow(Frozen):
    """One test of a claim: its spread, and the seeds that it takes."""

    claim: str
    test: str
    unit: str
    seeds: Count = Field(description="that the study has")
    sd: float | None = Field(
        description="spread of one seed's difference; of log ratios, in e-folds"
    )
    distance: float | None = Field(description="from the assumed truth to what the claim excludes")
    power_now: float | None = Field(description="of as many seeds as the study has")
    seeds_needed: int | None = Field(description=f"for a power of {POWER:.0%}; null if above 1000")


def power_rows(view: StudyView) -> list[PowerRow]:
    """Return a row for every test of every claim that rests on seeds."""
    alpha = view.evidence.alpha
    return [
        _row(verdict.claim, part, alpha)
        for verdict in view.verdicts
        for part in verdict.parts
        if part.decides and part.effect.by_seed
    ]


def _row(claim: str, part: Part, alpha: float) -> PowerRow:
    sd, distance, n = _spread(part.effect), _distance(part.effect), len(part.effect.by_seed)
    power, needed = None, None
    if sd and distance is not None and distance > 0 and n > 1:
        power = match_power(n, distance, sd, alpha=alpha)
        needed = seeds_needed(distance, sd, alpha=alpha)
    return PowerRow(
        claim=claim,
        test=part.effect.name,
        unit=part.effect.unit,
        seeds=n,
        sd=sd,
        distance=distance,
        power_now=power,
        seeds_needed=needed,
    )


def print_power(rows: Sequence[PowerRow], looks: Sequence[int]) -> None:
    """Print the rows as a table."""
    from harness.terminal import answer_console, plain_table
    from harness.text import harmless

    table = plain_table("claim", "test", "spread", "distance", "seeds", "power", "seeds for 80 %")
    for row in rows:
        table.add_row(
            harmless(row.claim),
            harmless(row.test),
            _number(row.sd),
            _number(row.distance),
            str(row.seeds),
            "" if row.power_now is None else f"{row.power_now:.0%}",
            "" if row.seeds_needed is None else str(row.seeds_needed),
        )
    console = answer_console()
    shared = f" The error rate is shared by looks at {', '.join(map(str, looks))}." if looks else ""
    console.print(
        "Power of each test, by the spread between this study's seeds, if there is no difference (for a "
        f"claim that something is larger: if it is as large as it was seen).{shared}"
    )
    console.print(table)


def _values(effect: Effect) -> list[float]:
    """Each seed's value, ratios as their logarithm."""
    values = [value for _, value in effect.by_seed]
    if effect.unit != "ratio":
        return values
    return [math.log(value) for value in values if value > 0]


def _spread(effect: Effect) -> float | None:
    found = mean_interval(_values(effect))
    return found.sd if found else None


def _distance(effect: Effect) -> float | None:
    """How far the truth that is assumed lies from what the claim excludes."""
    values = _values(effect)
    if not values:
        return None
    mean = sum(values) / len(values)
    is_ratio = effect.unit == "ratio"
    low, high = (
        math.log(end) if end is not None and is_ratio else end
        for end in (effect.floor, effect.ceiling)
    )
    if low is not None and high is not None:  # within two ends: the middle is assumed
        return (high - low) / 2
    if high is not None:
        return high - mean if is_ratio else high
    return mean - low if low is not None else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
