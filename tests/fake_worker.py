"""A worker that trains nothing: the record contract in a few hundred ms, and misbehaviour.

`python -m tests.fake_worker ATTEMPT`, or `tests.fake_worker:run_attempt` as a fork server's entry.
Reads `../spec.json` and `launch.json`, writes phases.jsonl, steps.jsonl, resolved_config.json,
environment.json and result.json; `make_attempt` makes a folder for it. Numbers
depend on the spec alone. Trainer keys that steer it:

  max_steps (5)         optimizer steps
  fake_step_s (0.01)    seconds per step
  fake_bytes (0)        memory allocated and written to while training
  fake                  ok · hang (after step 2) · crash · exit3 · abort · oom (MemoryError)
                        · ignore-sigterm (and hang) · grandchildren (one left, ignoring SIGTERM)
                        · no-result · torn-result · escapes (crash with escape codes) · hang-at-exit
                        · nan · diverged · config · unavailable · oom-gpu · oom-host · cancelled:
                          that status in result.json
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.launch import Launch
from harness.record import OUTCOMES, EvaluationPoint, ParameterCounts, Result, Status, StepRow
from harness.samples import PhaseRow
from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import RunSpec
from harness.worker.confine import confine

COMMAND = (sys.executable, "-m", "tests.fake_worker")
ENTRY = "tests.fake_worker:run_attempt"
TOKENS, SAMPLES = 1000, 8


def make_attempt(folder: Path, launch: Launch | None = None, **trainer: Any) -> Path:
    """Make a run's folder with its first attempt, and return the attempt's folder."""
    spec = RunSpec(
        pair="fake",
        arm="full",
        seed=0,
        task="sft",
        method="full",
        model=Model(source="embedded:none"),
        dataset=DatasetSpec(name="fake", train_rows=8, test_rows=8),
        reward=None,
        lora=None,
        trainer=trainer,
        evaluation=Evaluation(),
    )
    attempt = folder / "attempt-1"
    attempt.mkdir(parents=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    conditions = launch or Launch(waits_for_sampler=False)
    (attempt / "launch.json").write_text(conditions.model_dump_json())
    return attempt


def run_attempt(attempt: Path, is_warm: bool = False) -> int:
    """Pretend to train the run of an attempt's folder."""
    launch = Launch.model_validate_json((attempt / "launch.json").read_text())
    spec = RunSpec.model_validate_json((attempt.parent / "spec.json").read_text())
    confine(launch, os.getppid())
    modes = json.loads(os.environ.get("FAKE_MODES", "{}"))  # cell → mode, for specs of a matrix
    mode = str(modes.get(spec.cell, spec.trainer.get("fake", "ok")))
    if mode == "crash-first":
        mode = "crash" if attempt.name == "attempt-1" else "ok"
    if mode == "ignore-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if launch.waits_for_sampler:
        wait_for(attempt / "sampler.ready")
    (attempt / "environment.json").write_text(json.dumps({"format": 1, "python": "fake"}))
    phase(attempt, "load")
    phase(attempt, "build")
    resolved = dict(spec.trainer)
    if "FAKE_SECRET_DEFAULT" in os.environ:  # a default that moves with the arm
        resolved["fake_default"] = spec.arm
    arguments = {"format": 1, "trainer": "FakeTrainer", "arguments": resolved, "lora": None}
    (attempt / "resolved_config.json").write_text(json.dumps(arguments))
    before = evaluate(attempt, spec, 0)
    begin_ns = time.monotonic_ns()
    ballast = bytearray(int(spec.trainer.get("fake_bytes", 0)))
    ballast[::4096] = b"x" * len(ballast[::4096])
    steps = int(spec.trainer.get("max_steps", 5))
    for step in range(1, steps + 1):
        train_step(attempt, spec, step)
        if step == min(2, steps):
            misbehave(mode)
    phase(attempt, "train", begin_ns=begin_ns)
    after = evaluate(attempt, spec, steps)
    return finish(attempt, spec, mode, is_warm, steps, (before, after), begin_ns)


def misbehave(mode: str) -> None:
    """Do in mid-training what the spec asks for."""
    if mode in ("hang", "ignore-sigterm"):
        while True:
            time.sleep(1)
    elif mode == "crash":
        raise RuntimeError("boom: the fake worker crashed as asked")
    elif mode == "escapes":
        sys.stderr.write("\x1b[31mred \x1b]0;title\x07alert <script>{{7*7}}\x1b[0m\n")
        raise SystemExit(1)
    elif mode == "exit3":
        raise SystemExit(3)
    elif mode == "abort":
        os.abort()
    elif mode == "oom":
        hoard: list[bytearray] = []
        while True:
            hoard.append(bytearray(64 << 20))
    elif mode == "grandchildren":
        program = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", program])


