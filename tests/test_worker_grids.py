"""For real: a grid is tried on validation rows alone, and an offset is another seed and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bench import bench
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.view import RunView, StudyView, load_view
from tests.grid_matrix import GRID

# `same` differs from `lora` in its name alone.
TEXT = (
    GRID.replace("[1e-4, 1e-3, 1e-2]", "[1e-4, 1e-2]")
    .replace("[100, 101]", "[100]")
    .replace(
        "      twin:", "      same: {method: lora, lora: {r: 4}, rate_of: lora}\n      twin:", 1
    )
)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    folder: Path = tmp_path_factory.mktemp("grid")
    (folder / "grid.yaml").write_text(TEXT)
    request = Request(
        matrix=str(folder / "grid.yaml"),
        output_dir=folder / "study",
        filters=("lora", "same", "twin"),
        seeds=(0,),
    )
    outcome = bench(request, LocalLauncher(is_cold=False), Quiet())
    assert outcome.exit_code == 0
    return load_view(outcome.store)


def judged(view: StudyView, arm: str) -> RunView:
    return next(r for r in view.runs if r.planned.arm == arm)


def losses(run: RunView) -> list[float | None]:
    return [step.logs["loss"] for step in run.steps]


def splits(run: RunView) -> set[str]:
    return {p.split for p in run.record.result.evaluations}


@pytest.mark.slow
def test_a_run_of_the_grid_sees_the_validation_rows_alone(view):
    assert len(view.grid) == 2
    for run in view.grid:
        assert splits(run) == {"validation"}
        assert run.summary.final_value is not None
    assert splits(judged(view, "lora")) == {"validation", "test"}
    by_rate = {r.planned.grid_rate: r.summary.final_value for r in view.grid}
    best = min(by_rate, key=by_rate.get)
    assert view.choices == {("sft-micro", "lora"): best}
    rates = {r.resolved_config["arguments"]["learning_rate"] for r in view.runs}
    assert rates == {best}


@pytest.mark.slow
def test_an_offset_is_another_training_seed_and_none_is_the_same_run(view):
    lora, same, twin = (judged(view, arm) for arm in ("lora", "same", "twin"))
    seeds = [run.resolved_config["arguments"]["seed"] for run in (lora, same, twin)]
    assert seeds == [0, 0, 5000]
    assert losses(lora) == losses(same) != losses(twin)
    hashes = [run.record.result.adapter_sha256 for run in (lora, same, twin)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert lora.summary.final_value == same.summary.final_value != twin.summary.final_value
    # Splits never depend on the seed: the untrained model scores the same everywhere.
    assert lora.summary.base_value == twin.summary.base_value
