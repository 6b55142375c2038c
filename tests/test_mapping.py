from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.mapping import INDEX, custom_code, fingerprint, is_read, missing_files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"w" * 300_000)
    return tmp_path


def test_a_model_needs_its_configuration_and_every_shard(model):
    assert missing_files("model", model) is None
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (model / INDEX).write_text(json.dumps({"weight_map": shards}))
    (model / "model-1.safetensors").write_bytes(b"1")
    assert "1 of the files" in missing_files("model", model)
    (model / "config.json").unlink()
    assert "no config.json" in missing_files("model", model)


def test_weights_that_could_run_code_are_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"1")
    assert "no .safetensors" in missing_files("model", tmp_path)


def test_a_dataset_needs_rows_that_are_not_hidden(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.json").write_text("{}")
    assert "no rows" in missing_files("dataset", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").write_bytes(b"1")
    assert missing_files("dataset", tmp_path) is None


@pytest.mark.parametrize("at", [0, 150_000, 299_999])
def test_a_fingerprint_sees_other_files_and_not_other_times(model, at):
    before = fingerprint(model, "model")
    os.utime(model / "model.safetensors", (1, 1))
    (model / "notes.py").write_text("not read")
    assert fingerprint(model, "model") == before
    weights = bytearray(b"w" * 300_000)
    weights[at] = 0
    (model / "model.safetensors").write_bytes(weights)
    is_at_an_end = at != 150_000  # the middle of a large file is not read
    assert (fingerprint(model, "model") != before) is is_at_an_end


def test_what_is_fetched_of_a_repository():
    for name in ("model-00001-of-00002.safetensors", "tokenizer.model", "chat_template.jinja"):
        assert is_read("model", name)
    for name in ("original/x.safetensors", "consolidated.safetensors", "modeling.py", "x.bin"):
        assert not is_read("model", name)
    assert is_read("dataset", "data/train-0.parquet")
    assert not is_read("dataset", "loader.py")


def test_code_of_its_own_is_noticed(model):
    assert not custom_code(model)
    (model / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    assert custom_code(model)