def train_step(attempt: Path, spec: RunSpec, step: int) -> None:
    """Write a step whose loss and reward follow from the spec alone."""
    begin_ns = time.monotonic_ns()
    time.sleep(float(os.environ.get("FAKE_STEP_S") or spec.trainer.get("fake_step_s", 0.01)))
    generated = None
    if spec.task == "grpo":
        phase(attempt, "generate", begin_ns=begin_ns, step=step)
        generated = TOKENS // 2
    logs = {"loss": quality(spec, step, "nll"), "grad_norm": 1.0, "learning_rate": 1e-4}
    if spec.task == "grpo":
        logs |= {"reward": quality(spec, step, "reward"), "reward_std": 0.4}
    row = StepRow(
        step=step,
        begin_ns=begin_ns,
        end_ns=time.monotonic_ns(),
        tokens=TOKENS,
        samples=SAMPLES,
        generated_tokens=generated,
        logs=logs,
    )
    append(attempt / "steps.jsonl", row.model_dump_json())


def evaluate(attempt: Path, spec: RunSpec, step: int) -> EvaluationPoint:
    """Write an evaluation phase and return its point on the rows that the run is judged on."""
    begin_ns = time.monotonic_ns()
    phase(attempt, "evaluate", begin_ns=begin_ns, step=step)
    metric = "nll" if spec.task == "sft" else "reward"
    return EvaluationPoint(
        step=step,
        split=spec.judged_split,
        metric=metric,
        value=quality(spec, step, metric),
        rows=spec.dataset.test_rows,
        tokens=TOKENS if metric == "nll" else None,
        wall_s=(time.monotonic_ns() - begin_ns) / 1e9,
    )


def finish(
    attempt: Path,
    spec: RunSpec,
    mode: str,
    is_warm: bool,
    steps: int,
    points: tuple[EvaluationPoint, ...],
    begin_ns: int,
) -> int:
    """Write result.json, or what the spec asks for in its place."""
    if mode == "no-result":
        return 0
    status = Status(mode) if mode in set(Status) else Status.OK
    adapter = 2_000 if spec.lora else 0
    result = Result(
        status=status,
        reason=None if status is Status.OK else f"the fake worker was asked for {status}",
        steps_done=steps,
        train_wall_s=(time.monotonic_ns() - begin_ns) / 1e9,
        parameters=ParameterCounts(
            total=100_000 + adapter,
            trainable=adapter or 100_000,
            matmul=90_000,
            matmul_trainable=0 if spec.lora else 90_000,
            adapter=adapter,
        ),
        evaluations=points if status in OUTCOMES else (),
        device="cpu",
        started_warm=is_warm,
    )
    text = result.model_dump_json()
    if mode == "torn-result":
        (attempt / "result.json").write_text(text[: len(text) // 2])
        return 0
    part = attempt / "result.json.part"
    part.write_text(text)
    part.replace(attempt / "result.json")
    if mode == "hang-at-exit":
        while True:
            time.sleep(1)
    return 0 if status is Status.OK else 1


def quality(spec: RunSpec, step: int, metric: str) -> float:
    """Return a metric that improves with the steps; seed and arm move it a little.

    A run of a grid learns less the further its rate lies from 1e-3.
    """
    word = f"{spec.pair}.{spec.seed}.{spec.arm}.{step and metric}".encode()
    jitter = int(hashlib.sha256(word).hexdigest()[:8], 16) / 16**8 * 0.02
    learnt = 1 - math.exp(-step / 10)
    if spec.grid_rate is not None:
        learnt *= max(0.0, 1 - 0.2 * abs(math.log10(spec.grid_rate / 1e-3)))
    return 2.0 - 1.0 * learnt + jitter if metric == "nll" else 0.3 + 0.4 * learnt + jitter


def phase(attempt: Path, name: str, begin_ns: int | None = None, step: int | None = None) -> None:
    """Write a phase that ends now."""
    end_ns = time.monotonic_ns()
    row: dict[str, Any] = {"phase": name, "begin_ns": begin_ns or end_ns, "end_ns": end_ns}
    append(attempt / "phases.jsonl", PhaseRow(**row, step=step).model_dump_json())


def append(file: Path, line: str) -> None:
    """Append one whole line."""
    with file.open("a") as opened:
        opened.write(line + "\n")


def wait_for(file: Path, patience_s: float = 10.0) -> None:
    """Wait until a file is there; go on without it in the end, as the worker does."""
    deadline = time.monotonic() + patience_s
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


if __name__ == "__main__":
    raise SystemExit(run_attempt(Path(sys.argv[1])))
