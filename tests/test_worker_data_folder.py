"""Reading a repository's folder: every layout that a download leaves, and nothing but its files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from harness.errors import ConfigError, MachineError
from harness.worker.data import Request
from harness.worker.data.repository_rows import read_splits
from tests.repository_folder import GSM8K_README, repository, write_lines, write_parquet

GSM8K, DEEPMATH = "openai/gsm8k", "zwhe99/DeepMath-103K"
ROWS = [{"question": f"q{i}", "final_answer": str(i), "topic": "t"} for i in range(3)]
WORDS = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(3)]
NONE = pa.schema([("question", pa.string()), ("answer", pa.string())])


@pytest.fixture(autouse=True)
def sealed(monkeypatch, tmp_path):
    """A cache of the test's own, and no way out of this machine."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def refuse(*_args, **_more):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def read(name, folder, *splits):
    request = Request("grpo", 1, 0, 1, 0, {}, str(folder))
    return read_splits(name, splits or ("train",), request)


def problems_of(name, folder, *splits):
    with pytest.raises(ConfigError) as raised:
        read(name, folder, *splits)
    return raised.value.problems


def test_a_readme_names_the_configuration_and_its_splits(tmp_path):
    train, test = read(GSM8K, repository(tmp_path / "r", WORDS, WORDS[:1]), "train", "test")
    assert train.to_list() == WORDS
    assert len(test) == 1


def test_without_a_readme_the_folder_of_the_configurations_name_is_read(tmp_path):
    folder = repository(tmp_path / "r", WORDS, WORDS[:1])
    (tmp_path / "r" / "README.md").unlink()
    train, test = read(GSM8K, folder, "train", "test")
    assert (len(train), len(test)) == (3, 1)


@pytest.mark.parametrize("file", ["data/train-0.jsonl", "train.jsonl.gz", "data/train.json"])
def test_json_lines_are_read_packed_or_not(file, tmp_path):
    write_lines(tmp_path / "r" / file, ROWS)
    (rows,) = read(DEEPMATH, tmp_path / "r")
    assert rows.column_names == ["question", "final_answer"]
    assert rows["final_answer"][:] == ["0", "1", "2"]


def test_several_files_and_links_into_a_blob_store_are_one_split(tmp_path):
    """As the Hub's cache keeps a snapshot: names that point at blobs."""
    snapshot = tmp_path / "snapshots" / "abc" / "data"
    snapshot.mkdir(parents=True)
    for number in range(2):
        write_parquet(tmp_path / "blobs" / f"{number}f", ROWS)
        (snapshot / f"train-0000{number}-of-00002.parquet").symlink_to(f"../../../blobs/{number}f")
    (rows,) = read(DEEPMATH, snapshot.parent)
    assert len(rows) == 6


def test_columns_that_nobody_reads_are_not_converted(tmp_path):
    folder = repository(tmp_path / "r", [{**row, "r1_solution_1": "x" * 100_000} for row in ROWS])
    read(DEEPMATH, folder)
    kept = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.arrow"))
    assert 0 < kept < 10_000


def test_a_renamed_column_is_named_with_what_is_there(tmp_path):
    rows = [{"question": "q", "final_anser": "1"}]
    for kind in ("parquet", "jsonl"):
        folder = tmp_path / kind
        (write_parquet if kind == "parquet" else write_lines)(folder / f"train.{kind}", rows)
        (problem,) = problems_of(DEEPMATH, folder)
        assert "column 'final_answer' is missing (did you mean 'final_anser'?)" in problem
        assert "found question, final_anser; expected question, final_answer" in problem


def test_an_empty_split_and_a_missing_column_are_both_said(tmp_path):
    folder = tmp_path / "r"
    repository(folder, [{"quest": "q", "answer": "#### 1"}], [])
    write_parquet(folder / "main" / "test-00000-of-00001.parquet", [], NONE)
    problems = problems_of(GSM8K, folder, "train", "test")
    assert len(problems) == 2
    assert "column 'question' is missing" in problems[0]
    assert "split 'test' is empty" in problems[1]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_json_file_is_an_empty_split_or_unreadable(content, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "train.jsonl").write_bytes(content)
    (problem,) = problems_of(DEEPMATH, tmp_path / "r")
    assert "split 'train'" in problem


