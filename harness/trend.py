"""Whether a figure rises or falls along ordered arms, as with the rank: Page's test over seeds.

Only the order within a seed counts, so seeds may differ in level and no distribution is assumed. What
this leaves out: how steep the trend is, and where it bends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Direction = Literal["increasing", "decreasing"]
LEAST_ROWS = 2
LEAST_COLUMNS = 3


def trend_p(
    rows: Sequence[Sequence[float]], direction: Direction, *, is_discrete: bool = False
) -> float | None:
    """Return the one-sided p value of H0: within a seed, no arm tends to more than another.

    Shapes: a row for each seed, a column for each arm in the order of the claim. Infinity is allowed,
    as for a rank that never departs; ties take their mean rank, which makes the test careful. Up to 8
    columns and 12 rows the p value is exact, beyond that asymptotic: at 9 to 12 columns of 3 rows it
    stays within 5.1 % where 5 % is asked.

    None of fewer than two rows or three columns, if any value is NaN, if no row orders its arms, or if all
    rows are the same numbers: copies are not seeds. Values that are `is_discrete`, as counts of steps, may
    agree in every seed without being copies. Raises: ValueError if rows differ in length.

    Source: Page, J. Am. Stat. Assoc. 58 (1963), 216–230.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(f"expected as many values in every row, found {sorted(lengths)}")
    if len(rows) < LEAST_ROWS or min(lengths) < LEAST_COLUMNS:
        return None
    if any(math.isnan(value) for row in rows for value in row):
        return None
    are_copies = len({tuple(row) for row in rows}) == 1 and not is_discrete
    if are_copies or all(len(set(row)) == 1 for row in rows):
        return None
    from scipy import stats  # takes a second to load, which only a trend has to pay

    sign = 1.0 if direction == "increasing" else -1.0
    result = stats.page_trend_test([[sign * value for value in row] for row in rows])
    return float(result.pvalue)
