"""Which runs a grid of learning rates makes, when, and under which names."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError
from harness.matrix import (
    expand,
    margins_hash,
    matrix_hash,
    parse_matrix,
    select,
    with_overrides,
)
from tests.conftest import MATRIX
from tests.grid_matrix import GRID

CHOSEN = {("sft-micro", "lora"): 1e-3}


@pytest.fixture
def grid():
    return parse_matrix(GRID, "m")


def cells(specs):
    return [s.cell for s in specs]


def test_the_grid_comes_first_and_swept_arms_are_judged_once_a_rate_is_chosen(grid):
    found = expand(grid)
    assert cells(found)[:6] == [
        "sft-micro.lora.lr1e-4.s100",
        "sft-micro.lora.lr1e-3.s100",
        "sft-micro.lora.lr1e-2.s100",
        "sft-micro.lora.lr1e-2.s101",
        "sft-micro.lora.lr1e-3.s101",
        "sft-micro.lora.lr1e-4.s101",
    ]
    assert cells(found)[6:8] == ["sft-micro.full.s0", "sft-micro.full.s1"]
    assert [s.stage for s in found] == ["select"] * 6 + ["judge"] * 6
    judged = expand(grid, chosen=CHOSEN)
    assert cells(judged)[6:9] == [
        "sft-micro.full.s0",
        "sft-micro.lora.s0",
        "sft-micro.twin.s0",
    ]
    assert len(judged) == 6 + 6 + 4
    assert judged[:6] == found[:6]


def test_a_judged_run_has_the_chosen_rate_and_differs_from_the_grid_s_in_id(grid):
    runs = {s.cell: s for s in expand(grid, chosen=CHOSEN)}
    lora, twin = runs["sft-micro.lora.s0"], runs["sft-micro.twin.s0"]
    assert lora.trainer["learning_rate"] == twin.trainer["learning_rate"] == 1e-3
    assert (lora.grid_rate, runs["sft-micro.lora.lr1e-4.s100"].grid_rate) == (None, 1e-4)
    assert (lora.training_seed, twin.training_seed) == (0, 5000)
    assert (lora.judged_split, lora.measured_splits) == ("test", ("validation", "test"))
    tried = runs["sft-micro.lora.lr1e-3.s100"]
    assert (tried.judged_split, tried.measured_splits) == ("validation", ("validation",))
    assert len({s.run_id for s in runs.values()}) == len(runs)
    other = expand(grid, chosen={("sft-micro", "lora"): 1e-4})
    assert {s.run_id for s in other if s.cell == "sft-micro.lora.s0"} != {lora.run_id}


def test_ids_are_stable_and_a_run_without_a_grid_is_the_one_it_always_was(grid):
    """Written down once: a change here orphans every study that was made before."""
    ids = {s.cell: s.run_id.rpartition("-")[2] for s in expand(grid, chosen=CHOSEN)}
    bare = {s.cell: s.run_id.rpartition("-")[2] for s in expand(parse_matrix(MATRIX, "m"))}
    assert bare["sft-micro.full.s0"] == "4acea79d"
    assert bare["grpo-micro.lora-r1.s1"] == ids["grpo-micro.lora-r1.s1"] == "630ed6f8"
    assert ids["sft-micro.lora.lr1e-4.s100"] == "e0f59f29"
    assert ids["sft-micro.lora.s0"] == "db81b774"


def test_an_offset_of_nothing_and_the_judged_stage_do_not_show_in_a_spec(grid):
    dumped = expand(parse_matrix(MATRIX, "m"))[0].model_dump()
    assert not {"stage", "seed_offset"} & dumped.keys()
    assert {"stage"} <= expand(grid)[0].model_dump().keys()


def test_adapters_are_kept_of_judged_runs_alone():
    kept = parse_matrix(GRID.replace("name: grid", "name: grid\nkeeps_adapters: true"), "m")
    assert {s.arm for s in expand(kept, chosen=CHOSEN) if s.keeps_adapter} == {
        "lora",
        "twin",
        "lora-r1",
    }
    assert not any(s.keeps_adapter for s in expand(kept) if s.stage == "select")


def test_a_filter_takes_an_arm_with_its_grid_or_a_cell_or_a_rate(grid):
    every = expand(grid, chosen=CHOSEN)
    assert len(select(every, ["lora"])) == 6 + 2
    assert cells(select(every, ["sft-micro.lora.s1"])) == ["sft-micro.lora.s1"]
    assert cells(select(every, ["*.lr1e-3.*"])) == [
        "sft-micro.lora.lr1e-3.s100",
        "sft-micro.lora.lr1e-3.s101",
    ]
    assert cells(select(every, ["*.s101"])) == cells(every)[3:6]
    with pytest.raises(ConfigError, match="matches no run"):
        select(every, ["*.lr2e-3.*"])


def test_other_seeds_leave_the_grid_as_it_is(grid):
    found = expand(grid, seeds=(7,), chosen=CHOSEN)
    assert {s.seed for s in found if s.stage == "select"} == {100, 101}
    assert {s.seed for s in found if s.stage == "judge"} == {7}


def test_a_rate_can_not_be_set_where_it_is_chosen(grid):
    with pytest.raises(ConfigError, match=r"sft-micro\.lora choose theirs from a grid"):
        with_overrides(grid, {"learning_rate": 1e-3})
    with_overrides(grid, {"max_steps": 2})


def test_seeds_of_either_stage_make_the_same_study_and_rates_do_not(grid):
    more = parse_matrix(GRID.replace("[0, 1]", "[0, 1, 2]").replace("[100, 101]", "[100]"), "m")
    rates = parse_matrix(GRID.replace("1e-4, 1e-3, 1e-2", "1e-4, 1e-3"), "m")
    none = parse_matrix(MATRIX.replace("name: tiny", "name: grid"), "m")
    assert matrix_hash(grid, {}) == matrix_hash(more, {})
    assert len({matrix_hash(m, {}) for m in (grid, rates, none)}) == 3
    assert margins_hash(grid) == margins_hash(more) == margins_hash(rates) == margins_hash(none)


def test_hashes_of_a_matrix_without_grids_and_claims_are_those_that_were_written_before():
    bare = parse_matrix(MATRIX, "m")
    assert (matrix_hash(bare, {})[:8], margins_hash(bare)[:8]) == ("d406aabc", "82ecf05e")