def test_a_missing_split_names_those_that_are_there(tmp_path):
    write_parquet(tmp_path / "s" / "data" / "validation-0.parquet", ROWS)
    (problem,) = problems_of(DEEPMATH, tmp_path / "s")
    assert "has no split 'train'; found validation" in problem


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("data/train-0.parquet", b"PAR1 cut off", "no whole parquet file"),
        ("data/train-0.parquet", b"version https://git-lfs.github.com/spec/v1\n", "fetch it again"),
        ("data/train-0.jsonl", b'{"question": "q"\n{', "can't be read"),
        ("data/train-0.txt", b"words", "expected parquet or JSON Lines"),
        ("README.md", b"nothing else", "can't be read"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_in_one_sentence(
    file, content, expected, tmp_path
):
    path = tmp_path / "r" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (problem,) = problems_of(DEEPMATH, tmp_path / "r")
    assert expected in problem
    assert "\n" not in problem
    assert str(tmp_path) not in problem


@pytest.mark.parametrize(
    "where",
    [
        "https://example.org/rows.parquet",
        "hf://datasets/a/b/x.parquet",
        "/etc/x",
        "../../x.parquet",
    ],
)
def test_a_readme_that_names_files_elsewhere_is_refused_and_nothing_is_asked(where, tmp_path):
    folder = Path(repository(tmp_path / "r", WORDS, WORDS))
    text = GSM8K_README.replace("main/train-*", where)
    (folder / "README.md").write_text(text)
    (problem,) = problems_of(GSM8K, folder)
    assert "names files outside of its folder" in problem
    (folder / "README.md").write_text(GSM8K_README)
    (folder / ".huggingface.yaml").write_text(text.strip().strip("-"))
    assert "names files outside of its folder" in problems_of(GSM8K, folder)[0]


@pytest.mark.parametrize("head", ["configs: [", "- a", "configs: {a: 1", "%"])
def test_a_broken_readme_is_one_sentence(head, tmp_path):
    folder = Path(repository(tmp_path / "r", ROWS))
    (folder / "README.md").write_text(f"---\n{head}\n---\n")
    (problem,) = problems_of(DEEPMATH, folder)
    assert "\n" not in problem


def test_a_script_in_the_folder_never_runs(tmp_path):
    folder = Path(repository(tmp_path / "r", ROWS))
    mark = tmp_path / "ran"
    (folder / "r.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (problem,) = problems_of(DEEPMATH, folder)
    assert "scripts are no longer supported" in problem
    assert not mark.exists()


def test_a_folder_that_is_gone_is_the_machines_fault(tmp_path):
    with pytest.raises(MachineError, match="does not exist; run `harness fetch`"):
        read(DEEPMATH, tmp_path / "gone")


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(MachineError, match="HARNESS_CACHE"):
        read(DEEPMATH, repository(tmp_path / "r", ROWS))


@pytest.mark.slow
def test_rows_are_read_where_the_hubs_cache_cannot_be_written(tmp_path):
    """In a process of its own: the Hub's folders are fixed when its library is imported."""
    folder = repository(tmp_path / "r", ROWS)
    code = (
        "from harness.worker.data import Request; "
        "from harness.worker.data.repository_rows import read_splits; "
        f"request = Request('grpo', 1, 0, 1, 0, {{}}, {folder!r}); "
        f"print(len(read_splits({DEEPMATH!r}, ['train'], request)[0]))"
    )
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "file" / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "3", done.stderr


def test_half_a_surrogate_pair_in_json_becomes_a_replacement_character(tmp_path):
    lines = ['{"question": "a\\ud800b", "final_answer": "1"}', json.dumps(ROWS[0])]
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "train.jsonl").write_text("\n".join(lines) + "\n")
    (rows,) = read(DEEPMATH, tmp_path / "r")
    assert rows["question"][:] == ["a�b", "q0"]
