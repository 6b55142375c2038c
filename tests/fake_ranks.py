"""One process of a run of several: exchanges numbers in TRL's place, and what can happen to one.

`python -m tests.fake_ranks ATTEMPT`, started by harness.worker.distributed. Everything around the
training is the worker's own. The trainer key `fake` says what the second process does at step 3:
ok · hang · raise · oom-gpu · kill (by SIGKILL) · grandchild (leaves one that ignores SIGTERM); and
`first-raises`, what the first one does. Without `exchanges` the processes don't wait for each other,
and torch is not imported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.launch import Launch
from harness.record import Result, Status
from harness.spec import RunSpec
from harness.worker.__main__ import run_attempt
from harness.worker.progress import Progress
from harness.worker.ranks import Rank, rank_of

COMMAND = (sys.executable, "-m", "harness.worker.distributed", "--module", "tests.fake_ranks")


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def train(spec: RunSpec, launch: Launch, attempt: Path, progress: Progress) -> Result:
    """Count to max_steps in step with the other process."""
    rank = rank_of(launch)
    mode = str(spec.trainer["fake"])
    exchange = connect() if spec.trainer.get("exchanges") else lambda: None
    for step in range(1, int(spec.trainer.get("max_steps", 5)) + 1):
        if step == 3:
            misbehave(mode, rank)
        exchange()
        progress.steps_done = step
        note = {"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0)), "step": step}
        part = attempt / f"seen-{rank.index}.part"
        part.write_text(json.dumps(note))
        part.replace(attempt / f"seen-{rank.index}.json")
        time.sleep(0.02)
    return Result(status=Status.OK, steps_done=progress.steps_done)


def connect():
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    return lambda: distributed.all_reduce(torch.ones(1))


def misbehave(mode: str, rank: Rank) -> None:
    """Do in mid-training what the spec asks for."""
    if mode == "hang":
        time.sleep(600)
    if mode == "first-raises" and rank.is_first:
        raise ValueError("boom of the first")
    if rank.is_first:
        return
    if mode == "raise":
        raise ValueError("boom of the second")
    if mode == "oom-gpu":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "grandchild":
        program = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", program])
        Path(os.environ["GRANDCHILD"]).write_text(str(child.pid))


if __name__ == "__main__":
    sys.exit(run_attempt(Path(sys.argv[1]), train=train))
