"""`harness compare` through the command line: exit codes, what it prints, what it writes."""

from __future__ import annotations

import json

import pytest

from harness.cli import run
from harness.compare.model import Comparison
from harness.record import Status
from tests.comparison_sides import PACKAGES, only, round_all, scale_gradient
from tests.comparison_studies import write_folder
from tests.conftest import MATRIX

NEWER = {**PACKAGES, "trl": "1.17.0"}
UNFIT = {**PACKAGES, "trl": "1.15.0"}


def doubled(run_side):
    return scale_gradient(run_side, 2.0)


def ended(status, reason):
    return lambda run_side: run_side.model_copy(
        update={"status": status, "reason": reason, "probe": None, "evaluations": ()}
    )


@pytest.fixture
def base(tmp_path):
    return write_folder(tmp_path / "base")


def compare(base, candidate, *options):
    return run(["compare", str(base), str(candidate), *options])


def test_the_same_exits_0_and_says_so(base, tmp_path, capsys):
    candidate = write_folder(tmp_path / "candidate", packages=NEWER)
    assert compare(base, candidate) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "The same from TRL 1.16.0 to TRL 1.17.0: 4 cells, every number identical."
    )
    assert "trl 1.16.0 became 1.17.0" in out
    assert "A/A: no run was repeated." in out
    assert "lora-r1" in out


def test_rounding_exits_0(base, tmp_path, capsys):
    candidate = write_folder(tmp_path / "candidate", round_all)
    assert compare(base, candidate) == 0
    assert "up to rounding" in capsys.readouterr().out


def test_a_change_exits_4_with_its_place_first_step_and_both_values(base, tmp_path, capsys):
    candidate = write_folder(
        tmp_path / "candidate", only(lambda r: r.task == "grpo", doubled), packages=NEWER
    )
    assert compare(base, candidate) == 4
    out = capsys.readouterr().out
    assert "GRPO, full and LoRA alike: gradients from step 1, rewards the same." in out
    row = next(line for line in out.splitlines() if "grpo-micro" in line and "lora-r1" in line)
    assert "changed" in row
    assert "became" in row


def test_a_change_that_is_not_to_fail_on_exits_0(base, tmp_path):
    candidate = write_folder(tmp_path / "candidate", doubled)
    assert compare(base, candidate, "--fail-on", "undecided") == 0


def test_runs_that_are_still_to_come_exit_6(base, tmp_path, capsys):
    candidate = write_folder(
        tmp_path / "candidate", lambda r: r.model_copy(update={"status": None})
    )
    assert compare(base, candidate) == 6
    assert "not run yet in the candidate" in capsys.readouterr().out


def test_another_matrix_exits_6_and_says_what_to_do(base, tmp_path, capsys):
    text = MATRIX.replace("learning_rate: 1e-4", "learning_rate: 2e-4")
    candidate = write_folder(tmp_path / "candidate", matrix_text=text)
    assert compare(base, candidate) == 6
    assert "ask for different training" in capsys.readouterr().out


def test_a_release_that_cannot_train_here_exits_7_with_its_cause(base, tmp_path, capsys):
    reason = "TRL 1.15.0 can't train without Triton, which is not installed here"
    candidate = write_folder(
        tmp_path / "candidate", ended(Status.UNAVAILABLE, reason), packages=UNFIT
    )
    assert compare(base, candidate) == 7
    assert "can't train without Triton" in capsys.readouterr().out


def test_a_release_that_cannot_train_one_task_is_no_regression(base, tmp_path):
    reason = "TRL's GRPOTrainer can't be imported under transformers 5.17.0"
    candidate = write_folder(
        tmp_path / "candidate",
        only(lambda r: r.task == "grpo", ended(Status.UNAVAILABLE, reason)),
        packages=UNFIT,
    )
    assert compare(base, candidate) == 6
    assert compare(base, candidate, "--fail-on", "changed,undecided") == 0


def test_a_damaged_record_exits_8_and_the_rest_is_compared(base, tmp_path, capsys):
    candidate = write_folder(tmp_path / "candidate")
    record = next((candidate / "runs").glob("sft-micro.full*/record.json"))
    record.write_text(record.read_text()[:-40])
    assert compare(base, candidate) == 8
    shown = capsys.readouterr()
    assert "record.json" in shown.err
    assert "grpo-micro" in shown.out


def test_a_damaged_study_exits_8_without_a_traceback(base, tmp_path, capsys):
    candidate = write_folder(tmp_path / "candidate")
    (candidate / "study.json").write_text("{")
    assert compare(base, candidate) == 8
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare"],
        ["compare", "one"],
        ["compare", "nowhere", "nowhere-else"],
        ["compare", ".", ".", "--tolerance", "2"],
        ["compare", ".", ".", "--fail-on", "chnged"],
    ],
)
def test_a_wrong_command_exits_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2


def test_a_misspelt_word_gets_a_suggestion(base, capsys):
    assert compare(base, base, "--fail-on", "chnged") == 2
    assert "did you mean 'changed'" in capsys.readouterr().err


def test_json_is_the_comparison(base, tmp_path, capsys):
    candidate = write_folder(tmp_path / "candidate", doubled)
    assert compare(base, candidate, "--json") == 4
    found = Comparison.model_validate_json(capsys.readouterr().out)
    assert found.word == "changed"
    assert found.place is not None
    assert found.place.tasks == ("sft", "grpo")


def test_quiet_is_one_sentence(base, capsys):
    assert compare(base, base, "--quiet") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_folder_gets_the_comparison(base, tmp_path):
    assert compare(base, base, "-o", str(tmp_path / "out")) == 0
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert data["word"] == "same"


def test_hostile_text_of_a_study_is_made_harmless(base, tmp_path, capsys):
    candidate = write_folder(
        tmp_path / "candidate", ended(Status.CRASHED, "\x1b[31mboom\x1b[0m <script>")
    )
    assert compare(base, candidate) == 4
    assert "\x1b" not in capsys.readouterr().out
