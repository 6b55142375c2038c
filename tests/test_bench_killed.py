"""Killing the supervisor at random points loses nothing that was finished and runs nothing twice."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from harness.store import Store
from tests.conftest import MATRIX
from tests.test_bench import run, supervisor

KILLS = 22


def finished(folder: Path) -> set[str]:
    """The attempts that have the worker's last word."""
    return {
        str(p.parent.relative_to(folder)) for p in folder.glob("study/runs/*/attempt-*/result.json")
    }


@pytest.mark.slow
def test_kills_at_random_points_end_with_the_undisturbed_set_of_runs(tmp_path: Path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    for folder in (calm, stormy):
        folder.mkdir()
        seeds = ", ".join(map(str, range(7)))
        (folder / "tiny.yaml").write_text(MATRIX.replace("[0, 1]", f"[{seeds}]"))
    generator = random.Random(20)
    kills = 0
    once = json.dumps(dict.fromkeys(("sft-micro.full.s1", "grpo-micro.full.s0"), "crash-first"))
    while kills < KILLS:
        warm = {"FAKE_WARM": "1"} if kills % 2 else {}  # both ways of starting a worker
        process = supervisor(stormy, FAKE_MODES=once, **warm)
        deadline = time.monotonic() + generator.uniform(0.3, 2.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode in (0, 3)  # 3: a run that crashed as asked
            break  # the study was done before all kills were spent
        before = finished(stormy)
        process.kill()
        process.wait()
        kills += 1
        assert before <= finished(stormy)
    run(stormy)  # a run that crashed as asked is tried again by the next command
    outcome, undisturbed = run(stormy), run(calm)
    assert kills >= 20
    assert outcome.statuses == undisturbed.statuses
    assert outcome.exit_code == 0
    store = Store(stormy / "study")
    for run_id in outcome.statuses:
        with_result = [a for a in store.attempts(run_id) if (a / "result.json").exists()]
        assert len(with_result) == 1, "a finished run was run again"
        assert with_result == store.attempts(run_id)[-1:]
        assert store.verify(run_id) == []
    assert not list((stormy / "study").rglob("*.tmp"))
