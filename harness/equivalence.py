"""P values of a mean over seeds: below a bound, above it, or within two.

The same Student's t as the intervals of `stats`: `p_below` is under alpha where a two-sided interval of
confidence 1 − 2 alpha ends below the bound. 'Equal' is a claim of its own: a difference that isn't
significant doesn't show it, two one-sided tests (TOST) do. Without a spread there is no p value; against
a bound of 0, rounding can't be told from a spread, so ask for a difference that matters.
What this leaves out: choosing the bounds, and many claims at once (`multiplicity`).
"""

from __future__ import annotations

import math

from scipy import special

from harness.stats import NO_SPREAD, Estimate


def p_below(estimate: Estimate | None, bound: float) -> float | None:
    """Return the one-sided p value of H0: mean >= bound; non-inferiority, if the bound is a margin.

    Units: the bound in the estimate's. None of fewer than two values, of values that are all the same
    number, and of any that isn't finite. Raises: ValueError if the bound is NaN.
    """
    t = _statistic(estimate, bound)
    return None if t is None else float(special.stdtr(t[1], t[0]))


def p_above(estimate: Estimate | None, bound: float) -> float | None:
    """Return the one-sided p value of H0: mean <= bound; units, None and errors as in `p_below`."""
    t = _statistic(estimate, bound)
    return None if t is None else float(special.stdtr(t[1], -t[0]))


def p_within(estimate: Estimate | None, low: float, high: float) -> float | None:
    """Return the TOST's p value of H0: mean <= low or mean >= high; units and None as in `p_below`.

    It is the larger of two one-sided p values, so no correction is needed for there being two.
    Raises: ValueError unless low < high.

    Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987), 657–680.
    """
    if not low < high:
        raise ValueError(f"expected a low end below the high one, found {low:g} and {high:g}")
    above, below = p_above(estimate, low), p_below(estimate, high)
    return None if above is None or below is None else max(above, below)


def ratio_p_within(ratio: Estimate | None, low: float, high: float) -> float | None:
    """Return the TOST's p value of H0: a ratio isn't between two factors; None as in `p_below`.

    ratio: as from `stats.paired_ratio`; it is tested in logs, in which its spread is.
    Raises: ValueError unless 0 < low < high.
    """
    if not 0 < low < high:
        raise ValueError(f"expected factors 0 < low < high, found {low:g} and {high:g}")
    if ratio is None or not ratio.mean > 0:
        return None
    # The ends are not read: mean, spread and number are all that a p value needs.
    logs = Estimate(math.log(ratio.mean), None, None, ratio.n, ratio.sd)
    return p_within(logs, math.log(low), math.log(high))


def _statistic(estimate: Estimate | None, bound: float) -> tuple[float, int] | None:
    """Return Student's t against a bound and its degrees of freedom; None where there is no test."""
    if math.isnan(bound):
        raise ValueError("expected a bound that is a number, found NaN")
    if estimate is None or estimate.n < 2 or estimate.sd is None:
        return None
    if not (math.isfinite(estimate.mean) and math.isfinite(estimate.sd)):
        return None
    scale = abs(estimate.mean) + (abs(bound) if math.isfinite(bound) else 0.0)
    if estimate.sd <= NO_SPREAD * scale:
        return None
    t = (estimate.mean - bound) * math.sqrt(estimate.n) / estimate.sd
    return t, estimate.n - 1
