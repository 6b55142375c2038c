"""The stages of a study with a stand-in for the worker's program; everything else is real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.bench import Outcome, bench
from harness.errors import ConfigError, MachineError, StudyError
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Event, Quiet
from harness.record import Record, Status
from harness.slots import Slot, hold
from harness.store import Store
from harness.view import load_view
from tests.conftest import MATRIX
from tests.fake_worker import COMMAND
from tests.waiting import wait_until

SUPERVISOR = """
import os, sys
from pathlib import Path
from harness.bench import bench
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Lines
from tests.fake_worker import COMMAND, ENTRY
folder = Path(sys.argv[1])
request = Request(
    matrix=str(folder / "tiny.yaml"),
    output_dir=folder / "study",
    grace_s=float(os.environ.get("GRACE_S", "2")),
    jobs=int(os.environ["JOBS"]) if "JOBS" in os.environ else None,
    renders_report=False,
)
if "FAKE_WARM" in os.environ:
    launcher = LocalLauncher(is_cold=False, entry=ENTRY, preload=("harness.record",))
else:
    launcher = LocalLauncher(is_cold=True, command=COMMAND)
sys.exit(bench(request, launcher, Lines()).exit_code)
"""


class Listener(Quiet):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(MATRIX)
    return tmp_path


def run(folder: Path, display: Quiet | None = None, **changes) -> Outcome:
    request = Request(
        matrix=str(folder / "tiny.yaml"),
        output_dir=folder / "study",
        **{"grace_s": 1, "renders_report": False, "forecasts_memory": False, **changes},
    )
    launcher = LocalLauncher(is_cold=True, command=COMMAND)
    return bench(request, launcher, display or Listener())


def statuses(outcome: Outcome) -> dict[str, str]:
    """cell → status"""
    return {k.rsplit("-", 1)[0]: s.value if s else "none" for k, s in outcome.statuses.items()}


def test_a_study_runs_to_the_end_and_the_same_command_does_nothing_more(folder):
    first = run(folder, renders_report=True)
    assert first.exit_code == 0
    assert set(statuses(first).values()) == {"ok"}
    assert len(first.statuses) == 8
    assert (folder / "study/report/index.html").is_file()
    again = run(folder)
    assert again.exit_code == 0
    assert all(len(Store(folder / "study").attempts(r)) == 1 for r in again.statuses)


@pytest.mark.slow
def test_arms_are_forecast_once_before_the_report(folder):
    listener = Listener()
    first = run(folder, listener, renders_report=True, forecasts_memory=True)
    assert any("forecasting the memory of" in event.text for event in listener.events)
    kept = (folder / "study/forecast.json").read_bytes()
    assert first.view is not None
    assert first.view.forecasts is not None
    assert all(arm.forecast for arm in first.view.forecasts.arms)
    # The stand-in trains for milliseconds: whether a sample was taken in time depends on the machine.
    report = (folder / "study/report/report.md").read_text()
    assert re.search(r"Compared: \d of 8 runs", report)
    again = Listener()
    run(folder, again, renders_report=True, forecasts_memory=True)
    assert not any("forecasting" in event.text for event in again.events)
    assert (folder / "study/forecast.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("mode", "status", "is_retried"),
    [
        ("crash", "crashed", True),
        ("nan", "nan", False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("exit3", "crashed", True),
                ("no-result", "crashed", True),
                ("torn-result", "crashed", True),
                ("diverged", "diverged", False),
                ("oom-gpu", "oom-gpu", False),
                ("oom-host", "oom-host", False),
                ("unavailable", "unavailable", True),
            )
        ),
    ],
)
def test_a_failed_run_is_recorded_the_others_go_on_and_accidents_are_retried(
    folder, monkeypatch, mode, status, is_retried
):
    bad = "sft-micro.full.s0"
    monkeypatch.setenv("FAKE_MODES", json.dumps({bad: mode}))
    outcome = run(folder, filters=("sft-micro",))
    found = statuses(outcome)
    assert outcome.exit_code == 3
    assert found.pop(bad) == status
    assert set(found.values()) == {"ok"}
    run_view = next(r for r in load_view(outcome.store).runs if r.spec.cell == bad)
    assert run_view.record.status == status
    monkeypatch.setenv("FAKE_MODES", "{}")
    again = run(folder, filters=("sft-micro",))
    attempts = len(outcome.store.attempts(run_view.planned.run_id))
    assert (again.exit_code, attempts) == ((0, 2) if is_retried else (3, 1))
    if not is_retried:
        assert run(folder, filters=("sft-micro",), retries_failed=True).exit_code == 0


@pytest.mark.slow
def test_a_hanging_run_is_stalled_and_one_over_its_time_timed_out(folder, monkeypatch):
    monkeypatch.setenv("FAKE_MODES", json.dumps({"sft-micro.full.s0": "hang"}))
    assert (
        statuses(run(folder, filters=("*.full.s0",), stall_s=1))["sft-micro.full.s0"] == "stalled"
    )
    assert statuses(run(folder, filters=("sft-micro.full.s0",), timeout_s=1)) == {
        "sft-micro.full.s0": "timeout"
    }


@pytest.mark.slow
def test_a_worker_without_memory_is_oom_host(folder, monkeypatch):
    monkeypatch.setenv("FAKE_MODES", json.dumps({"sft-micro.full.s0": "oom"}))
    outcome = run(folder, filters=("sft-micro.*.s0",), memory_limit_bytes=700 << 20)
    assert statuses(outcome)["sft-micro.full.s0"] == "oom-host"
    assert statuses(outcome)["sft-micro.lora.s0"] == "ok"


@pytest.mark.slow
def test_a_filter_runs_a_part_and_the_rest_joins_the_same_study(folder):
    run(folder, filters=("sft-micro",))
    run(folder, filters=("grpo-micro",))
    assert len(Store(folder / "study").read_study().planned) == 8
    run(folder, seeds=(0, 1, 2))
    assert len(Store(folder / "study").read_study().planned) == 12


@pytest.mark.slow
def test_a_study_of_one_arm_alone_has_a_report_and_no_finding(folder):
    outcome = run(folder, filters=("sft-micro.full.s0",), renders_report=True)
    assert outcome.exit_code == 0
    assert outcome.view.findings == []
    assert "no finding" in (folder / "study/report/report.md").read_text()


def test_a_study_of_another_matrix_is_refused(folder):
    run(folder, filters=("sft-micro.full.s0",))
    (folder / "tiny.yaml").write_text(MATRIX.replace("name: tiny", "name: other"))
    with pytest.raises(ConfigError, match="was made by matrix 'tiny'"):
        run(folder)
    (folder / "tiny.yaml").write_text(MATRIX.replace("margin: 0.02", "margin: 0.5"))
    with pytest.raises(ConfigError, match="another version of matrix 'tiny'"):
        run(folder)
    (folder / "tiny.yaml").write_text(MATRIX)
    with pytest.raises(ConfigError, match="other --set, --budget"):
        run(folder, overrides={"max_steps": 9})


@pytest.mark.slow
def test_a_corrupt_record_is_set_aside_and_sealed_again_from_what_is_left(folder):
    outcome = run(folder, filters=("sft-micro",))
    run_id = next(iter(outcome.statuses))
    record = outcome.store.run_dir(run_id) / "record.json"
    record.write_text(record.read_text()[:100])
    view = load_view(outcome.store)
    assert len(view.problems) == 1
    assert run_id in view.problems[0]
    assert sum(r.record is not None for r in view.runs) == 3
    listener = Listener()
    assert run(folder, listener, filters=("sft-micro",)).exit_code == 0
    assert any("set aside as record.json.corrupt-1" in e.text for e in listener.events)
    assert len(outcome.store.attempts(run_id)) == 1


def test_a_wait_for_gpus_that_no_run_uses_is_said_to_guard_nothing(folder):
    listener = Listener()
    assert run(folder, listener, filters=("sft-micro.full.s0",), exclusive_wait_s=5).exit_code == 0
    told = [event.text for event in listener.events]
    assert told.count("no run uses a GPU: --exclusive has nothing to guard") == 1
    [plan] = [event.text for event in listener.events if event.kind == "plan"]
    assert "1 run, 1 side by side" in plan


def test_a_locked_study_is_refused(folder):
    store = Store(folder / "study")
    store.prepare()
    with store.lock(), pytest.raises(StudyError, match="in use"):
        run(folder)


@pytest.mark.slow
def test_arms_that_differ_undeclared_stop_the_study(folder, monkeypatch):
    """The fake's resolved arguments carry a rate that the arms do not share; so the pair must say so."""
    text = MATRIX.replace(
        "    margin: 0.02", "    declared_differences: [learning_rate]\n    margin: 0.02"
    )
    (folder / "tiny.yaml").write_text(text)
    assert run(folder, filters=("sft-micro",)).exit_code == 0
    monkeypatch.setenv("FAKE_SECRET_DEFAULT", "1")
    other = Request(
        matrix=str(folder / "tiny.yaml"), output_dir=folder / "two", filters=("sft-micro",)
    )
    for _ in range(2):  # the second command trains nothing and must say the same
        with pytest.raises(ConfigError, match="differ in fake_default"):
            bench(other, LocalLauncher(is_cold=True, command=COMMAND), Listener())
    view = load_view(Store(folder / "two"))
    assert view.undeclared_pairs == {"sft-micro"}
    assert {f.word for f in view.findings if f.pair == "sft-micro"} <= {
        "inconclusive",
        "not tested",
    }


