"""Two numbers held against each other, and how a sentence tells them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.text import MINUS, MISSING

Number = float | int | None
LOGGED_UNIT = 1e-4


def gap(base: Number, candidate: Number, least_scale: float = 0.0) -> float:
    """Return the relative difference: 0 for equal numbers, infinity where one side has none.

    What is not finite is equal to its like alone.

    Relative to the larger of both, and at least to `least_scale`: the size that a number near zero
    stands beside, e.g. the terms that cancel in it.
    """
    if base is None or candidate is None:
        return 0.0 if base is candidate else math.inf
    if base == candidate or (math.isnan(base) and math.isnan(candidate)):
        return 0.0
    if not (math.isfinite(base) and math.isfinite(candidate)):
        return math.inf
    return abs(candidate - base) / max(abs(base), abs(candidate), least_scale)


def row_gap(
    base: Sequence[Number], candidate: Sequence[Number], least_scale: float = 0.0
) -> tuple[float, int]:
    """Return the largest gap of two rows and where it is; infinity if they differ in length."""
    if len(base) != len(candidate):
        return math.inf, 0
    gaps = [gap(b, c, least_scale) for b, c in zip(base, candidate, strict=True)]
    if not gaps:
        return 0.0, 0
    place = max(range(len(gaps)), key=gaps.__getitem__)
    return gaps[place], place


def is_rounding_of_log(base: Number, candidate: Number) -> bool:
    """Whether two logged losses agree as far as they were logged.

    transformers 4 rounds a logged loss to four decimals; a probe has the losses as they were.
    """
    if base is None or candidate is None or not math.isfinite(base - candidate):
        return False
    allowed = LOGGED_UNIT / 2 * (_is_logged_short(base) + _is_logged_short(candidate))
    return abs(base - candidate) <= allowed * (1 + 1e-6)


def _is_logged_short(value: float) -> bool:
    units = value / LOGGED_UNIT
    return abs(units - round(units)) < 1e-7 * max(1.0, abs(units))


def became(base: object, candidate: object) -> str:
    """Write 'X became Y', with as many digits as it takes to see that they differ."""
    if _is_number(base) and _is_number(candidate):
        for digits in (4, 7, 10, 13, 17):
            first, second = f"{base:.{digits}g}", f"{candidate:.{digits}g}"
            if first != second:
                break
        return f"{first.replace('-', MINUS)} became {second.replace('-', MINUS)}"
    return f"{_shown(base)} became {_shown(candidate)}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if value is None:
        return MISSING
    text = f"{value:.7g}".replace("-", MINUS) if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
