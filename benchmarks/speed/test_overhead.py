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


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """The one-run matrix, and its spec beside it."""
    real = locate() is not None
    text = MATRIX.format(
        steps=STEPS,
        scale="small" if real else "embedded",
        source="smollm2" if real else "embedded:micro-llama",
        dataset="gsm_symbolic" if real else "micro-steps",
        options="{max_characters: 400}" if real else "{}",
    )
    path = tmp_path / "overhead.yaml"
    path.write_text(text)
    (tmp_path / "spec.json").write_text(expand(parse_matrix(text, path.name))[0].model_dump_json())
    return path


def timed(command: list[str]) -> float:
    """Run a command on one core with one thread and return its wall seconds."""
    core = str(max(os.sched_getaffinity(0)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    begin = time.monotonic()
    subprocess.run(
        ["taskset", "-c", core, *command], check=True, capture_output=True, env=environment
    )
    return time.monotonic() - begin


def test_a_run_costs_little_more_than_the_bare_script(matrix, tmp_path, benchmark):
    def harness(number: int) -> float:
        study = str(tmp_path / f"study-{number}")
        words = ["bench", "--matrix", str(matrix), "-o", study, "--cold", "--no-report", "--quiet"]
        return timed([sys.executable, "-m", "harness.cli", *words])

    def bare(number: int) -> float:
        script = [sys.executable, "-m", "benchmarks.speed.bare_trl"]
        return timed([*script, str(tmp_path / "spec.json"), str(tmp_path / f"bare-{number}")])

    rows = []
    for number in range(PAIRS):
        if number % 2 == 0:
            ours, theirs = harness(number), bare(number)
        else:
            theirs, ours = bare(number), harness(number)
        rows.append((ours, theirs, ours / theirs))
    ratios = [r for _, _, r in rows]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print("\n| pair | harness, s | bare TRL, s | ratio |\n|---|---|---|---|")
    for number, (ours, theirs, ratio) in enumerate(rows, start=1):
        print(f"| {number} | {ours:.1f} | {theirs:.1f} | {ratio:.3f} |")
    print(f"| median (range) | | | {middle:.3f} ({low:.3f} to {high:.3f}) |")
    benchmark.extra_info.update(ratio_median=middle, ratio_min=low, ratio_max=high, pairs=PAIRS)
    benchmark.pedantic(lambda: None, rounds=1)
    if locate() is not None:
        assert middle <= LIMIT
