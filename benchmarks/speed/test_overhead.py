"""What a run costs inside the harness, against a bare TRL script that does the same work.

Pairs of whole commands, one after the other on one core (harness, bare, bare, harness, …): the ratio
of their wall times, interpreter start, supervisor, sampler and record included. SmolLM2-135M where it
is cached, else the embedded model, for which a ratio means little because a run is mostly imports.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.speed.recorded import CLOCK, record
from harness.matrix import expand, parse_matrix
from harness.worker.smollm2 import locate

PAIRS = int(os.environ.get("HARNESS_OVERHEAD_PAIRS", "5"))
STEPS = int(os.environ.get("HARNESS_OVERHEAD_STEPS", "10"))
LIMIT = 1.05
CELL = "sft.lora.s0"
MATRIX = """\
format: 1
name: overhead
title: One SFT run, for the cost of the harness
scale: {scale}
device: cpu
seeds: [0]
trainer:
  sft: {{max_steps: {steps}, per_device_train_batch_size: 4, max_length: 512, bf16: false,
        lr_scheduler_type: constant, gradient_checkpointing: false, loss_type: nll}}
pairs:
  sft:
    task: sft
    model: {{source: "{source}"}}
    dataset: {{name: {dataset}, train_rows: 64, test_rows: 16, options: {options}}}
    evaluation: {{batch_size: 8}}
    margin: 1
    margin_reason: nothing is judged here
    baseline: lora
    arms:
      lora: {{method: lora, lora: {{r: 16}}, trainer: {{learning_rate: 1e-3}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one-run matrix, and its spec beside it."""
    folder = tmp_path_factory.mktemp("overhead")
    real = locate() is not None
    text = MATRIX.format(
        steps=STEPS,
        scale="small" if real else "embedded",
        source="smollm2" if real else "embedded:micro-llama",
        dataset="gsm_symbolic" if real else "micro-steps",
        options="{max_characters: 400}" if real else "{}",
    )
    path = folder / "overhead.yaml"
    path.write_text(text)
    (folder / "spec.json").write_text(expand(parse_matrix(text, path.name))[0].model_dump_json())
    return folder


def timed(command: list[str]) -> float:
    """Run a command on one core with one thread and return its wall seconds."""
    core = str(max(os.sched_getaffinity(0)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    begin = time.monotonic()
    subprocess.run(
        ["taskset", "-c", core, *command], check=True, capture_output=True, env=environment
    )
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def pairs(folder: Path) -> list[tuple[float, float]]:
    """Wall seconds of the harness and of the bare script, pair by pair."""

    def harness(number: int) -> float:
        study, matrix = str(folder / f"study-{number}"), str(folder / "overhead.yaml")
        words = ["bench", "--matrix", matrix, "-o", study, "--cold", "--no-report", "--quiet"]
        return timed([sys.executable, "-m", "harness.cli", *words])

    def bare(number: int) -> float:
        script = [sys.executable, "-m", "benchmarks.speed.bare_trl"]
        return timed([*script, str(folder / "spec.json"), str(folder / f"bare-{number}")])

    found = []
    for number in range(PAIRS):
        if number % 2 == 0:
            ours, theirs = harness(number), bare(number)
        else:
            theirs, ours = bare(number), harness(number)
        found.append((ours, theirs))
    return found


@pytest.mark.benchmark(timer=CLOCK, group="one SFT run")
def test_a_run_costs_little_more_than_the_bare_script(pairs, benchmark):
    rows = [(ours, theirs, ours / theirs) for ours, theirs in pairs]
    ratios = [r for _, _, r in rows]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print("\n| pair | harness, s | bare TRL, s | ratio |\n|---|---|---|---|")
    for number, (ours, theirs, ratio) in enumerate(rows, start=1):
        print(f"| {number} | {ours:.1f} | {theirs:.1f} | {ratio:.3f} |")
    print(f"| median (range) | | | {middle:.3f} ({low:.3f} to {high:.3f}) |")
    ours_s = [ours for ours, _ in pairs]
    record(benchmark, ours_s, ratio_median=middle, ratio_min=low, ratio_max=high)
    if locate() is not None:
        assert middle <= LIMIT


@pytest.mark.benchmark(timer=CLOCK, group="one SFT run")
def test_the_bare_script_is_stored_beside_it(pairs, benchmark):
    record(benchmark, [theirs for _, theirs in pairs])
    assert benchmark.stats.stats.rounds == PAIRS
