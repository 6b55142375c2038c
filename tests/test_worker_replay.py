"""The frozen corpus is whole; the installed stack gives the same twice, and an edit of it shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from math_verify.errors import TimeoutException
from math_verify.utils import timeout

from harness.compare.replay import evaluation_changed, replay_differences
from harness.replaying import record_replay
from harness.replays import Played
from harness.worker.replay.corpus import FOLDER, read_corpus
from harness.worker.replay.patience import without_time_limits

MOST_BYTES = 200_000


def test_the_corpus_is_small_and_every_row_has_a_name_of_its_own():
    files = list(FOLDER.glob("*.jsonl"))
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
        assert len(set(names)) == len(names) > 0
        assert not any("/" in name for name in names)


def test_the_corpus_holds_the_rows_that_go_wrong():
    corpus = read_corpus()
    scored = {row.name: row for row in corpus.scored}
    assert scored["no-gold"].solution is None
    assert scored["empty"].completion == ""
    assert len(scored["very-long"].completion) > 10_000
    assert scored["two-closings"].completion.count("</think>") == 2
    assert "<|im_end|>" in corpus.chats["special-tokens-inside"][0]["content"]
    # A user's turn and an answer of n characters take n + 7 tokens of the embedded tokenizer.
    lengths = [
        len(corpus.pairs[name]["completion"][0]["content"]) + 7
        for name in ("exactly-fits", "one-too-long")
    ]
    assert lengths == [64, 65]


def test_a_corpus_with_another_row_has_another_hash(tmp_path):
    for path in FOLDER.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    with (tmp_path / "rewards.jsonl").open("a") as file:
        file.write('{"name": "more", "completion": "1", "solution": "1"}\n')
    assert read_corpus(tmp_path).sha256 != read_corpus().sha256 == read_corpus(FOLDER).sha256


def test_a_busy_machine_scores_the_same_because_nothing_is_cut_off_by_the_clock():
    slow = timeout(1)(lambda: time.sleep(1.2) or "done")
    with pytest.raises(TimeoutException):
        slow()
    with without_time_limits():
        assert slow() == "done"
    with pytest.raises(TimeoutException):
        slow()


def test_an_edited_file_of_a_library_shows_in_the_fingerprint(tmp_path):
    (tmp_path / "math_verify").mkdir()
    module = tmp_path / "math_verify" / "__init__.py"
    module.write_text("A = 1\n")
    first = ask("--fingerprint", path=tmp_path)
    module.write_text("A = 12\n")
    assert ask("--fingerprint", path=tmp_path) != first == first.strip() + "\n"


def ask(*arguments: str, path: Path | None = None) -> str:
    """Run the program with another folder first on its path."""
    paths = [str(path)] if path else []
    done = subprocess.run(
        [sys.executable, "-m", "harness.worker.replay", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ["PYTHONPATH"]])},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def play(output: Path, path: Path | None = None) -> Played:
    ask(str(output), path=path)
    return Played.model_validate_json(output.read_bytes())


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Played:
    """What the installed stack gives."""
    return play(tmp_path_factory.mktemp("replay") / "replay.json")


@pytest.mark.slow
def test_the_same_stack_gives_the_same_twice(played, tmp_path):
    again = record_replay(tmp_path)
    assert replay_differences(played.values, again) == ()
    assert again == played.values


@pytest.mark.slow
def test_every_part_answers(played):
    groups = {"/".join(name.split("/")[:2]) for name in played.values}
    assert groups > {
        "reward/accuracy_reward", "reward/reasoning_accuracy_reward", "reward/think_format_reward",
        "reward/strip_reasoning_accuracy_reward", "reward/parsed_answer", "template/micro-llama",
        "template/plain", "template/reasoning", "shipped/template-rendered", "token/ids",
        "data/pack_dataset", "data/collator", "data/sft", "data/RepeatSampler", "loss/sft",
        "loss/selective_log_softmax", "evaluation/nll", "evaluation/reward", "evaluation/greedy",
        "evaluation/logits",
    }  # fmt: skip
    assert played.notes == ()


@pytest.mark.slow
def test_the_answers_are_the_right_ones(played):
    values = played.values
    assert values["reward/accuracy_reward/fraction"] == 1.0
    assert values["reward/accuracy_reward/wrong"] == 0.0
    assert values["reward/accuracy_reward/unparseable-gold"] is None
    assert values["reward/reasoning_accuracy_reward/unclosed-think"] == 0.0
    assert values["reward/soft_overlong_punishment/21-tokens"] == -1.0
    assert values["template/micro-llama/single/open"] == (
        "<|user|>How many legs have three cats?<|end|><|assistant|>"
    )
    assert values["evaluation/greedy/0"] == "<think>3+5=8</think>\\boxed{12}<|end|>"
    assert values["data/collator/packed"].count("-100") == 4  # the first token of each sequence


def edited(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the installed TRL with one line changed, to be put first on the path."""
    source = Path(find_spec("trl").submodule_search_locations[0])
    shutil.copytree(source, folder / "trl", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "trl" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return folder


@pytest.mark.slow
def test_an_edited_reward_is_a_change_of_that_reward_alone(played, tmp_path):
    folder = edited(
        tmp_path / "edited",
        "rewards/format_rewards.py",
        "[1.0 if match else 0.0 for match in matches]",
        "[0.5 if match else 0.0 for match in matches]",
    )
    found = replay_differences(played.values, play(tmp_path / "replay.json", folder).values)
    assert [(d.what, d.kind, d.word) for d in found] == [
        ("reward/think_format_reward", "reward", "changed")
    ]
    assert "thought-boxed: 1.0 became 0.5" in found[0].sentence
    assert not evaluation_changed(found)


@pytest.mark.slow
def test_labels_that_lose_their_last_token_are_a_change_of_data_and_loss(played, tmp_path):
    folder = edited(
        tmp_path / "edited",
        "trainer/sft_trainer.py",
        "        labels = [torch.tensor(lbl) for lbl in labels]\n",
        "        labels = [torch.tensor([*lbl[:-1], -100]) for lbl in labels]\n",
    )
    found = replay_differences(played.values, play(tmp_path / "replay.json", folder).values)
    changed = {d.what for d in found if d.word == "changed"}
    assert {"data/collator", "data/sft", "loss/sft"} <= changed
    assert {d.kind for d in found if d.what == "evaluation/nll"} == {"evaluation"}
    assert not {what for what in changed if what.startswith(("reward/", "token/", "template/"))}
