"""What a CPU worker grows by before its first step beside its weights: for `forecast.LOADED_LATER`.

    python -m benchmarks.worker_growth

`harness bench` runs four workers of the embedded model (full fine-tuning and LoRA, two seeds, two steps),
and their own samples say by how much RSS had grown when training began, above what it was before the
model was loaded: code that libraries load when it is first called, the trainer, the rows, the held-out
evaluation before step 1. The model's weights are taken off, since a forecast replays them. Other models
load other code, so that the constant is a guess for them. A minute on a slow core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from harness.forecast import LOADED_LATER
from harness.lenses import HOST, RSS
from harness.store import Store
from harness.view import RunView, load_view

WEIGHT_BYTES = 4  # of the embedded model, float32
MIB = 2**20
MATRIX = """\
format: 1
name: worker-growth
title: Growth of a worker before its first step
description: The embedded model, two steps a run; nothing is learned.
scale: embedded
device: cpu
seeds: [0, 1]
pairs:
  sft-micro:
    task: sft
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 64, test_rows: 2, seed: 0}
    trainer: {max_steps: 2, max_length: 64, per_device_train_batch_size: 4, bf16: false}
    evaluation: {batch_size: 2}
    margin: 1.0
    margin_reason: nothing is judged here
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora-r8: {method: lora, lora: {r: 8}, trainer: {learning_rate: 1e-4}}
"""
CLI = "from harness.cli import main; main()"


def measure(folder: Path) -> tuple[RunView, ...]:
    """Run the workers, and read what they left."""
    matrix, study = folder / "matrix.yaml", folder / "study"
    matrix.write_text(MATRIX, encoding="utf-8")
    words = ["--matrix", str(matrix), "--output-dir", str(study), "--quiet"]
    command = [sys.executable, "-c", CLI, "bench", *words, "--no-report", "--no-forecast"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_view(Store(study)).runs


def grown(run: RunView) -> dict[str, int]:
    """Bytes above the worker before it loads: as each phase ends, and as training begins."""
    result = run.record.result if run.record else None
    base = run.summary.baseline_bytes[RSS] if run.summary else None
    if result is None or result.parameters is None or base is None:
        sys.exit(f"{run.planned.cell} did not end ok")
    begin_ns = min(phase.begin_ns for phase in run.phases if phase.phase == "train")
    taken = base + WEIGHT_BYTES * result.parameters.total
    ends: dict[str, int] = {
        p.phase: p.rss_bytes - taken for p in run.phases if p.end_ns <= begin_ns and p.rss_bytes
    }
    host = run.memory[run.memory["device"] == HOST]
    before = host[host["t_ns"] <= begin_ns]["rss_bytes"].dropna()
    return {**ends, "training begins": int(before.iloc[-1]) - taken}


def main() -> None:
    """Print a row a run and one line of JSON with the mean."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {run.planned.cell: grown(run) for run in measure(Path(folder))}
    for cell, moments in runs.items():
        said = ", ".join(f"{moment} {size / MIB:.1f}" for moment, size in moments.items())
        sys.stdout.write(f"{cell}: MiB besides weights after {said}\n")
    found = mean(moments["training begins"] for moments in runs.values())
    constant = {"loaded_later_mib": found / MIB, "constant_mib": LOADED_LATER / MIB}
    sys.stdout.write(json.dumps(constant) + "\n")


if __name__ == "__main__":
    main()
