from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from harness.launch.watch import PROGRESS_FILES
from harness.worker.journal import Journal


def phases(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "phases.jsonl").read_text().splitlines()]


def test_both_edges_of_a_phase_wait_for_the_gpu(tmp_path):
    done: list[str] = []
    journal = Journal(tmp_path, is_cuda=False, wait_for_gpu=lambda: done.append("waited"))
    with closing(journal), journal.phase("train"):
        done.append("queued")
    assert done == ["waited", "queued", "waited"]


def test_only_an_evaluation_gives_back_what_torch_keeps(tmp_path):
    done: list[str] = []
    journal = Journal(tmp_path, is_cuda=False, free_cache=lambda: done.append("freed"))
    with closing(journal), journal.phase("train"):
        done.append("trained")
        with journal.phase("evaluate"):
            done.append("evaluated")
    assert done == ["trained", "freed", "evaluated", "freed"]


def test_without_a_gpu_nothing_is_waited_for(tmp_path):
    with closing(Journal(tmp_path, is_cuda=False)) as journal, journal.phase("train"):
        pass
    assert [p["phase"] for p in phases(tmp_path)] == ["train"]


def test_what_ends_a_phase_is_not_replaced_by_a_gpu_that_no_longer_answers(tmp_path):
    answers = iter([None])

    def wait() -> None:
        if next(answers, "dead") == "dead":
            raise RuntimeError("CUDA error")

    journal = Journal(tmp_path, is_cuda=False, wait_for_gpu=wait)
    with closing(journal), pytest.raises(ValueError, match="cause"), journal.phase("train"):
        raise ValueError("the cause")
    assert [p["phase"] for p in phases(tmp_path)] == ["train"]


def test_every_beat_is_seen_by_who_watches_for_stalls(tmp_path):
    with closing(Journal(tmp_path, is_cuda=False)) as journal:
        before = set(tmp_path.iterdir())
        journal.beat()
        (heartbeat,) = set(tmp_path.iterdir()) - before
        assert heartbeat.name in PROGRESS_FILES
        os.utime(heartbeat, ns=(0, 0))
        journal.beat()
        assert heartbeat.stat().st_mtime_ns > 0


def test_a_silent_journal_leaves_no_file(tmp_path):
    with closing(Journal(tmp_path, is_cuda=False, is_silent=True)) as journal:
        journal.beat()
    assert list(tmp_path.iterdir()) == []
