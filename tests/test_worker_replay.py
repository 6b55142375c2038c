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
from safetensors.numpy import load_file, save_file

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


@pytest.mark.slow
def test_a_busy_machine_scores_the_same_because_nothing_is_cut_off_by_the_clock():
    slow = timeout(1)(lambda: time.sleep(1.2) or "done")
    with pytest.raises(TimeoutException):
        slow()
    with without_time_limits():
        assert slow() == "done"
    with pytest.raises(TimeoutException):
        slow()


@pytest.mark.slow
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


def play(output: Path, *options: str, path: Path | None = None) -> Played:
    ask(str(output), *options, path=path)
    return Played.model_validate_json(output.read_bytes())


def play_edited(folder: Path, part: str, file: str, old: str, new: str) -> Played:
    """Play one part back with a copy of the installed TRL in which one line is another."""
    source = Path(find_spec("trl").submodule_search_locations[0])
    copied = folder / "edited" / "trl"
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copied / file).read_text()
    assert text.count(old) == 1
    (copied / file).write_text(text.replace(old, new))
    return play(folder / "replay.json", "--only", part, path=copied.parent)


def of_part(played: Played, *parts: str) -> dict:
    """The values of some parts, and which corpus they are of."""
    return {n: v for n, v in played.values.items() if n.startswith((*parts, "corpus/"))}


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


@pytest.mark.slow
def test_an_edited_reward_is_a_change_of_that_reward_alone(played, tmp_path):
    edited = play_edited(
        tmp_path,
        "rewards",
        "rewards/format_rewards.py",
        "[1.0 if match else 0.0 for match in matches]",
        "[0.5 if match else 0.0 for match in matches]",
    )
    found = replay_differences(of_part(played, "reward/"), edited.values)
    assert [(d.what, d.kind, d.word) for d in found] == [
        ("reward/think_format_reward", "reward", "changed")
    ]
    assert "1.0 became 0.5" in found[0].sentence
    assert not evaluation_changed(found)


@pytest.mark.slow
def test_labels_that_lose_their_last_token_are_a_change_of_data_and_loss(played, tmp_path):
    edited = play_edited(
        tmp_path,
        "rows",
        "trainer/sft_trainer.py",
        "        labels = [torch.tensor(lbl) for lbl in labels]\n",
        "        labels = [torch.tensor([*lbl[:-1], -100]) for lbl in labels]\n",
    )
    rows = of_part(played, "data/sft", "data/collator", "data/pack_dataset", "loss/sft")
    found = replay_differences(rows, edited.values)
    assert {(d.what, d.kind, d.word) for d in found} == {
        ("data/collator", "data", "changed"),
        ("data/sft", "data", "changed"),
        ("loss/sft", "loss", "changed"),
    }
    assert "trained_tokens" in next(d.sentence for d in found if d.what == "data/sft")


@pytest.mark.slow
def test_another_checkpoint_is_a_change_of_the_evaluation(played, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(FOLDER.parent / "micro-llama", other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    edited = play(tmp_path / "r.json", "--only", "checkpoint", "--checkpoint", str(other))
    found = replay_differences(of_part(played, "evaluation/"), edited.values)
    assert evaluation_changed(found)
    assert {d.kind for d in found} == {"evaluation"}
    assert "evaluation/nll" in {d.what for d in found}
