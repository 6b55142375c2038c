"""A section a subject of the page, each only where the matrix claims something about it.

Capacity, learning rates, batch size, layers, ranks in RL, compute, memory: the claims' words again,
then figures and tables. What this leaves out: what a rule's claims are shown with (`finding_figures`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness import text
from harness.chart_parts import Figure
from harness.claim_rows import ClaimRow, claim_rows
from harness.claim_spec import Claim
from harness.finding_figures import BUILDERS, Subject
from harness.finding_tables import page_ranks_table
from harness.report_tables import Table
from harness.view import StudyView

TITLES = {
    "capacity": "Rank and capacity",
    "rate-ratio": "Learning rates",
    "batch": "Batch size",
    "layers": "Which layers",
    "rank-free": "Ranks that should not matter",
    "compute": "Compute",
    "memory": "Memory",
}


@dataclass(frozen=True)
class Section:
    """A subject with its claims, figures and tables."""

    identity: str
    title: str
    claims: tuple[ClaimRow, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def finding_sections(view: StudyView) -> list[Section]:
    """Build the sections that a matrix's claims ask for."""
    claims = view.matrix.claims
    if not claims:
        return []
    evidence = view.evidence
    verdicts = {verdict.claim: verdict for verdict in view.verdicts}
    rows = {row.name: row for row in claim_rows(view)}
    found = []
    for rule, title in TITLES.items():
        names = [name for name, claim in claims.items() if claim.rule == rule]
        shown = [
            BUILDERS[rule](Subject(view, evidence, name, claims[name], verdicts[name]))
            for name in names
        ]
        # Two claims on one subject may show the same.
        tables = tuple(dict.fromkeys(table for each in shown for table in each.tables))
        figures = {str(figure.spec): figure for each in reversed(shown) for figure in each.figures}
        if rule == _rule_of_page_table(claims.values()):
            tables += (page_ranks_table(evidence, claims, verdicts),)
        if names:
            found.append(
                Section(
                    identity=f"on-{rule}",
                    title=title,
                    claims=tuple(rows[name] for name in names),
                    figures=tuple(
                        f for each in shown for f in each.figures if f in figures.values()
                    ),
                    tables=tables,
                    notes=tuple(text.clean(note) for each in shown for note in each.notes),
                )
            )
    return found


def _rule_of_page_table(claims: Iterable[Claim]) -> str:
    """The page's table of ranks stands under the claim on ranks in RL, or under that on capacity."""
    return "rank-free" if any(c.rule == "rank-free" for c in claims) else "capacity"
