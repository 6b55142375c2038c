"""GRPO with vLLM beside the trainer, for real, on a CPU: `make test-vllm`.

Workers import vLLM; this process does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.bench import Outcome, bench
from harness.launch import Launch
from harness.launch.ending import read_result
from harness.launch.local import LocalLauncher
from harness.matrix import expand, load_matrix, select
from harness.plan import Request
from harness.progress import Quiet
from harness.record import Status
from harness.spec import RunSpec
from harness.store import Store
from tests.waiting import wait_until

pytestmark = pytest.mark.vllm

STEPS = 25
MATRIX = f"""\
format: 1
name: vllm
title: The engine that samples, as an axis
scale: embedded
device: cpu
seeds: [0]
warmup_steps_excluded: 1
pairs:
  grpo:
    task: grpo
    model: {{source: "embedded:micro-llama"}}
    dataset: {{name: micro-arithmetic, train_rows: 600, test_rows: 256}}
    reward: reasoning_accuracy
    evaluation: {{batch_size: 256}}
    margin: 0.05
    margin_reason: a test
    declared_differences: [learning_rate, use_vllm]
    trainer:
      per_device_train_batch_size: 64
      num_generations: 8
      gradient_accumulation_steps: 1
      steps_per_generation: 1
      max_completion_length: 24
      max_steps: {STEPS}
      lr_scheduler_type: constant
      bf16: false
      gradient_checkpointing: false
      vllm_mode: colocate
      vllm_max_model_length: 128
    arms:
      full: {{method: full, trainer: {{learning_rate: 2e-4, use_vllm: true}}}}
      lora-r1: {{method: lora, lora: {{r: 1}}, trainer: {{learning_rate: 1e-3}}}}
      lora-r1-vllm: {{method: lora, lora: {{r: 1}}, trainer: {{learning_rate: 1e-3, use_vllm: true}}}}
"""
WITH_VLLM = ("full", "lora-r1-vllm")


class Study:
    """The matrix, trained, and where its files lie."""

    def __init__(self, outcome: Outcome, matrix: Path) -> None:
        self.outcome = outcome
        self.matrix = matrix
        self.store = outcome.store

    def attempt(self, arm: str) -> Path:
        run_id = next(r for r in self.outcome.statuses if f".{arm}." in r)
        return self.store.run_dir(run_id) / "attempt-1"

    def result(self, arm: str) -> dict[str, Any]:
        return json.loads((self.attempt(arm) / "result.json").read_text())

    def rows(self, arm: str, name: str) -> list[dict[str, Any]]:
        lines = (self.attempt(arm) / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("vllm")
    matrix = folder / "vllm.yaml"
    matrix.write_text(MATRIX)
    # Two engines side by side where there are two cores: they must not get in each other's way.
    jobs = min(2, len(os.sched_getaffinity(0)))
    request = Request(matrix=str(matrix), output_dir=folder / "study", jobs=jobs)
    return Study(bench(request, LocalLauncher(is_cold=False), Quiet()), matrix)


def test_every_arm_trains_whatever_samples_for_it(study):
    reasons = [r.record.reason for r in study.outcome.view.runs]
    assert set(study.outcome.statuses.values()) == {Status.OK}, reasons
    assert study.outcome.exit_code == 0


@pytest.mark.parametrize("arm", WITH_VLLM)
def test_the_reward_moves(study, arm):
    rewards = [row["logs"]["reward"] for row in study.rows(arm, "steps")]
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert len(rewards) == STEPS
    assert last > first + 0.2
    held_out = [e["value"] for e in study.result(arm)["evaluations"]]
    assert held_out[-1] > held_out[0] + 0.2


def test_the_record_says_what_sampled_and_what_it_holds(study):
    for arm in WITH_VLLM:
        generation = study.result(arm)["generation"]
        assert (generation["engine"], generation["mode"]) == ("vllm", "colocate")
        assert generation["version"].startswith("0.")
        assert generation["pool_bytes"] == 2**30
        assert generation["sleeps"] is False
        assert any("1 GiB" in note for note in study.result(arm)["notes"])
    generation = study.result("lora-r1")["generation"]
    assert (generation["engine"], generation["pool_bytes"]) == ("transformers", None)


@pytest.mark.parametrize("arm", WITH_VLLM)
def test_what_is_sampled_from_is_what_was_trained(study, arm):
    """Stale weights would part from the learner's as it moves: nats apart after 25 steps."""
    rows = study.rows(arm, "steps")
    apart = [row["logs"]["sampling/sampling_logp_difference/mean"] for row in rows]
    assert all(0 <= value < 0.02 for value in apart)


@pytest.mark.parametrize("arm", WITH_VLLM)
def test_weights_are_synced_once_a_step_within_generation(study, arm):
    """The first step's weights are those that were judged before it: vLLM has them already."""
    phases = study.rows(arm, "phases")
    syncs = [p for p in phases if p["phase"] == "weight_sync"]
    generations = [p for p in phases if p["phase"] == "generate"]
    evaluations = [p for p in phases if p["phase"] == "evaluate"]
    assert len(generations) == STEPS
    assert len(evaluations) == 2
    spans = [evaluations[0], *generations[1:], evaluations[1]]
    for sync, span in zip(syncs, spans, strict=True):
        assert span["begin_ns"] <= sync["begin_ns"] < sync["end_ns"] <= span["end_ns"]


