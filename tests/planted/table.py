"""A row for each planted fault: was it caught, was it placed, what did the report say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from statsmodels.stats.proportion import proportion_confint

from harness.compare.model import Comparison
from tests.planted.faults import Fault


@dataclass(frozen=True)
class Row:
    """What the comparison said of a fault; None if there was no comparison."""

    fault: Fault
    comparison: Comparison | None

    @property
    def is_caught(self) -> bool:
        """Whether the word is `changed`."""
        return self.comparison is not None and self.comparison.word == "changed"

    @property
    def is_placed(self) -> bool:
        """Whether the tasks and methods named are those that the fault can reach."""
        place = self.comparison.place if self.comparison else None
        if not self.is_caught or place is None:
            return False
        where = self.fault.where
        tasks = {"sft", "grpo"} if where.task == "both" else {where.task}
        methods = {"full", "lora"} if where.arms == "all" else {where.arms}
        return set(place.tasks) == tasks and set(place.methods) in (methods, methods & self._tried)

    @property
    def _tried(self) -> set[str]:
        """The methods that have an arm in the pairs that changed: some settings are tried in one alone."""
        cells = self.comparison.cells if self.comparison else ()
        pairs = {cell.pair for cell in cells if cell.word == "changed"}
        return {cell.method for cell in cells if cell.pair in pairs}

    @property
    def line(self) -> str:
        """A line for the log."""
        word = self.comparison.word if self.comparison else "no comparison"
        place = self.comparison.place if self.comparison else None
        found = place.sentence if place else ""
        mark = "ok  " if self.is_placed else "MISS"
        where = f"{self.fault.where.task}/{self.fault.where.arms}"
        return f"{mark} {self.fault.package:12} {self.fault.name:40} expected {where:10} {word}: {found}"


def share(rows: Sequence[Row]) -> str:
    """Return how many were caught and placed, with a 95 % interval (Wilson)."""
    good = sum(row.is_placed for row in rows)
    low, high = proportion_confint(good, len(rows), method="wilson")
    caught = sum(row.is_caught for row in rows)
    return (
        f"{good} of {len(rows)} faults caught and placed ({100 * good / len(rows):.0f} %, 95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}); {caught} caught."
    )


def render(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| fault | in | reaches | said | placed |", "|---|---|---|---|---|"]
    for row in rows:
        place = row.comparison.place if row.comparison else None
        said = place.sentence if place else (row.comparison.word if row.comparison else "nothing")
        reach = f"{row.fault.where.task}, {row.fault.where.arms}"
        mark = "yes" if row.is_placed else "no"
        lines.append(f"| {row.fault.name} | {row.fault.package} | {reach} | {said} | {mark} |")
    return "\n".join([*lines, "", share(rows)]) if rows else "no fault was asked for"
