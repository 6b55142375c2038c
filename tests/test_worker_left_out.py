"""What was not trained on is said: rows that can't be used, and rows that TRL cut."""

from __future__ import annotations

import re

from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.record import Result, Status
from harness.report_tables import rows_left_out
from harness.store import Store
from harness.view import load_view
from harness.worker.left_out import UNUSABLE_FILE, keep_unusable
from harness.worker.progress import LISTED, Progress

MATRIX = """\
format: 1
name: tiny
title: A conversation to learn
scale: rehearsal
device: cpu
seeds: [0]
warmup_steps_excluded: 1
pairs:
  sft:
    task: sft
    model: {source: "embedded:micro-llama", chat_template: null}
    dataset:
      {name: allenai/tulu-3-sft-mixture, rows_from: fixture, train_rows: null, test_rows: 2,
       max_prompt_tokens: 60}
    trainer: {max_steps: 1, per_device_train_batch_size: 2, bf16: false, max_length: 80}
    margin: 0.02
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
"""


def test_up_to_a_page_of_sentences_is_in_the_result_alone_and_more_in_a_file_too(tmp_path):
    sentences = tuple(f"train row {i}: \x1b[31m\ud800\n{i}" for i in range(LISTED + 7))
    keep_unusable(tmp_path, sentences[:LISTED])
    assert not (tmp_path / UNUSABLE_FILE).exists()
    keep_unusable(tmp_path, sentences)
    assert len((tmp_path / UNUSABLE_FILE).read_text(encoding="utf-8").splitlines()) == LISTED + 7
    failed = Progress(unusable=sentences).failed(Status.CRASHED, "boom")
    assert failed.unusable_count == LISTED + 7
    assert failed.unusable_rows == sentences[:LISTED]


def test_a_report_says_how_many_there_are_where_not_all_are_listed():
    few = Result(status=Status.OK, unusable_rows=("a",), unusable_count=1)
    many = Result(status=Status.OK, unusable_rows=("a", "b"), unusable_count=1_234)
    old = Result(status=Status.OK, unusable_rows=("a",))
    assert list(rows_left_out(few)) == list(rows_left_out(old)) == ["a"]
    first, *rest = rows_left_out(many)
    assert first.startswith("1,234 dataset rows were left out in all")
    assert rest == ["a", "b"]


def test_a_real_run_counts_the_rows_that_trl_cut_and_those_that_were_left_out(tmp_path):
    from harness.bench import bench

    (tmp_path / "tiny.yaml").write_text(MATRIX)
    outcome = bench(
        Request(matrix=str(tmp_path / "tiny.yaml"), output_dir=tmp_path / "study"),
        LocalLauncher(is_cold=True),
        Quiet(),
    )
    (run,) = load_view(Store(tmp_path / "study")).runs
    assert run.record is not None
    assert run.record.status is Status.OK, run.record.reason
    result = run.record.result
    assert result is not None
    assert result.unusable_count == len(result.unusable_rows) > 0
    assert all("more than the 60 allowed" in line for line in result.unusable_rows)
    (cut,) = [note for note in result.notes if "fill max_length" in note]
    full, rows = map(int, re.findall(r"\d+", cut)[:2])
    assert 0 < full <= rows == 32 - 2 - result.unusable_count
    report = (outcome.store.root / "report" / "report.md").read_text(encoding="utf-8")
    assert "fill max\\_length" in report or "fill max_length" in report