def test_what_samples_for_training_samples_held_out_completions(study):
    note = "Held-out completions were sampled by vLLM."
    assert all(note in study.result(arm)["notes"] for arm in WITH_VLLM)
    assert note not in study.result("lora-r1")["notes"]
    for arm in WITH_VLLM:
        assert (study.attempt(arm) / "heartbeat").exists()


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("judged")
    (folder / "vllm.yaml").write_text(MATRIX)
    command = [
        sys.executable,
        "-m",
        "tests.held_out_engines",
        str(folder / "vllm.yaml"),
        str(folder),
    ]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)
    return json.loads((folder / "found.json").read_text())


def test_both_engines_judge_a_model_alike(judged):
    """1,024 completions each, of other noise: within four standard errors."""
    one, other = judged["vllm"]["value"], judged["transformers"]["value"]
    assert len(judged["vllm"]["texts"]) == len(judged["transformers"]["texts"]) == 1024
    assert 0.05 < other < 0.95
    assert abs(one - other) < 4 * (2 * other * (1 - other) / 1024) ** 0.5
    assert judged["vllm"]["notes"] == ["Held-out completions were sampled by vLLM."]
    assert judged["transformers"]["notes"] != judged["vllm"]["notes"]


def test_the_seed_and_the_weights_decide_what_vllm_samples(judged):
    assert judged["again"]["texts"] == judged["vllm"]["texts"]
    assert judged["other seed"]["texts"] != judged["vllm"]["texts"]
    assert judged["other weights"]["texts"] != judged["vllm"]["texts"]
    copies = [judged["vllm"]["texts"][i::256] for i in range(256)]
    assert any(
        len(set(texts)) > 1 for texts in copies
    )  # copies of a prompt have noise of their own


def test_judging_leaves_training_s_random_numbers_and_gives_signs_of_life(judged):
    assert not any(found["moved_training"] for found in judged.values())
    # One a completion. vLLM iterates over a second bar while it renders prompts: that one counts
    # once in a while, by the clock.
    assert 1024 <= judged["vllm"]["beats"] < 1124
    assert judged["transformers"]["beats"] == 4  # batches


def test_the_pool_is_memory_that_the_sampler_sees(study):
    grown = {r.planned.arm: r.summary.growth("rss") for r in study.outcome.view.runs if r.summary}
    assert grown["lora-r1-vllm"] - grown["lora-r1"] > 2**30


def test_the_report_draws_the_pool_as_a_band(study):
    report = study.store.report_dir
    data = json.loads((report / "data.json").read_text())
    pools = data["figures"]["grpo"]["memory"]["pools"]
    assert [(p["arm"], p["bytes"]) for p in pools] == [(arm, 2**30) for arm in WITH_VLLM]
    drawn = (report / "figures" / "grpo-memory.svg").read_text()
    assert "vLLM pool of full, lora-r1-vllm, 1.00 GiB reserved" in drawn
    assert "vLLM pool, reserved" in (report / "report.md").read_text()


def group_of(leader: int) -> list[int]:
    """The live processes of a group."""
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == leader and process.info["status"] != "zombie":
                members.append(process.pid)
        except ProcessLookupError:
            continue
    return members


def prepare(study: Study, folder: Path, **trainer: Any) -> tuple[RunSpec, Path]:
    spec = select(expand(load_matrix(str(study.matrix)).matrix), ["lora-r1-vllm"])[0]
    spec = spec.model_copy(update={"trainer": {**spec.trainer, **trainer}})
    store = Store(folder)
    store.prepare()
    attempt = store.run_dir(spec.run_id) / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt.parent / "spec.json").write_text(spec.model_dump_json())
    launch = Launch(waits_for_sampler=False)
    (attempt / "launch.json").write_text(launch.model_dump_json())
    return spec, attempt


def test_a_killed_worker_leaves_no_process(study, tmp_path):
    _, attempt = prepare(study, tmp_path, max_steps=500)
    with LocalLauncher(is_cold=True) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        steps = attempt / "steps.jsonl"
        wait_until(lambda: steps.exists() and steps.stat().st_size > 0, 300)
        os.kill(handle.pid, signal.SIGKILL)
        wait_until(lambda: handle.poll() is not None, 10)
        handle.close()
        assert group_of(handle.pid) == []


def test_a_server_that_does_not_answer_is_a_status_with_a_sentence(study, tmp_path):
    """Port 9 is `discard`: nobody listens."""
    server = {"vllm_mode": "server", "vllm_server_port": 9, "vllm_server_timeout": 1.0}
    _, attempt = prepare(study, tmp_path, **server)
    with LocalLauncher(is_cold=True) as launcher:
        handle = launcher.start(attempt, Launch(waits_for_sampler=False))
        wait_until(lambda: handle.poll() is not None, 300)
    result, _ = read_result(attempt)
    assert result.status is Status.UNAVAILABLE
    assert result.reason.startswith("no vLLM server answered within vllm_server_timeout=1 s")
