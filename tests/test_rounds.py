"""A grid runs first and its arm at the rate that it says, with a stand-in for the worker's program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.bench import Outcome, bench
from harness.compute import ComputeRatio
from harness.counted import FILE, read_counted, to_count, write_counted
from harness.errors import MachineError
from harness.launch.local import LocalLauncher
from harness.matrix import parse_matrix
from harness.plan import Plan, Request, resolve
from harness.progress import Event, Quiet
from harness.rounds import count_flops
from harness.slots import Slot
from harness.store import Store
from harness.view import load_view
from tests.fake_worker import COMMAND
from tests.grid_matrix import GRID
from tests.waiting import wait_until

# The sft pair alone, on one seed of either stage; the fake learns most at 1e-3.
SFT = GRID[: GRID.index("  grpo-micro:\n")].replace("[0, 1]", "[0]").replace("[100, 101]", "[100]")
CLAIM = """\
claims:
  twin-matches:
    rule: match
    sentence: The same arm on other seeds ends as good.
    estimand: held-out NLL
    unit: nats per completion token
    margin: 0.5
    margin_reason: a test
    speaks_for: a toy
    pair: sft-micro
    arm: twin
    baseline: lora
    role: negative-control
"""
SUPERVISOR = """
import sys
from pathlib import Path
from tests.test_rounds import run
sys.exit(run(Path(sys.argv[1])).exit_code)
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
    (tmp_path / "grid.yaml").write_text(SFT + CLAIM)
    return tmp_path


def run(folder: Path, display: Quiet | None = None, **changes) -> Outcome:
    request = Request(
        matrix=str(folder / "grid.yaml"),
        output_dir=folder / "study",
        **{"grace_s": 1, "renders_report": False, "forecasts_memory": False, **changes},
    )
    return bench(request, LocalLauncher(is_cold=True, command=COMMAND), display or Listener())


def statuses(outcome: Outcome) -> dict[str, str]:
    """cell → status"""
    return {k.rsplit("-", 1)[0]: s.value if s else "none" for k, s in outcome.statuses.items()}


