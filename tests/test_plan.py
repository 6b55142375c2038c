"""What a command asks for: runs that are known, runs that wait for their rate, and the study they join."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.plan import Plan, Request, command_text, resolve, runs_with
from harness.rehearsal import BLOCK
from harness.slots import Slot
from harness.store import Store
from harness.study_plan import planned_run, study_of
from tests.conftest import MATRIX
from tests.grid_matrix import GRID

CHOSEN = {("sft-micro", "lora"): 1e-3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "tiny.yaml").write_text(MATRIX)
    return tmp_path


def asked(folder: Path, name: str = "grid", **changes) -> Request:
    return Request(matrix=str(folder / f"{name}.yaml"), output_dir=folder / "study", **changes)


def cells(specs):
    return [s.cell for s in specs]


def test_judged_runs_of_a_swept_arm_come_later_and_take_its_name_then(folder):
    found = resolve(asked(folder))
    assert len(found.specs) == 6 + 6
    assert cells(found.later) == [
        *("sft-micro.lora.s0", "sft-micro.twin.s0", "sft-micro.twin.s1", "sft-micro.lora.s1"),
    ]
    assert found.foreseen == (*found.specs, *found.later)
    known, later = runs_with(found.loaded.matrix, asked(folder), CHOSEN)
    assert (len(known), later) == (16, ())
    assert {s.trainer["learning_rate"] for s in known if s.cell in cells(found.later)} == {1e-3}


def test_a_matrix_without_a_grid_has_nothing_to_wait_for(folder):
    assert resolve(asked(folder, "tiny")).later == ()


@pytest.mark.parametrize(
    ("pattern", "known", "later"),
    [
        ("lora", 6, 2),
        ("twin", 0, 2),
        ("sft-micro.lora.s0", 0, 1),
        ("*.lr1e-3.*", 2, 0),
        ("grpo-micro", 4, 0),
    ],
)
def test_a_filter_is_asked_of_both(folder, pattern, known, later):
    found = resolve(asked(folder, filters=(pattern,)))
    assert (len(found.specs), len(found.later)) == (known, later)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seeds": (0, 0)}, "expected one or more distinct seeds"),
        ({"seeds": ()}, "expected one or more distinct seeds"),
        ({"seeds": (1, 100)}, r"\[100, 101\] are the matrix's selection seeds"),
        ({"seeds": (0, 5000)}, r"trains on \[5000\], seeds of other runs"),
        ({"seeds": (2**32 - 1,)}, "expected seeds from 0 to below 2"),
        ({"seeds": (-1,)}, "expected seeds from 0 to below 2"),
        ({"seed_block": 2**20}, "--seed-block 1048576: expected seeds to stay below"),
        ({"overrides": {"learning_rate": 1e-3}}, "sft-micro.lora choose theirs from a grid"),
    ],
)
def test_seeds_and_rates_that_can_not_be_are_refused(folder, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        resolve(asked(folder, **changes))


def test_a_block_moves_every_seed_those_that_are_named_too(folder):
    found = resolve(asked(folder, seed_block=2))
    assert {s.seed for s in found.specs} == {2 * BLOCK + n for n in (0, 1, 100, 101)}
    named = resolve(asked(folder, seed_block=2, seeds=(7,)))
    assert {s.seed for s in named.specs if s.stage == "judge"} == {2 * BLOCK + 7}
    with pytest.raises(ConfigError, match="selection seeds"):
        resolve(asked(folder, seed_block=2, seeds=(100,)))


def test_a_block_is_a_study_of_its_own(folder):
    bare, block = (
        resolve(Request(matrix=str(folder / "grid.yaml"), seed_block=n)).output_dir for n in (0, 2)
    )
    assert (bare.name, block.name) == ("grid", "grid-block2")
    text = command_text({**_asked(), "seed_block": 2})
    assert text == "harness bench --matrix grid.yaml --seed-block 2"


def test_the_kept_command_names_its_stacks_and_no_place():
    text = command_text(
        {**_asked(), "seed_block": 0}, "local", None, ("1.14.2", "/a/b/trl"), ("peft=../peft",)
    )
    assert text == "harness bench --matrix grid.yaml --trl 1.14.2 --trl trl --with peft=peft"


def test_study_json_lists_both_stages_and_the_rate_that_was_chosen(folder):
    request = asked(folder)
    found = resolve(request)
    matrix = found.loaded.matrix
    known, _ = runs_with(matrix, request, CHOSEN)
    by_cell = {s.cell: planned_run(matrix, s) for s in known}
    tried, judged = by_cell["sft-micro.lora.lr1e-3.s100"], by_cell["sft-micro.lora.s0"]
    assert (tried.grid_rate, tried.chosen_rate) == (1e-3, None)
    assert (judged.grid_rate, judged.chosen_rate) == (None, 1e-3)
    assert by_cell["sft-micro.twin.s0"].chosen_rate == 1e-3
    assert by_cell["sft-micro.full.s0"].chosen_rate is None
    assert [run.cell for run in by_cell.values()] == list(by_cell)


def joined(folder: Path, store: Store, request: Request, chosen):
    """The study after a command that found these rates chosen."""
    found = resolve(request)
    specs, later = runs_with(found.loaded.matrix, request, chosen)
    slots = (Slot(0, None),)
    plan = Plan(found.loaded, specs, found.output_dir, slots, 1, 1, later=later)
    study = study_of(store, plan, request)
    store.prepare()
    store.write_study(study)
    return study


def test_a_study_is_trained_with_one_stack(folder):
    store = Store(folder / "study")
    first = joined(folder, store, asked(folder, stack="TRL 1.14.2"), CHOSEN)
    assert first.stack == "TRL 1.14.2"
    assert joined(folder, store, asked(folder, stack="TRL 1.14.2"), CHOSEN).stack == first.stack
    for other in (None, "TRL 1.16.0"):
        with pytest.raises(
            ConfigError, match=r"is trained with TRL 1\.14\.2, the command asks for"
        ):
            joined(folder, store, asked(folder, stack=other), CHOSEN)


def test_a_study_of_this_installation_keeps_its_old_form(folder):
    study = joined(folder, Store(folder / "study"), asked(folder), CHOSEN)
    assert "stack" not in study.model_dump()


def test_a_study_takes_the_newer_text_of_a_matrix_that_differs_in_seeds_alone(folder):
    """Its selection seeds are those that rates are chosen on."""
    store = Store(folder / "study")
    assert len(joined(folder, store, asked(folder), {}).planned) == 12
    newer = GRID.replace("[100, 101]", "[100, 101, 102]")
    (folder / "grid.yaml").write_text(newer)
    study = joined(folder, store, asked(folder), {})
    assert study.matrix_text == newer
    assert len(study.planned) == 15
    assert len(joined(folder, store, asked(folder), CHOSEN).planned) == 19


def test_a_study_of_another_block_is_refused(folder):
    store = Store(folder / "study")
    joined(folder, store, asked(folder), {})
    with pytest.raises(ConfigError, match="--seed-block"):
        joined(folder, store, asked(folder, seed_block=1), {})


def _asked():
    return {
        "matrix": "some/where/grid.yaml",
        "filters": (),
        "overrides": {},
        "budget": None,
        "rehearses": False,
        "seeds": None,
        "until_decided": False,
        "max_seeds": None,
    }


def test_a_matrix_that_is_edited_while_a_command_runs_changes_nothing_of_it(folder):
    request = asked(folder, "tiny").with_matrix()
    before = resolve(request).specs
    (folder / "tiny.yaml").write_text("name: [")
    assert resolve(request).specs == before
    with pytest.raises(ConfigError):
        resolve(asked(folder, "tiny"))
