"""Killing the supervisor at random points loses nothing that was finished and runs nothing twice."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from harness.store import Store
from tests.conftest import MATRIX
from tests.test_bench import run, supervisor

KILLS = 22
STEP_S = "0.1"  # of three in a run: longer than a supervisor lingers


def finished(folder: Path) -> set[str]:
    """The attempts that have the worker's last word."""
    return {
        str(p.parent.relative_to(folder)) for p in folder.glob("study/runs/*/attempt-*/result.json")
    }


def let_live(folder: Path, generator: random.Random, *, until_word: bool) -> None:
    """Wait for the moment of a kill: by the clock, or until a run's last word. That word ends the wait.

    So on a slow machine runs are finished, and on a fast one no supervisor gets far: none can finish a
    run that it began after the word.
    """
    already, patience_s = len(finished(folder)), 90 if until_word else generator.uniform(0.3, 2.0)
    end_s = time.monotonic() + patience_s
    while len(finished(folder)) == already and time.monotonic() < end_s:
        time.sleep(0.01)
    if len(finished(folder)) > already:
        time.sleep(generator.uniform(0, 0.2))


@pytest.mark.slow
def test_kills_at_random_points_end_with_the_undisturbed_set_of_runs(tmp_path: Path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for folder in (calm, stormy):
        folder.mkdir()
        seeds = ", ".join(map(str, range(9)))
        (folder / "tiny.yaml").write_text(MATRIX.replace("[0, 1]", f"[{seeds}]"))
    generator = random.Random(20)
    once = json.dumps(dict.fromkeys(("sft-micro.full.s1", "grpo-micro.full.s0"), "crash-first"))
    for number in range(KILLS):
        warm = {"FAKE_WARM": "1"} if number % 2 else {}  # both ways of starting a worker
        jobs = min(1 + number // 2 % 2, len(os.sched_getaffinity(0)))
        process = supervisor(stormy, FAKE_MODES=once, FAKE_STEP_S=STEP_S, JOBS=str(jobs), **warm)
        let_live(stormy, generator, until_word=number % 3 > 0)
        assert process.poll() is None, "the study ended before it was killed"
        before = finished(stormy)
        process.kill()
        process.wait()
        assert before <= finished(stormy)
    assert len(finished(stormy)) >= KILLS // 2, "too little was finished to show anything"
    run(stormy)  # a run that crashed as asked is tried again by the next command
    outcome, undisturbed = run(stormy), run(calm)
    assert outcome.statuses == undisturbed.statuses
    assert outcome.exit_code == 0
    store = Store(stormy / "study")
    for run_id in outcome.statuses:
        with_result = [a for a in store.attempts(run_id) if (a / "result.json").exists()]
        assert len(with_result) == 1, "a finished run was run again"
        assert with_result == store.attempts(run_id)[-1:]
        assert store.verify(run_id) == []
    assert not list((stormy / "study").rglob("*.tmp"))