def supervisor(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """The same study in a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupt_seals_the_state_and_the_same_command_goes_on(folder, number):
    process = supervisor(folder, FAKE_STEP_S="0.4")
    wait_until(lambda: list(folder.glob("study/runs/*/attempt-1/steps.jsonl")))
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    store = Store(folder / "study")
    ended = [store.read_attempt(p) for p in folder.glob("study/runs/*/attempt-1")]
    assert all(a is not None for a in ended)
    assert any(a.status is Status.CANCELLED for a in ended)
    outcome = run(folder)
    assert outcome.exit_code == 0
    assert max(len(store.attempts(r)) for r in outcome.statuses) == 2


@pytest.mark.slow
def test_a_killed_worker_is_a_crash_and_is_tried_again(folder):
    process = supervisor(folder, FAKE_STEP_S="0.15")
    wait_until(lambda: list(folder.glob("study/runs/*/attempt-1/process.json")))
    noted = json.loads(next(folder.glob("study/runs/*/attempt-1/process.json")).read_text())
    os.kill(noted["pid"], signal.SIGKILL)
    assert process.wait(60) == 3
    assert run(folder).exit_code == 0


def test_a_fork_server_that_cannot_import_stops_the_study_with_its_words(folder):
    request = Request(
        matrix=str(folder / "tiny.yaml"), output_dir=folder / "study", renders_report=False
    )
    launcher = LocalLauncher(is_cold=False, preload=("no_such_library",))
    with pytest.raises(MachineError, match="no_such_library"):
        bench(request, launcher, Listener())


@pytest.mark.slow
def test_a_retry_that_finished_unseen_is_adopted_and_not_run_again(folder, monkeypatch):
    """The supervisor died after a second attempt had finished and before it was sealed."""
    cell = "sft-micro.full.s0"
    monkeypatch.setenv("FAKE_MODES", json.dumps({cell: "crash"}))
    outcome = run(folder, filters=(cell,))
    run_id = next(iter(outcome.statuses))
    monkeypatch.setenv("FAKE_MODES", "{}")
    run(folder, filters=(cell,))
    first, second = outcome.store.attempts(run_id)
    record = outcome.store.run_dir(run_id) / "record.json"
    (second / "attempt.json").unlink()
    crashed = json.loads(record.read_text())
    crashed |= {"status": "crashed", "attempt": 1, "attempts": crashed["attempts"][:1]}
    outcome.store.seal(Record.model_validate_json(json.dumps(crashed)))
    again = run(folder, filters=(cell,))
    assert again.exit_code == 0
    assert outcome.store.attempts(run_id) == [first, second]
    sealed = outcome.store.read_record(run_id)
    assert [a.number for a in sealed.attempts] == [1, 2]


def test_an_unreadable_end_of_an_attempt_is_set_aside_and_told_again(folder):
    outcome = run(folder, filters=("sft-micro.full.s0",))
    run_id = next(iter(outcome.statuses))
    attempt = outcome.store.attempts(run_id)[0]
    (attempt / "attempt.json").write_text("torn")
    (outcome.store.run_dir(run_id) / "record.json").unlink()
    assert run(folder, filters=("sft-micro.full.s0",)).exit_code == 0
    assert len(outcome.store.attempts(run_id)) == 1
    assert (attempt / "attempt.json.corrupt-1").is_file()


def test_damaged_samples_are_named_and_the_rest_is_shown(folder):
    outcome = run(folder, filters=("sft-micro.full.s0",))
    attempt = outcome.store.attempts(next(iter(outcome.statuses)))[0]
    (attempt / "memory.parquet").write_bytes(b"PAR1 no more")
    view = load_view(outcome.store)
    assert any("memory samples can't be read" in p for p in view.problems)
    assert view.runs[0].summary.final_value is not None


def test_margins_changed_after_the_first_run_are_post_hoc(folder):
    outcome = run(folder, filters=("sft-micro.full.s0",))
    assert not load_view(outcome.store).post_hoc
    path = folder / "study/study.json"
    path.write_text(path.read_text().replace("margin: 0.02", "margin: 0.9"))
    assert load_view(outcome.store).post_hoc
    path.unlink()
    with pytest.raises(ConfigError, match="holds runs but no study"):
        run(folder)


def test_a_record_of_a_newer_harness_is_left_alone(folder):
    outcome = run(folder, filters=("sft-micro.full.s0",))
    record = outcome.store.run_dir(next(iter(outcome.statuses))) / "record.json"
    text = json.dumps({**json.loads(record.read_text()), "format": 99, "new_key": 1})
    record.write_text(text)
    with pytest.raises(StudyError, match="upgrade"):
        run(folder)
    assert record.read_text() == text


@pytest.mark.slow
def test_a_second_interrupt_ends_the_runs_at_once(folder):
    modes = dict.fromkeys(("sft-micro.full.s0", "sft-micro.lora.s0"), "ignore-sigterm")
    process = supervisor(folder, FAKE_MODES=json.dumps(modes), GRACE_S="60")
    wait_until(lambda: list(folder.glob("study/runs/*/attempt-1/steps.jsonl")))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130


def test_two_studies_on_one_core_are_told_so():
    with hold([Slot(9000, None), Slot(9001, None)], 1) as (first, shared):
        assert shared == ()
        code = (
            "from harness.slots import Slot, hold\n"
            "with hold([Slot(9000, None), Slot(9001, None)], 2) as (slots, shared): print(slots, shared)"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        assert told.count("core=") == 2
        assert f"'{first[0].name}'" in told


def test_a_study_that_shares_its_cores_says_so_before_it_trains(folder):
    cores = [Slot(core, None) for core in sorted(os.sched_getaffinity(0))]
    listener = Listener()
    with hold(cores, len(cores)):
        run(folder, listener, filters=("sft-micro.full.s0",))
    texts = [event.text for event in listener.events if event.kind == "problem"]
    assert any(
        "is used by another study too: times and memory will be disturbed" in t for t in texts
    )
