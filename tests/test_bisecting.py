"""`harness bisect`: its words, its answers and its exit codes. The search itself is in test_bisect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bisect import search_packages, search_releases
from harness.bisect_question import Question
from harness.bisect_text import next_steps
from harness.bisecting import bench_words, read_question, tell_answer
from harness.cli import run
from tests.test_trial import QUESTION, RELEASES, World, sft_changes_at

ASKED = {"matrix": "upgrade", "filters": ("grpo-*",), "seeds": None, "overrides": {}, "jobs": None}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "expected two ends"),
        (["--good", "1.16.0"], "expected two ends"),
        (["--good", "1.16.0", "--bad", "trl==1.8.0"], "two releases, or two sets"),
        (["--good", "1.16.0", "--bad", "1.8.0", "--releases", "1.8.0,1.9.0"], "is no release"),
        (["--good", "a==1", "--bad", "a==1"], "no package at different releases"),
        (["--good", "a==1", "--bad", "a>=1 a==2"], "expected name==version"),
        (["--good-lock", "none.txt", "--bad-lock", "none.txt"], "none.txt"),
        (["--good", "1.8.0", "--bad", "1.9.0", "--releases", "1.8.0,1.9.0", "-m", "cpuu"], "'cpu'"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_do(words, expected, capsys):
    assert run(["bisect", *words]) == 2
    assert expected in capsys.readouterr().err


def test_locks_are_read_as_two_ends(tmp_path: Path):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("numpy==2.3.5\npeft==0.20.0  # why\n")
    bad.write_text("numpy==2.3.5\npeft==0.21.2\n")
    question = read_question(None, None, good, bad, "trl", None, ())
    assert (question.good, question.bad) == ({"peft": "0.20.0"}, {"peft": "0.21.2"})


def test_an_end_trains_what_was_asked_for_and_the_rest_what_differs():
    stack = {"trl": "1.9.0", "transformers": "4.57.6"}
    words = bench_words(ASKED | {"seeds": (0, 1)}, stack, (), Path("results/x"))
    assert words[-4:] == ["--filter", "grpo-*", "--seeds", "0,1"]
    for option, value in (("--trl", "1.9.0"), ("--with", "transformers==4.57.6")):
        assert words[words.index(option) + 1] == value
    words = bench_words(ASKED | {"overrides": {"a": 0.5}}, {"peft": "1.0"}, ("p.full",), Path("x"))
    assert "--trl" not in words
    assert words[-4:] == ["--filter", "p.full.s*", "--set", "a=0.5"]


def releases_answer(
    tmp_path: Path, change: int, capsys, *, is_json: bool = False
) -> tuple[int, str]:
    trial = World(sft_changes_at(change)).trial(tmp_path, QUESTION)
    answer = search_releases(RELEASES, lambda name: trial.probe(QUESTION.stack(name)))
    code = tell_answer(answer, QUESTION, trial, is_json=is_json)
    return code, capsys.readouterr().out


def test_a_release_that_was_found_is_told_with_its_cells_and_the_next_command(tmp_path, capsys):
    code, out = releases_answer(tmp_path, 5, capsys)
    assert code == 0
    for words in (
        "training changed between 1.4.0 and TRL 1.5.0, which are adjacent",
        "where: sft-plain.full",
        f"harness compare {tmp_path}/trl-1.4.0 {tmp_path}/trl-1.5.0",
    ):
        assert words in out


def test_json_is_one_line_with_the_table(tmp_path, capsys):
    code, out = releases_answer(tmp_path, 5, capsys, is_json=True)
    answer = json.loads(out)
    assert code == 0
    assert (answer["word"], answer["good"], answer["bad"]) == ("found", "1.4.0", "1.5.0")
    assert answer["cells"] == ["sft-plain.full"]
    assert answer["tried"][0]["names"] == ["1.11.0"]
    assert answer["commands"][0].startswith("harness compare")


def test_ends_that_train_the_same_exit_6_and_point_to_the_locks(tmp_path, capsys):
    code, out = releases_answer(tmp_path, 99, capsys)
    assert code == 6
    assert "nothing to bisect: training is the same with TRL 1.0.0 and TRL 1.11.0" in out
    assert "--good-lock" in out


def test_a_package_that_was_found_points_to_its_releases(tmp_path, capsys):
    question = Question({"numpy": "1.0", "trl": "1.0.0"}, {"numpy": "2.0", "trl": "1.1.0"})
    world = World(
        lambda stack: {"sft-plain.full": float(stack["numpy"]), "grpo-plain.lora-r1": 3.0}
    )
    trial = world.trial(tmp_path, question)
    answer = search_packages(question.packages, (), lambda n: trial.probe(question.mixture(n)))
    assert tell_answer(answer, question, trial, is_json=False) == 0
    assert "training changed with numpy 1.0 → 2.0" in capsys.readouterr().out
    steps = next_steps(answer, question, trial)
    assert steps[-1] == "harness bisect --package numpy --good 1.0 --bad 2.0"
