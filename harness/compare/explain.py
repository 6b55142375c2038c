"""Likely causes of what a comparison found, and what a user of TRL will notice.

What this leaves out: finding differences, which is the comparison's work. An explanation changes no
word of it.
"""

from __future__ import annotations

from harness.compare.evidence import gather
from harness.compare.model import Comparison
from harness.compare.notices import list_notices
from harness.compare.side import Side
from harness.compare.suspects import rank_causes


def explain(comparison: Comparison, base: Side, candidate: Side) -> Comparison:
    """Fill a comparison's causes, the likeliest first, and its notices."""
    evidence = gather(comparison, base, candidate)
    return comparison.model_copy(
        update={"causes": rank_causes(evidence), "notices": list_notices(evidence)}
    )
