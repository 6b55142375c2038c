"""Every dataset of a study is looked at before a run trains, and everything wrong is said at once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from harness.settings import DatasetSpec, Evaluation, Model
from harness.spec import RunSpec
from harness.worker.preflight import check, main
from tests.repository_folder import fixture_rows, repository, write_parquet

TULU, DEEPMATH = "allenai/tulu-3-sft-mixture", "zwhe99/DeepMath-103K"


def spec(name, task, seed=0, source="embedded:micro-llama", template=None, **more: Any) -> RunSpec:
    return RunSpec(
        pair=f"{task}-{name.split('/')[0]}",
        arm="full",
        seed=seed,
        task=task,
        method="full",
        model=Model(source=source, chat_template=template),
        dataset=DatasetSpec(name=name, train_rows=2, test_rows=1, **more),
        reward=None,
        lora=None,
        trainer={},
        evaluation=Evaluation(),
    )


def findings(specs, places):
    return [(s.cell, f.kind, f.what) for s, f in check(specs, places)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_renamed_column_and_an_empty_split_of_two_datasets_are_reported_in_one_go(tmp_path):
    """As the supervisor asks: a process of its own, JSON in, JSON Lines out."""
    renamed = repository(tmp_path / "a", [{"question": "q", "final_anser": "1"}])
    empty = tmp_path / "b"
    schema = pa.schema([("messages", pa.string())])
    write_parquet(empty / "data" / "train-00000-of-00001.parquet", [], schema)
    specs = [spec(DEEPMATH, "grpo"), spec(DEEPMATH, "grpo", seed=1), spec(TULU, "sft")]
    request = {
        "places": {DEEPMATH: renamed, TULU: str(empty)},
        "specs": [s.model_dump(mode="json") for s in specs],
    }
    done = subprocess.run(
        [sys.executable, "-m", "harness.worker.preflight"],
        input=json.dumps(request), capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["kind"], line["cell"]) for line in lines] == [
        ("problem", "grpo-zwhe99.full.s0"),
        ("problem", "grpo-zwhe99.full.s1"),
        ("problem", "sft-allenai.full.s0"),
    ]
    assert "column 'final_answer' is missing (did you mean 'final_anser'?)" in lines[0]["what"]
    assert "split 'train' is empty" in lines[2]["what"]


def test_rows_that_are_there_give_notes_alone(tmp_path):
    rows = [*fixture_rows(DEEPMATH), {"question": "q", "final_answer": "}{"}]
    rows = [{k: row[k] for k in ("question", "final_answer")} for row in rows]
    places = {DEEPMATH: repository(tmp_path / "a", rows)}
    whole = spec(DEEPMATH, "grpo", max_prompt_tokens=4_000)
    whole = whole.model_copy(
        update={"dataset": whole.dataset.model_copy(update={"train_rows": None})}
    )
    found = findings([whole], places)
    assert [kind for _, kind, _ in found] == ["note", "note"]
    assert "1 rows were left out to find 32" in found[1][2]


def test_prompts_that_are_all_too_long_are_a_problem():
    found = findings([spec(TULU, "sft", rows_from="fixture", max_prompt_tokens=2)], {})
    assert [kind for _, kind, _ in found] == ["problem"]
    assert "more than the 2 allowed" in found[0][2]


def test_a_max_length_that_leaves_no_completion_is_a_problem_of_each_split():
    cut = spec(TULU, "sft", rows_from="fixture").model_copy(update={"trainer": {"max_length": 4}})
    found = findings([cut], {})
    assert [kind for _, kind, _ in found] == ["problem", "problem"]
    assert "the prompt of every train row fills max_length (4 tokens)" in found[0][2]
    assert findings([cut.model_copy(update={"trainer": {"max_length": 4_000}})], {}) == []


def test_a_toy_has_no_tokenizer_to_count_with_and_its_rows_are_read_all_the_same():
    toy = spec(DEEPMATH, "grpo", source="toy:Qwen/Qwen3-0.6B", rows_from="fixture")
    assert [kind for _, kind, _ in findings([toy], {})] == ["note"]


def test_what_is_not_on_this_machine_is_a_problem_of_the_model_and_of_the_dataset(tmp_path):
    there = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    found = findings([spec(DEEPMATH, "grpo", source="x/y")], {"x/y": there})
    assert [kind for _, kind, _ in found] == ["problem", "problem"]
    assert "'x/y': its tokenizer can't be loaded here; run `harness fetch`" in found[0][2]
    assert "is not on this machine: run `harness fetch`" in found[1][2]


def test_a_base_without_a_template_is_a_problem_and_with_one_of_ours_it_is_not(tmp_path):
    from harness.worker.models import load_model

    tokenizer = load_model(Model(source="embedded:micro-llama")).tokenizer
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    places = {"x/base": str(tmp_path / "base")}
    bare = spec(TULU, "sft", source="x/base", rows_from="fixture")
    given = spec(TULU, "sft", source="x/base", template="plain", rows_from="fixture")
    (found,) = findings([bare], places)
    assert found[1] == "problem"
    assert "set chat_template to 'plain' or 'reasoning'" in found[2]
    assert findings([given], places) == []


@pytest.mark.parametrize(
    "text", ["", "[]", '{"places": {}}', '{"places": {}, "specs": [{"a": 1}]}']
)
def test_a_request_that_is_none_is_a_usage_error(text, capsys):
    answer = io.StringIO()
    assert main(io.StringIO(text), answer) == 2
    assert answer.getvalue() == ""
    assert "on stdin" in capsys.readouterr().err
