"""A matrix on other seeds, with a stand-in for the worker's program: kept, compared, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench import bench
from harness.cli import run as command
from harness.errors import ConfigError
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import Quiet
from harness.repeat_tables import contradictions, keep_repeats, repeats_table
from harness.repeats import Repeat, RepeatedVerdict, read_repeats
from harness.store import Store
from harness.view import StudyView, load_view
from tests.fake_worker import COMMAND

MATRIX = """\
format: 1
name: again
title: One pair
scale: embedded
device: cpu
seeds: [0, 1]
warmup_steps_excluded: 1
trainer:
  sft: {max_steps: 2, per_device_train_batch_size: 4, bf16: false}
pairs:
  sft-micro:
    task: sft
    model: {source: "embedded:micro-llama"}
    dataset: {name: micro-steps, train_rows: 16, test_rows: 8}
    margin: 0.1
    margin_reason: a test
    arms:
      full: {method: full, trainer: {learning_rate: 1e-4}}
      lora: {method: lora, lora: {r: 4}, trainer: {learning_rate: 1e-3}}
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("again")
    (folder / "again.yaml").write_text(MATRIX)
    for block in (0, 1):
        request = Request(
            matrix=str(folder / "again.yaml"),
            output_dir=folder / f"block{block}",
            jobs=2,
            renders_report=False,
            seed_block=block,
        )
        assert bench(request, LocalLauncher(is_cold=True, command=COMMAND), Quiet()).exit_code == 0
    return folder / "block0", folder / "block1"


def view_of(path: Path) -> StudyView:
    return load_view(Store(path))


def test_a_seed_block_shares_no_seed_and_is_the_same_matrix(studies):
    one, other = map(view_of, studies)
    assert {r.planned.seed for r in one.runs} == {0, 1}
    assert {r.planned.seed for r in other.runs} == {10_000, 10_001}
    assert one.study.matrix_hash == other.study.matrix_hash
    assert other.problems == ()
    assert not other.post_hoc


def test_verdicts_of_another_block_are_kept_and_shown(studies):
    first = view_of(studies[0])
    kept = keep_repeats(Store(studies[0]), first, [studies[1]])
    assert read_repeats(Store(studies[0])) == kept
    (repeat,) = kept
    assert (repeat.seed_block, repeat.seeds) == (1, (10_000, 10_001))
    table = repeats_table(first, kept)
    assert table.columns == ("Claim", "block 0 (block0)", "block 1 (block1)")
    assert [row[0] for row in table.rows] == ["sft-micro.lora"]
    assert "no claim contradicts itself" in table.caption


def test_what_shares_seeds_or_is_another_matrix_is_refused(studies, tmp_path):
    first = view_of(studies[0])
    with pytest.raises(ConfigError, match="shares seeds"):
        keep_repeats(Store(studies[0]), first, [studies[0]])
    sample = Path(__file__).parent / "data" / "format-1"
    with pytest.raises(ConfigError, match="another matrix"):
        keep_repeats(Store(studies[0]), first, [sample])


@pytest.mark.parametrize(
    ("word", "against"), [("supported", ["sft-micro.lora"]), ("inconclusive", [])]
)
def test_supported_here_and_refuted_there_is_a_contradiction(studies, word, against):
    first = view_of(studies[0])
    repeats = [
        Repeat(
            study=f"s{block}",
            seed_block=block,
            seeds=(block,),
            verdicts=(
                RepeatedVerdict(claim="sft-micro.lora", word=each, value=None, low=None, high=None),
            ),
        )
        for block, each in ((1, word), (2, "refuted"))
    ]
    assert contradictions(first, repeats) == against
    caption = repeats_table(first, repeats).caption
    assert ("contradicting: sft-micro.lora" in caption) == bool(against)


def test_the_command_prints_the_table_beside_the_answer(studies, capsys):
    options = ["--repeated-by", str(studies[1]), "--json"]
    assert command(["verdict", str(studies[0]), *options]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["claim"] == "sft-micro.lora"
    assert "no claim contradicts itself" in captured.err
