"""The worker for real: TRL's trainers on the embedded model, warm, again, and cold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench import Outcome, bench
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.record import Status
from harness.view import StudyView, load_view
from tests.conftest import MATRIX

CELLS = ("sft-micro.lora.s0", "grpo-micro.lora-r1.s0", "sft-micro.full.s0")


def study(
    folder: Path, cells: tuple[str, ...], is_cold: bool, **overrides: object
) -> tuple[Outcome, StudyView]:
    """Run some cells of the tiny matrix with the real worker."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(MATRIX)
    request = Request(
        matrix=str(folder / "tiny.yaml"),
        output_dir=folder / "study",
        overrides=overrides,
        filters=cells,
        seeds=(0,),
    )
    outcome = bench(request, LocalLauncher(is_cold=is_cold), Quiet())
    return outcome, load_view(outcome.store)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, StudyView]:
    return study(tmp_path_factory.mktemp("warm") / "a", CELLS, is_cold=False)


def numbers(view: StudyView, cell: str) -> list[dict[str, float | None]]:
    """Everything TRL logged for a run, step by step."""
    run = next(r for r in view.runs if r.spec and r.spec.cell == cell)
    timed = ("step_time", "generation_time", "profiling")
    return [{k: v for k, v in s.logs.items() if not k.startswith(timed)} for s in run.steps]


def test_trl_trains_and_everything_is_recorded(warm):
    outcome, view = warm
    assert outcome.exit_code == 0
    for run in view.runs:
        assert run.record is not None
        assert run.summary is not None
        assert run.record.status is Status.OK, run.record.reason
        result = run.record.result
        assert result is not None
        assert result.started_warm
        assert result.steps_done == 3 == len(run.steps)
        assert run.summary.base_value is not None
        assert run.summary.final_value is not None
        assert run.summary.trained_tokens_per_s
        assert run.summary.model_flops_per_step
        assert {"load", "build", "evaluate", "train"} <= {p.phase for p in run.phases}
        assert run.summary.peak_bytes["rss"]["training"]
        assert run.record.sampler is not None
        assert run.environment["format"] == 1
        assert run.resolved_config["arguments"]["learning_rate"] in (1e-3, 1e-4)


def test_grpo_is_sampled_and_rewarded(warm):
    _, view = warm
    run = next(r for r in view.runs if r.planned.pair == "grpo-micro")
    assert run.summary is not None
    assert run.summary.metric == "reward"
    assert run.summary.generated_tokens_per_s
    assert sum(p.phase == "generate" for p in run.phases) == 3
    assert all(s.generated_tokens for s in run.steps)
    assert all(s.logs["reward"] is not None for s in run.steps)


def test_sft_learns_and_lora_trains_the_adapter_alone(warm):
    _, view = warm
    lora = next(r for r in view.runs if r.planned.arm == "lora")
    full = next(r for r in view.runs if r.planned.arm == "full")
    counts = lora.record.result.parameters
    assert counts.trainable == counts.adapter > 0
    assert counts.matmul_trainable == 0
    whole = full.record.result.parameters
    assert whole.trainable == whole.total
    assert lora.summary.base_value == pytest.approx(full.summary.base_value, abs=1e-6)


@pytest.mark.slow
def test_a_rerun_with_the_same_seed_is_bit_identical_warm_and_cold(warm, tmp_path):
    _, first = warm
    _, again = study(tmp_path / "again", CELLS[:2], is_cold=False, report_to="trackio")
    _, cold = study(tmp_path / "cold", CELLS[:2], is_cold=True)
    assert not any(r.record.result.started_warm for r in cold.runs)
    for cell in CELLS[:2]:
        assert numbers(first, cell) == numbers(again, cell)
        assert numbers(first, cell) == numbers(cold, cell)
        hashes = {
            r.record.result.adapter_sha256
            for view in (first, again, cold)
            for r in view.runs
            if r.spec.cell == cell
        }
        assert len(hashes) == 1
        assert None not in hashes
    assert (tmp_path / "again/study/trackio/study.db").is_file()  # logging changed no number


def test_no_place_of_this_machine_is_in_what_is_published(warm):
    outcome, _ = warm
    root = str(outcome.store.root.resolve().parent)
    for path in (outcome.store.report_dir).rglob("*"):
        if path.is_file():
            assert root not in path.read_text(encoding="utf-8", errors="replace"), path.name
    assert json.loads((outcome.store.report_dir / "data.json").read_text())