def modes(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Have cells of sft-micro end otherwise: lora_lr1e_3_s100="nan"."""
    cells = {
        f"sft-micro.{name.replace('_lr1e_', '.lr1e-').replace('_s', '.s')}": mode
        for name, mode in found.items()
    }
    monkeypatch.setenv("FAKE_MODES", json.dumps(cells))


def rates(folder: Path) -> dict[str, float]:
    """cell → the learning rate that a shown judged run trained with"""
    view = load_view(Store(folder / "study"))
    return {r.planned.cell: r.spec.trainer["learning_rate"] for r in view.runs if r.spec}


def attempts(folder: Path) -> dict[str, int]:
    store = Store(folder / "study")
    return {p.run_id: len(store.attempts(p.run_id)) for p in store.read_study().planned}


@pytest.mark.slow
def test_the_best_rate_of_the_grid_is_judged_and_the_same_command_does_nothing_more(folder):
    outcome = run(folder, renders_report=True)
    assert outcome.exit_code == 0
    assert len(outcome.statuses) == 3 + 3
    assert rates(folder)["sft-micro.lora.s0"] == rates(folder)["sft-micro.twin.s0"] == 1e-3
    view = load_view(outcome.store)
    assert (len(view.grid), len(view.runs), view.left_out, view.problems) == (3, 3, (), ())
    assert view.choices == {("sft-micro", "lora"): 1e-3}
    assert [run.cell for run in outcome.store.read_study().planned][:2] == [
        "sft-micro.lora.lr1e-4.s100",
        "sft-micro.lora.lr1e-3.s100",
    ]
    assert all(r.summary.final_value is not None for r in view.every_run)
    assert "1 seed" in view.verdicts[0].reason
    assert run(folder).exit_code == 0
    assert set(attempts(folder).values()) == {1}


@pytest.mark.slow
def test_a_rate_that_diverged_is_not_chosen_and_the_failure_shows_in_the_exit_code(
    folder, monkeypatch
):
    modes(monkeypatch, lora_lr1e_3_s100="diverged")
    outcome = run(folder)
    assert outcome.exit_code == 3
    assert statuses(outcome)["sft-micro.lora.lr1e-3.s100"] == "diverged"
    assert rates(folder)["sft-micro.lora.s0"] in (1e-4, 1e-2)


@pytest.mark.slow
def test_if_every_rate_fails_the_lowest_is_judged(folder, monkeypatch):
    cells = {f"lora_lr1e_{n}_s100": "nan" for n in (2, 3, 4)}
    modes(monkeypatch, **cells)
    run(folder)
    assert rates(folder)["sft-micro.lora.s0"] == 1e-4


@pytest.mark.slow
def test_an_accident_in_the_grid_leaves_the_arm_waiting_and_says_for_what(folder, monkeypatch):
    modes(monkeypatch, lora_lr1e_3_s100="crash")
    listener = Listener()
    outcome = run(folder, listener, renders_report=True)
    assert outcome.exit_code == 3
    assert "sft-micro.lora.s0" not in statuses(outcome)
    told = [e.text for e in listener.events if e.kind == "problem"]
    assert (
        "sft-micro.lora was not judged: no rate is chosen yet: sft-micro.lora.lr1e-3.s100 of its grid "
        "did not end"
    ) in told
    assert any(line.startswith("sft-micro.twin was not judged") for line in told)
    verdict = load_view(outcome.store).verdicts[0]
    assert verdict.word == "not tested"
    assert "lr1e-3.s100" in verdict.reason
    modes(monkeypatch)
    assert run(folder).exit_code == 0
    assert rates(folder)["sft-micro.lora.s0"] == 1e-3
    assert sorted(attempts(folder).values()) == [1] * 5 + [2]


@pytest.mark.slow
def test_a_filter_that_leaves_the_grid_out_says_that_its_runs_wait(folder):
    listener = Listener()
    outcome = run(folder, listener, filters=("sft-micro.lora.s0",))
    assert (outcome.exit_code, outcome.statuses, outcome.waits) == (3, {}, 1)
    assert any("and 2 more of its grid did not end" in e.text for e in listener.events)
    assert run(folder, filters=("*.lr1e-*",)).exit_code == 0
    judged = run(folder, filters=("sft-micro.lora.s0",))
    assert statuses(judged) == {"sft-micro.lora.s0": "ok"}
    assert rates(folder) == {"sft-micro.lora.s0": 1e-3}


@pytest.mark.slow
def test_a_filter_on_an_arm_takes_its_grid_along(folder):
    outcome = run(folder, filters=("lora",))
    assert len(outcome.statuses) == 3 + 1
    assert outcome.exit_code == 0


@pytest.mark.slow
def test_a_grid_that_is_tried_again_replaces_the_runs_at_the_old_rate(folder, monkeypatch):
    modes(monkeypatch, lora_lr1e_3_s100="nan")
    first = run(folder)
    old = rates(folder)["sft-micro.lora.s0"]
    assert old != 1e-3
    modes(monkeypatch)
    second = run(folder, retries_failed=True, renders_report=True)
    assert second.exit_code == 0
    assert set(rates(folder).values()) == {1e-4, 1e-3}  # full's own, and LoRA's new one
    view = load_view(second.store)
    assert {r.planned.chosen_rate for r in view.left_out} == {old}
    assert len(view.left_out) == 2
    assert len(view.runs) == 3
    assert not {r.planned.run_id for r in view.left_out} & second.statuses.keys()
    assert {r.planned.run_id for r in view.left_out} <= first.statuses.keys()
    assert (
        sum("left out; its grid was tried again and now says 1e-3" in p for p in view.problems) == 2
    )
    assert len(view.every_run) == 3 + 3 + 2  # none is lost from what can be listed
    assert "left out" in (folder / "study/report/report.md").read_text()


@pytest.mark.slow
def test_more_selection_seeds_choose_again_and_a_grid_under_way_shows_no_judged_run(
    folder, monkeypatch
):
    run(folder)
    (folder / "grid.yaml").write_text(
        (folder / "grid.yaml").read_text().replace("[100]", "[100, 102]")
    )
    modes(monkeypatch, lora_lr1e_3_s102="crash")
    assert run(folder).exit_code == 3
    view = load_view(Store(folder / "study"))
    assert {r.planned.arm for r in view.runs} == {"full"}
    assert any("now says no rate yet" in p for p in view.problems)
    assert view.verdicts[0].word == "not tested"
    modes(monkeypatch)
    assert run(folder).exit_code == 0
    assert load_view(Store(folder / "study")).left_out == ()


@pytest.mark.slow
def test_a_failed_run_is_tried_once_a_command_and_not_once_a_round(folder, monkeypatch):
    modes(monkeypatch, lora_lr1e_2_s100="nan", full_s0="nan")
    run(folder)
    run(folder, retries_failed=True)
    counts = {run_id.rsplit("-", 1)[0]: n for run_id, n in attempts(folder).items()}
    assert counts["sft-micro.lora.lr1e-2.s100"] == counts["sft-micro.full.s0"] == 2
    assert set(counts.values()) == {1, 2}


@pytest.mark.slow
def test_an_accident_is_not_tried_again_in_the_next_round(folder, monkeypatch):
    modes(monkeypatch, full_s0="crash")
    assert run(folder).exit_code == 3
    counts = {run_id.rsplit("-", 1)[0]: n for run_id, n in attempts(folder).items()}
    assert counts.pop("sft-micro.full.s0") == 1
    assert len(counts) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "cell"),
    [
        (signal.SIGKILL, "lora.lr*"),
        pytest.param(signal.SIGINT, "lora.lr*", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "twin.s*", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "twin.s*", marks=pytest.mark.slow),
    ],
)
def test_a_study_that_ends_in_either_round_goes_on_from_there(folder, number, cell):
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FAKE_STEP_S": "0.4"},
        cwd=Path(__file__).parent.parent,
    )
    pattern = f"study/runs/sft-micro.{cell}/attempt-1/steps.jsonl"
    wait_until(lambda: list(folder.glob(pattern)))
    process.send_signal(number)
    assert process.wait(20) == (-9 if number == signal.SIGKILL else 130)
    assert run(folder).exit_code == 0
    assert rates(folder)["sft-micro.lora.s0"] == 1e-3
    assert len(rates(folder)) == 3


RATIO = ComputeRatio(
    model="smollm2", rank=1, tokens=8, linear=0.67, closed_form=0.67, whole=0.7, attention_share=0.1
)
COMPUTE = """\
claims:
  two-thirds:
    rule: compute
    sentence: LoRA takes two thirds of the FLOPs.
    estimand: counted FLOPs
    unit: ratio
    models: [HuggingFaceTB/SmolLM3-3B]
    ranks: [1, 256]
    margin: 0.02
    margin_reason: a test
    speaks_for: a model
"""


def test_what_is_counted_is_kept_and_not_counted_again(tmp_path):
    store = Store(tmp_path / "study")
    store.prepare()
    matrix = parse_matrix(SFT + COMPUTE, "m")
    models = ["HuggingFaceTB/SmolLM3-3B"]
    assert read_counted(store) == ()
    assert to_count(matrix, ()) == (models, [1, 256])
    counted = [RATIO.model_copy(update={"model": models[0], "rank": rank}) for rank in (1, 256)]
    assert to_count(matrix, counted[:1]) == (models, [1, 256])
    assert to_count(matrix, counted) == ([], [])
    write_counted(store, counted)
    assert read_counted(store) == tuple(counted)
    assert to_count(parse_matrix(SFT, "m"), ()) == ([], [])
    assert to_count(matrix.model_copy(update={"scale": "rehearsal"}), ()) == ([], [])


def test_a_count_that_is_damaged_or_fails_does_not_cost_the_report(tmp_path):
    (tmp_path / "grid.yaml").write_text(SFT + COMPUTE)
    found = resolve(Request(matrix=str(tmp_path / "grid.yaml"), output_dir=tmp_path / "study"))
    plan = Plan(found.loaded, found.specs, found.output_dir, (Slot(0, None),), 1, 1)
    store, listener = Store(tmp_path / "study"), Listener()
    store.prepare()
    (store.root / FILE).write_text("{torn")

    def fails(models, ranks, tokens):
        raise MachineError(f"no torch to count {len(models)} models with")

    count_flops(store, plan, listener, fails)
    told = [e.text for e in listener.events if e.kind == "problem"]
    assert "set aside as flops.json.corrupt-1" in told[0]
    assert told[1] == "FLOPs were not counted: no torch to count 1 models with"
    assert read_counted(store) == ()
    count_flops(store, plan, listener, lambda models, ranks, tokens: ([], [RATIO]))
    assert read_counted(store) == (RATIO,)
