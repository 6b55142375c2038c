"""The learning rates tried: what each came to, which was chosen, and what is missing."""

from __future__ import annotations

import pytest

from harness.rate_tables import grid_runs_tables, rates_tables
from tests.claims_study import claims_matrix, claims_plan, claims_study, offset
from tests.study_factory import build_study

ONLY = ("match-r256", "match-r16")


def rows_of(study):
    (table,) = rates_tables(study)
    return {(row[1], row[2]): row for row in table.rows}


@pytest.fixture(scope="module")
def study():
    return claims_study(matrix=claims_matrix(only=ONLY))


def test_the_chosen_rate_is_marked_and_its_mean_is_that_of_its_seeds(study):
    rows = rows_of(study)
    chosen = [key for key, row in rows.items() if row[-1].startswith("chosen")]
    assert chosen == [(arm, "3e-4" if arm == "full" else "3e-3") for arm, _ in chosen]
    mean, *seeds = (float(value) for value in rows["full", "3e-4"][3:7])
    assert mean == pytest.approx(sum(seeds) / 3, abs=1e-4)


def test_an_arm_that_takes_another_arms_rate_says_whose(study):
    assert rows_of(study)["full-again", "3e-4"][-1] == "takes the rate of full"


def test_an_edge_is_flagged():
    def lower(spec, step):
        rate = float(str(spec.trainer["learning_rate"]))
        return offset(spec, step) if spec.stage == "judge" else 500 * rate

    plan = claims_plan(offset=lower)
    rows = rows_of(claims_study(plan, claims_matrix(only=ONLY)))
    assert rows["full", "1e-4"][-1] == "chosen, the lowest of the grid: a better one may lie beyond"


def test_a_rate_that_failed_has_its_status_and_no_mean():
    plan = claims_plan(failures={"sft-rank.full.lr3e-4.s101": "diverged"})
    row = rows_of(claims_study(plan, claims_matrix(only=ONLY)))["full", "3e-4"]
    assert row[3] == "\u2013"
    assert row[5] == "diverged"
    assert row[-2] == "ok, diverged"


@pytest.mark.slow
def test_an_arm_that_waits_says_for_what():
    plan = claims_plan(failures={"sft-rank.full.lr3e-4.s101": "missing"})
    study = claims_study(plan, claims_matrix(only=ONLY))
    assert "no rate is chosen yet" in rows_of(study)["full", "3e-4"][-1]
    assert rows_of(study)["full-again", "not chosen yet"]


def test_runs_of_grids_are_listed_apart(study):
    (table,) = grid_runs_tables(study)
    assert len(table.rows) == len(study.grid) == 4 * 4 * 3
    assert table.is_long
    assert {row[1] for row in table.rows} == {"ok"}


def test_a_study_without_grids_has_no_such_tables():
    assert rates_tables(build_study()) == grid_runs_tables(build_study()) == ()
