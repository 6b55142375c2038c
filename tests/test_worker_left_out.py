"""What was not trained on is said: rows that can't be used, and rows that TRL cut."""

from __future__ import annotations

import re

import pytest
from trl import SFTConfig, SFTTrainer

from harness.errors import ConfigError
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.record import Result, Status
from harness.report_tables import rows_left_out
from harness.settings import DatasetSpec, Model
from harness.store import Store
from harness.view import load_view
from harness.worker.data import load_splits
from harness.worker.left_out import UNUSABLE_FILE, keep_unusable, length_notes
from harness.worker.models import load_model
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


@pytest.mark.slow
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
    (cut,) = [note for note in result.notes if "train rows fill max_length" in note]
    full, rows = map(int, re.findall(r"\d+", cut)[:2])
    assert 0 < full <= rows == 32 - 2 - result.unusable_count
    report = (outcome.store.root / "report" / "report.md").read_text(encoding="utf-8")
    assert "fill max\\_length" in report or "fill max_length" in report


def test_supervised_rows_that_max_length_leaves_nothing_of_stop_the_run_before_it_trains(tmp_path):
    loaded = load_model(Model(source="embedded:micro-llama"))
    spec = DatasetSpec(
        name="open-thoughts/OpenThoughts-114k", rows_from="fixture", train_rows=None, test_rows=9
    )
    splits = load_splits("sft", spec)

    def trainer(max_length):
        config = SFTConfig(
            output_dir=str(tmp_path), max_length=max_length, bf16=False, use_cpu=True,
            report_to="none",
        )  # fmt: skip
        return SFTTrainer(
            model=loaded.model,
            args=config,
            train_dataset=splits.train,
            eval_dataset={"test": splits.test},
            processing_class=loaded.tokenizer,
        )

    assert length_notes(trainer(None), splits) == []
    notes = length_notes(trainer(300), splits)
    assert [n for n in notes if "train rows were dropped by TRL" in n]
    assert [n for n in notes if "of 9 test rows" in n]
    with pytest.raises(ConfigError, match="set max_prompt_tokens below it") as raised:
        length_notes(trainer(100), splits)
    assert len(raised.value.problems) == 2
