"""Runs of one and of several processes on a few slots, with a stand-in for every program."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.bench import bench
from harness.errors import MachineError
from harness.launch import Handle, Launch
from harness.launch.local import LocalLauncher
from harness.launch.watch import Limits
from harness.matrix import expand, parse_matrix
from harness.plan import Request
from harness.progress import Quiet
from harness.record import Status
from harness.schedule import Conditions, Schedule
from harness.settings import Parallel
from harness.slots import Slot
from harness.spec import RunSpec
from harness.store import Store
from tests.conftest import MATRIX
from tests.fake_worker import COMMAND
from tests.test_slots import of_one_update


def run(
    tmp_path: Path,
    runs: list[RunSpec],
    slots: list[Slot],
    jobs: int = 9,
    launcher: LocalLauncher | None = None,
) -> dict[str, tuple[int, int, dict]]:
    """cell → when its training began and ended (ns), and its launch"""
    store = Store(tmp_path / "study")
    store.prepare()
    conditions = Conditions(Launch(waits_for_sampler=False), Limits(timeout_s=30, stall_s=30), "0")
    sealed: list[str] = []
    launcher = launcher or LocalLauncher(is_cold=True, command=COMMAND, parallel=COMMAND)
    with launcher:
        Schedule(
            store=store,
            launcher=launcher,
            display=Quiet(),
            conditions=conditions,
            slots=slots,
            jobs=jobs,
            on_sealed=lambda spec, record: sealed.append(spec.cell),
            urgency=lambda: 0,
            total=len(runs),
        ).run(runs)
    assert sorted(sealed) == sorted(s.cell for s in runs)
    found = {}
    for spec in runs:
        attempt = store.attempts(spec.run_id)[-1]
        lines = (attempt / "phases.jsonl").read_text().splitlines()
        phases = [json.loads(line) for line in lines]
        begin, end = min(p["begin_ns"] for p in phases), max(p["end_ns"] for p in phases)
        found[spec.cell] = (begin, end, json.loads((attempt / "launch.json").read_text()))
    return found


def specs(*counts: int) -> list[RunSpec]:
    """Runs of so many processes each, in that order."""
    one = expand(parse_matrix(MATRIX, "m"))[0]
    return [
        one.model_copy(
            update={
                "seed": seed,
                "trainer": {**one.trainer, "fake_step_s": 0.1},
                "parallel": Parallel(processes=count, strategy="ddp") if count > 1 else None,
            }
        )
        for seed, count in enumerate(counts)
    ]


@pytest.mark.slow
def test_a_run_of_several_processes_waits_for_its_slots_and_is_not_overtaken(tmp_path):
    first, wide, last = runs = specs(1, 2, 1)
    slots = [Slot(None, "GPU-a"), Slot(None, "GPU-b")]
    ran = run(tmp_path, runs, slots)
    assert ran[first.cell][1] < ran[wide.cell][0], "the wide run shared its slots"
    assert ran[wide.cell][1] < ran[last.cell][0], "a later run took a slot first"
    launches = {cell: launch for cell, (_, _, launch) in ran.items()}
    assert sorted(launches[wide.cell]["gpus"]) == ["GPU-a", "GPU-b"]
    assert launches[wide.cell]["parallel"] == {"processes": 2, "strategy": "ddp"}
    assert len(launches[last.cell]["gpus"]) == 1
    assert launches[last.cell]["parallel"] is None


@pytest.mark.slow
def test_no_more_runs_go_side_by_side_than_asked_for(tmp_path):
    first, second = runs = specs(1, 1)
    ran = run(tmp_path, runs, [Slot(None, "GPU-a"), Slot(None, "GPU-b")], jobs=1)
    assert ran[first.cell][1] < ran[second.cell][0]


def test_runs_of_several_processes_go_side_by_side_where_there_is_room(tmp_path):
    runs = specs(2, 2)
    ran = run(tmp_path, runs, [Slot(None, f"GPU-{i}") for i in range(4)])
    a, b = (ran[s.cell][2] for s in runs)
    assert len({*a["gpus"], *b["gpus"]}) == 4
    # From when each was started: how long its libraries are imported for is the machine's doing.
    attempts = [tmp_path / "study" / "runs" / s.run_id / "attempt-1" for s in runs]
    starts = [(attempt / "launch.json").stat().st_mtime_ns for attempt in attempts]
    ends = [(attempt / "result.json").stat().st_mtime_ns for attempt in attempts]
    assert max(starts) < min(ends)


class Refusing(LocalLauncher):
    """Starts so many workers, and no more."""

    def __init__(self, starts: int) -> None:
        super().__init__(is_cold=True, command=COMMAND, parallel=COMMAND)
        self._starts = starts

    def start(self, attempt: Path, launch: Launch) -> Handle:
        self._starts -= 1
        if self._starts < 0:
            raise MachineError("no more")
        return super().start(attempt, launch)


@pytest.mark.slow
def test_a_run_that_can_not_be_started_ends_the_study_and_not_the_runs_beside_it(tmp_path):
    runs = specs(1, 1, 1, 1)
    with pytest.raises(MachineError, match="no more"):
        run(tmp_path, runs, [Slot(None, "GPU-a"), Slot(None, "GPU-b")], launcher=Refusing(2))
    store = Store(tmp_path / "study")
    found = [store.read_record(spec.run_id) for spec in runs]
    assert [record.status for record in found if record] == [Status.OK] * 2
    assert found[2:] == [None, None]
    run(tmp_path, runs[2:], [Slot(None, "GPU-a")])  # what was begun for the third is no obstacle


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_study_holds_places_for_its_widest_run(tmp_path):
    line = "full: {method: full,"
    asked = f"{line} parallel: {{processes: 2, strategy: ddp}},"
    (tmp_path / "tiny.yaml").write_text(of_one_update(MATRIX.replace(line, asked, 1), 2))
    request = Request(
        matrix=str(tmp_path / "tiny.yaml"),
        output_dir=tmp_path / "study",
        filters=("sft-micro.*.s0",),
        jobs=1,
        renders_report=False,
    )
    outcome = bench(request, LocalLauncher(True, COMMAND, parallel=COMMAND), Quiet())
    assert outcome.exit_code == 0
    files = (tmp_path / "study/runs").glob("*/attempt-1/launch.json")
    assert sorted(len(json.loads(f.read_text())["cores"]) for f in files) == [1, 2]
