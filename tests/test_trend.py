"""Page's test over seeds, against published numbers and permutations counted by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import permutations, product

import pytest

from harness.trend import trend_p

# Ten students rate tutorial, lecture and seminar: Statext's example, which scipy's manual takes up.
STUDENTS = [
    *([3, 4, 3], [2, 2, 4], [3, 3, 5], [1, 3, 2], [2, 3, 2]),
    *([2, 4, 5], [1, 2, 4], [3, 4, 4], [2, 4, 5], [1, 3, 4]),
]


def test_the_published_example():
    assert trend_p(STUDENTS, "increasing") == pytest.approx(0.0018191161948127822)
    assert trend_p([row[::-1] for row in STUDENTS], "decreasing") == pytest.approx(
        0.0018191161948127822
    )


def test_two_seeds_are_counted_out():
    """Of 6 × 6 pairs of orders, one is as far up as two perfect rows."""
    assert trend_p([[1, 2, 3], [4, 5, 9]], "increasing") == pytest.approx(1 / 36)
    assert trend_p([[1, 2, 3], [4, 5, 9]], "decreasing") == pytest.approx(1.0)


def test_all_orders_of_three_seeds_keep_the_error_rate():
    orders = list(permutations((1.0, 2.0, 3.0)))
    studies = list(product(orders, repeat=3))
    p_values = [trend_p(study, "increasing") for study in studies]
    false = sum(p is not None and p <= 0.05 for p in p_values)
    assert 0 < false <= 0.05 * len(studies)


def test_a_seed_s_level_and_scale_do_not_matter():
    rows = [[1.0, 3.0, 2.0, 4.0], [1.0, 2.0, 3.0, 5.0], [2.0, 1.0, 3.0, 4.0]]
    moved = [[100 * i + 10**i * v for v in row] for i, row in enumerate(rows)]
    assert trend_p(moved, "increasing") == trend_p(rows, "increasing") < 0.05


def test_ties_make_the_test_careful():
    clear = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.5, 4.0], [1.0, 2.0, 3.0, 4.5]]
    tied = [[1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.5]]
    assert trend_p(tied, "increasing") > trend_p(clear, "increasing")


def test_a_rank_that_never_departs_is_later_than_all_that_do():
    never = [[10.0, 40.0, math.inf], [12.0, 35.0, math.inf], [9.0, math.inf, math.inf]]
    late = [[10.0, 40.0, 99.0], [12.0, 35.0, 99.0], [9.0, 99.0, 99.0]]
    assert trend_p(never, "increasing") == trend_p(late, "increasing") < 0.05


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[1.0, 2.0, 3.0]],
        [[], []],
        [[1.0, 2.0], [1.0, 3.0], [2.0, 4.0]],
        [[1.0, 2.0, 3.0], [1.0, math.nan, 3.0], [1.0, 2.0, 4.0]],
        [[1.0, 2.0, 3.0]] * 5,
        [[1.0] * 3, [2.0] * 3, [3.0] * 3],
    ],
    ids=["nothing", "one seed", "no arms", "two arms", "NaN", "copies", "no order"],
)
def test_what_can_show_no_trend_has_no_p_value(rows):
    assert trend_p(rows, "increasing") is None
    assert trend_p(rows, "decreasing") is None


def test_rows_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many values in every row"):
        trend_p([[1.0, 2.0, 3.0], [1.0, 2.0]], "increasing")


def test_the_command_line_does_not_pay_for_scipy_stats():
    modules = "harness.equivalence, harness.multiplicity, harness.optimum, harness.trend"
    check = f"import sys, {modules}; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_steps_may_agree_in_every_seed_without_being_copies():
    rows = [(60.0, math.inf, math.inf)] * 5
    assert trend_p(rows, "increasing") is None
    p = trend_p(rows, "increasing", is_discrete=True)
    assert p is not None
    assert p < 0.025
    assert trend_p([(60.0, 60.0, 60.0)] * 5, "increasing", is_discrete=True) is None
