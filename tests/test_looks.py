"""What a study runs next, with a stand-in for the worker's program; everything else is real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench import Outcome, bench
from harness.cli import run as command
from harness.errors import ConfigError
from harness.launch.local import LocalLauncher
from harness.looks import looks_up_to, seeds_of_look
from harness.matrix import load_matrix
from harness.plan import Request
from harness.progress import Quiet
from harness.store import Store
from harness.view import load_view
from tests.fake_worker import COMMAND

LOOKS = """\
format: 1
name: looks
title: One pair, looked at after 3, 4 and 6 seeds
scale: embedded
device: cpu
seeds: [0, 1, 2, 3]
looks: [3, 4, 6]
warmup_steps_excluded: 1
trainer:
  sft: {max_steps: 2, per_device_train_batch_size: 4, bf16: false}
pairs:
  sft-micro:
    task: sft
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 16, validation_rows: 8, test_rows: 8}
    margin: 1e-9
    margin_reason: so small that nothing is decided
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "looks.yaml").write_text(LOOKS)
    return tmp_path


def run(folder: Path, **changes) -> Outcome:
    request = Request(
        matrix=str(folder / "looks.yaml"),
        output_dir=folder / "study",
        jobs=2,
        renders_report=False,
        **changes,
    )
    return bench(request, LocalLauncher(is_cold=True, command=COMMAND), Quiet())


def judged_seeds(folder: Path) -> list[int]:
    return sorted({run.seed for run in Store(folder / "study").read_study().planned})


@pytest.mark.slow
def test_looks_go_on_until_the_last_while_a_claim_is_open(folder):
    assert run(folder, until_decided=True, max_seeds=4).exit_code == 0
    study = Store(folder / "study").read_study()
    assert study.looks == (3, 4)
    assert judged_seeds(folder) == [0, 1, 2, 3]
    view = load_view(Store(folder / "study"))
    assert view.evidence.alpha == pytest.approx(0.0125)  # half of 2.5 % for each of two looks
    assert view.evidence.confidence == pytest.approx(0.975)
    assert run(folder, until_decided=True, max_seeds=4).exit_code == 0  # nothing is left to do
    assert judged_seeds(folder) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_decided_study_ends_at_its_first_look(folder, monkeypatch):
    monkeypatch.setenv("FAKE_STEP_S", "1.0")  # long enough for samples that a verdict may rest on
    text = LOOKS.replace("margin: 1e-9", "margin: 50.0")
    text = text.replace(
        "seeds: [0, 1, 2, 3]", "seeds: [0, 1, 2, 3]\nclaims: {memory: " + MEMORY + "}"
    )
    (folder / "looks.yaml").write_text(text)
    assert run(folder, until_decided=True).exit_code == 0
    verdicts = load_view(Store(folder / "study")).verdicts
    assert [v.word for v in verdicts] != ["inconclusive"]
    assert judged_seeds(folder) == [0, 1, 2]


# What a worker that trains nothing has no reading for: 'not tested', which no seed would change.
MEMORY = (
    "{rule: memory, sentence: s, estimand: e, comparisons: [sft-micro.lora], at_most: 1000.0, unit: ratio, "
    "margin_reason: r, speaks_for: nothing}"
)


@pytest.mark.slow
def test_other_looks_are_another_study(folder):
    run(folder, until_decided=True, max_seeds=3)
    with pytest.raises(ConfigError, match="fixed before the first run"):
        run(folder, until_decided=True, max_seeds=4)


def test_seeds_follow_on_from_those_of_the_matrix(folder):
    matrix = load_matrix(str(folder / "looks.yaml")).matrix
    assert seeds_of_look(matrix, 3) == (0, 1, 2)
    assert seeds_of_look(matrix, 6) == (0, 1, 2, 3, 4, 5)


def test_too_few_seeds_for_the_first_look_are_refused(folder):
    matrix = load_matrix(str(folder / "looks.yaml")).matrix
    with pytest.raises(ConfigError, match="first look of matrix 'looks' is at 3"):
        looks_up_to(matrix, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--until-decided", "--seeds", "0-3"], "keep one"),
        (["--max-seeds", "4"], "add --until-decided"),
    ],
)
def test_options_that_contradict_each_other_are_refused(folder, capsys, options, message):
    asked = ["bench", "--matrix", str(folder / "looks.yaml"), "--dry-run", *options]
    assert command(asked) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_lists_the_first_look(folder, capsys):
    asked = ["bench", "-m", str(folder / "looks.yaml"), "--until-decided", "--dry-run", "--json"]
    assert command(asked) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["seed"] for line in lines} == {0, 1, 2}
