"""For real: probed runs say the same twice, are what they are without a probe, and see what they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.bench import bench
from harness.launch.local import LocalLauncher
from harness.matrix import load_matrix
from harness.plan import Request
from harness.probe import PROBE_FILE, Probe
from harness.progress import Quiet
from harness.record import Status
from harness.view import RunView, StudyView, load_view

pytestmark = pytest.mark.slow

CELLS = (
    "sft-plain.full.s0", "sft-plain.full-again.s0", "grpo-plain.lora-r8.s0",
    "grpo-plain.lora-r8-again.s0", "sft-resume.lora-r4.s0", "grpo-unscored.full.s0",
)  # fmt: skip
MEASURED = ("cpu_s", "rss_bytes")  # what no two runs have alike


def study(folder: Path, text: str, cells: tuple[str, ...], *, is_cold: bool) -> StudyView:
    (folder / "probes.yaml").write_text(text)
    request = Request(
        matrix=str(folder / "probes.yaml"), output_dir=folder / "study", filters=cells
    )
    outcome = bench(request, LocalLauncher(is_cold=is_cold), Quiet())
    return load_view(outcome.store)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    folder = tmp_path_factory.mktemp("probed")
    return study(folder, load_matrix("upgrade").text, CELLS, is_cold=False)


def run_of(view: StudyView, cell: str) -> RunView:
    return next(r for r in view.runs if r.spec and r.spec.cell == cell)


def attempt_of(view: StudyView, cell: str) -> Path:
    (found,) = view.root.glob(f"runs/{cell}-*/attempt-1")
    return found


def probe_of(view: StudyView, cell: str) -> Probe:
    return Probe.model_validate_json((attempt_of(view, cell) / PROBE_FILE).read_text())


def comparable(probe: Probe) -> dict[str, Any]:
    data = json.loads(probe.model_dump_json(exclude={"construct_cpu_s"}))
    for step in data["steps"]:
        for name in MEASURED:
            del step[name]
    return data


def test_runs_are_ok_and_their_probes_are_sealed_with_them(view):
    for cell in CELLS:
        record = run_of(view, cell).record
        assert record.status is Status.OK, record.reason
        assert PROBE_FILE in json.loads((attempt_of(view, cell).parent / "record.json").read_text())[
            "attempts"
        ][0]["files"]
        assert not (attempt_of(view, cell) / "trainer").exists()


@pytest.mark.parametrize("first", ["sft-plain.full", "grpo-plain.lora-r8"])
def test_an_arm_that_repeats_another_is_the_same_to_the_last_bit(view, first):
    one, again = probe_of(view, f"{first}.s0"), probe_of(view, f"{first}-again.s0")
    assert comparable(one) == comparable(again)


def test_a_fresh_process_says_the_same(view, tmp_path):
    cold = study(tmp_path, load_matrix("upgrade").text, CELLS[2:3], is_cold=True)
    assert comparable(probe_of(cold, CELLS[2])) == comparable(probe_of(view, CELLS[2]))


def test_a_run_trains_as_it_does_without_a_probe(view, tmp_path):
    text = load_matrix("upgrade").text.replace("probe: {checks: [generation, reload, merge]}", "")
    bare = study(tmp_path, text, CELLS[:1], is_cold=False)
    assert not (attempt_of(bare, CELLS[0]) / PROBE_FILE).exists()
    probed, unprobed = run_of(view, CELLS[0]), run_of(bare, CELLS[0])
    assert [s.logs["loss"] for s in probed.steps] == [s.logs["loss"] for s in unprobed.steps]
    assert probed.summary.final_value == unprobed.summary.final_value


def test_a_step_says_what_it_was_made_of(view):
    probe = probe_of(view, CELLS[0])
    assert [step.step for step in probe.steps] == [1, 2, 3, 4, 5]
    logged = [step.logs["loss"] for step in run_of(view, CELLS[0]).steps]
    assert [sum(step.losses) for step in probe.steps] == pytest.approx(logged, rel=1e-3)
    for step in probe.steps:
        assert step.counts["sequences"] == 4
        assert 0 < step.counts["trained_tokens"] < step.counts["input_tokens"]
        assert step.counts["forwards"] == 1
        assert {"attention", "mlp", "norm", "embeddings"} == step.gradient.keys()
        assert all(step.update.values())
    assert len({step.sha256 for step in probe.steps} | {probe.initial_sha256}) == 6


def test_an_adapter_is_told_by_its_halves_and_begins_at_zero(view):
    probe = probe_of(view, CELLS[2])
    assert probe.steps[0].gradient["attention.lora_A"] == 0.0
    assert probe.steps[0].gradient["attention.lora_B"] > 0.0
    assert probe.steps[1].gradient["attention.lora_A"] > 0.0
    assert probe.checks["adapter/scaling"].value == (4.0,)
    assert probe.checks["reload/agrees"].value is True
    assert probe.checks["merge/agrees"].value is True


def test_a_resumed_run_ends_where_the_uninterrupted_one_did(view):
    checks = probe_of(view, CELLS[4]).checks
    assert checks["resume/same"].value is True
    assert checks["resume/steps"].value == (5, 6)


def test_unscored_completions_are_counted(view):
    steps = probe_of(view, CELLS[5]).steps
    assert sum(step.counts["rewards/probe_partial_reward/none"] for step in steps) > 0
    assert all(step.hashes["rewards/probe_partial_reward"] for step in steps)
