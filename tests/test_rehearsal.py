"""Budgets and rehearsals: what they change of a matrix, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.catalog import DATASETS
from harness.errors import ConfigError
from harness.matrix import expand, load_matrix, parse_matrix
from harness.record import Status
from harness.rehearsal import BLOCK, LENGTHS, STEPS, adapt, rehearsal_notes
from harness.store import Store
from harness.view import load_view
from tests.conftest import MATRIX
from tests.grid_matrix import GRID

PAGE = ("blog", "smollm3", "doc-examples")
# What a rehearsal may give another value; every other argument is the matrix's own.
SCALED = {
    *LENGTHS,
    *("max_steps", "gradient_accumulation_steps", "use_vllm", "steps_per_generation"),
    *("vllm_importance_sampling_correction", "vllm_importance_sampling_mode"),
}


def rehearsed(name: str):
    real = adapt(load_matrix(name).matrix)
    return expand(real), expand(adapt(load_matrix(name).matrix, rehearses=True))


@pytest.mark.parametrize("name", [*PAGE, "smollm2", "cpu"])
def test_a_rehearsal_has_every_run_of_its_matrix(name):
    real, toys = rehearsed(name)
    assert [s.cell for s in toys] == [s.cell for s in real]
    assert {s.run_id for s in toys}.isdisjoint(s.run_id for s in real)


@pytest.mark.parametrize("name", PAGE)
def test_a_rehearsal_keeps_every_argument_but_the_scaled_ones(name):
    for real, toy in zip(*rehearsed(name), strict=True):
        different = {
            key
            for key in real.trainer.keys() | toy.trainer.keys()
            if real.trainer.get(key) != toy.trainer.get(key)
        }
        assert different <= SCALED
        assert (toy.lora, toy.reward, toy.method) == (real.lora, real.reward, real.method)
        assert toy.model.dtype == real.model.dtype
        assert toy.trainer["max_steps"] == STEPS


@pytest.mark.parametrize("name", PAGE)
def test_a_rehearsal_needs_neither_a_repository_nor_a_second_process(name):
    for _, toy in zip(*rehearsed(name), strict=True):
        assert toy.model.source.startswith("toy:")
        assert toy.dataset.rows_from == "fixture"
        assert toy.dataset.name in DATASETS
        assert toy.parallel is None


def test_what_was_scaled_is_said():
    notes = " ".join(rehearsal_notes(adapt(load_matrix("blog").matrix)))
    for said in ("max_length 2048 → 1024", "max_completion_length", "processes 4 → 1", "use_vllm"):
        assert said in notes
    rehearsal = adapt(load_matrix("blog").matrix, rehearses=True)
    assert notes.split("Scaled down")[1] in rehearsal.description
    assert rehearsal.scale == "rehearsal"


def test_whole_groups_are_left_when_accumulation_is_scaled():
    for _, toy in zip(*rehearsed("blog"), strict=True):
        if toy.task == "grpo":
            batch = toy.trainer["per_device_train_batch_size"]
            sampled = batch * toy.trainer["gradient_accumulation_steps"]
            assert sampled % toy.trainer["num_generations"] == 0


def test_a_model_without_a_toy_is_named():
    matrix = parse_matrix(MATRIX.replace("embedded:micro-llama", "Qwen/Qwen3-0.6"), "m.yaml")
    with pytest.raises(ConfigError) as caught:
        adapt(matrix, rehearses=True)
    assert len(caught.value.problems) == 2
    assert "did you mean 'Qwen/Qwen3-0.6B'" in str(caught.value)


def test_an_unknown_budget_lists_the_known_ones():
    matrix = load_matrix("smollm3").matrix
    with pytest.raises(ConfigError, match="expected one of short, standard"):
        adapt(matrix, "full")
    with pytest.raises(ConfigError, match="has no budgets"):
        adapt(load_matrix("cpu").matrix, "short")


def test_a_matrix_without_budgets_is_left_as_it_is():
    matrix = load_matrix("cpu").matrix
    assert adapt(matrix) == matrix


def rehearse(name: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`harness bench --rehearse` in a process that may not resolve any name but its own."""
    code = (
        "import socket, sys\n"
        "def refuse(*_a, **_k): raise OSError('a rehearsal asked for the network')\n"
        "socket.getaddrinfo = refuse\n"
        "from harness.cli import run\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    command = ["bench", "-m", name, "--rehearse", "-o", str(folder), *words]
    return subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )


def check(name: str, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    view = load_view(Store(folder))
    assert view.problems == ()
    assert view.study.is_rehearsal
    assert {f.word for f in view.findings} <= {"not tested"}
    for run in view.runs:
        assert run.record.status is Status.OK
        assert len(run.steps) == STEPS
        assert run.spec.model.source.startswith("toy:")
        assert all(step.logs["grad_norm"] > 0 for step in run.steps), "nothing would be updated"
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert f"Rehearsal: {len(view.runs)} of {len(view.runs)} runs went through." in page
    assert "Scaled down" in page


@pytest.mark.slow
def test_smollm3_is_rehearsed_through_trl_without_a_network(tmp_path):
    done = rehearse("smollm3", tmp_path / "study", "--seeds", "0")
    check("smollm3", tmp_path / "study", done)
    view = load_view(Store(tmp_path / "study"))
    lora = next(r for r in view.runs if r.planned.arm == "lora-r1")
    assert list((tmp_path / "study" / "runs").glob("*/attempt-1/adapter/*.safetensors"))
    assert {t.argument for t in lora.record.result.translations} >= {"max_prompt_length"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blog", "doc-examples"])
def test_every_run_of_the_page_is_rehearsed(name, tmp_path):
    check(name, tmp_path / "study", rehearse(name, tmp_path / "study"))


def test_a_block_moves_the_seeds_of_both_stages_and_nothing_else():
    grid = parse_matrix(GRID, "m")
    moved = adapt(grid, seed_block=3)
    assert moved.seeds == (3 * BLOCK, 3 * BLOCK + 1)
    assert moved.selection.seeds == (3 * BLOCK + 100, 3 * BLOCK + 101)
    kept = {"seeds": grid.seeds, "selection": grid.selection}
    assert moved.model_copy(update=kept) == grid
    assert adapt(grid, seed_block=0) == grid
    with pytest.raises(ConfigError, match="below 2"):
        adapt(grid, seed_block=10**6)


def test_a_rehearsal_tries_one_rate_of_a_grid_and_judges_nothing():
    matrix = adapt(parse_matrix(GRID, "m"), rehearses=True)
    specs = {s.cell: s for s in expand(matrix)}
    assert all(s.stage == "judge" for s in specs.values())
    for arm in ("lora", "twin"):
        assert specs[f"sft-micro.{arm}.s0"].trainer["learning_rate"] == 1e-3
    assert specs["sft-micro.twin.s0"].training_seed == 5000
    assert matrix.selection is None
