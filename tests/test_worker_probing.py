"""For real: probed runs say the same twice, are what they are without a probe, and see what they should."""

from __future__ import annotations

import json
from dataclasses import dataclass
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
MEASURED = ("cpu_s", "pace_s", "rss_bytes", "held")  # what no two runs have alike


@dataclass(frozen=True)
class Study:
    """A study that was run here."""

    root: Path
    view: StudyView

    def run(self, cell: str) -> RunView:
        return next(r for r in self.view.runs if r.spec and r.spec.cell == cell)

    def attempt(self, cell: str) -> Path:
        (found,) = self.root.glob(f"runs/{cell}-*/attempt-1")
        return found

    def probe(self, cell: str) -> Probe:
        return Probe.model_validate_json((self.attempt(cell) / PROBE_FILE).read_text())


def train(folder: Path, text: str, cells: tuple[str, ...], *, is_cold: bool) -> Study:
    (folder / "probes.yaml").write_text(text)
    request = Request(
        matrix=str(folder / "probes.yaml"), output_dir=folder / "study", filters=cells
    )
    outcome = bench(request, LocalLauncher(is_cold=is_cold), Quiet())
    return Study(outcome.store.root, load_view(outcome.store))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("probed")
    return train(folder, load_matrix("upgrade").text, CELLS, is_cold=False)


def comparable(probe: Probe) -> dict[str, Any]:
    data = json.loads(probe.model_dump_json(exclude={"construct_cpu_s"}))
    for step in data["steps"]:
        for name in MEASURED:
            del step[name]
    return data


def test_runs_are_ok_and_their_probes_are_sealed_with_them(study):
    for cell in CELLS:
        record = study.run(cell).record
        assert record.status is Status.OK, record.reason
        assert PROBE_FILE in record.files
        assert not (study.attempt(cell) / "trainer").exists()


@pytest.mark.parametrize("first", ["sft-plain.full", "grpo-plain.lora-r8"])
def test_an_arm_that_repeats_another_is_the_same_to_the_last_bit(study, first):
    one, again = study.probe(f"{first}.s0"), study.probe(f"{first}-again.s0")
    assert comparable(one) == comparable(again)


def test_what_is_alive_is_counted_and_repeats(study):
    one, again = study.probe("sft-plain.full.s0"), study.probe("sft-plain.full-again.s0")
    tensors = [step.held["tensors"] for step in one.steps]
    assert tensors == [step.held["tensors"] for step in again.steps]
    assert tensors[2] == tensors[3] == tensors[4] > 100, "parameters and the optimizer's state"
    sizes = [step.held["tensor_bytes"] for step in one.steps]
    assert sizes == [step.held["tensor_bytes"] for step in again.steps]
    assert min(sizes) > 3 * 3_000_000, "weights and two moments, in bytes"
    assert all(step.held["blocks"] > step.held["objects"] > 1000 for step in one.steps)
    assert all(0 < step.pace_s < 1 for step in one.steps)


def test_a_fresh_process_says_the_same(study, tmp_path):
    cold = train(tmp_path, load_matrix("upgrade").text, CELLS[2:3], is_cold=True)
    assert comparable(cold.probe(CELLS[2])) == comparable(study.probe(CELLS[2]))


def test_a_run_trains_as_it_does_without_a_probe(study, tmp_path):
    text = load_matrix("upgrade").text.replace("probe: {checks: [generation, reload, merge]}", "")
    bare = train(tmp_path, text, CELLS[:1], is_cold=False)
    assert not (bare.attempt(CELLS[0]) / PROBE_FILE).exists()
    probed, unprobed = study.run(CELLS[0]), bare.run(CELLS[0])
    assert [s.logs["loss"] for s in probed.steps] == [s.logs["loss"] for s in unprobed.steps]
    assert probed.summary.final_value == unprobed.summary.final_value


def test_a_step_says_what_it_was_made_of(study):
    probe = study.probe(CELLS[0])
    assert [step.step for step in probe.steps] == [1, 2, 3, 4, 5]
    logged = [step.logs["loss"] for step in study.run(CELLS[0]).steps]
    assert [sum(step.losses) for step in probe.steps] == pytest.approx(logged, rel=1e-3)
    for step in probe.steps:
        assert step.counts["sequences"] == 4
        assert 0 < step.counts["trained_tokens"] < step.counts["input_tokens"]
        assert step.counts["forwards"] == 1
        assert step.gradient.keys() == {"attention", "mlp", "norm", "embeddings"}
        assert all(step.update.values())
    assert len({step.sha256 for step in probe.steps} | {probe.initial_sha256}) == 6


def test_an_adapter_is_told_by_its_halves_and_begins_at_zero(study):
    probe = study.probe(CELLS[2])
    assert probe.precision == "float32"
    assert probe.steps[0].gradient["attention.lora_A"] == 0.0
    assert probe.steps[0].gradient["attention.lora_B"] > 0.0
    assert probe.steps[1].gradient["attention.lora_A"] > 0.0
    assert probe.checks["adapter/scaling"].value == (4.0,)
    assert probe.checks["reload/agrees"].value is True
    assert probe.checks["merge/agrees"].value is True


def test_a_resumed_run_ends_where_the_uninterrupted_one_did(study):
    checks = study.probe(CELLS[4]).checks
    assert checks["resume/same"].value is True
    assert checks["resume/steps"].value == (5, 6)


def test_unscored_completions_are_counted(study):
    steps = study.probe(CELLS[5]).steps
    assert sum(step.counts["rewards/probe_partial_reward/none"] for step in steps) > 0
    assert all(step.hashes["rewards/probe_partial_reward"] for step in steps)
