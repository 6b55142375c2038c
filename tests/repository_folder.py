"""Folders of repositories as `snapshot_download` leaves them, with rows that a test chooses."""

from __future__ import annotations

import gzip
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.settings import DATASETS
from harness.worker.data import FIXTURES

TASKS = {
    "allenai/tulu-3-sft-mixture": "sft",
    "open-thoughts/OpenThoughts-114k": "sft",
    "openai/gsm8k": "grpo",
    "zwhe99/DeepMath-103K": "grpo",
    "HuggingFaceH4/OpenR1-Math-220k-default-verified": "grpo",
}
NAMES = tuple(TASKS)
GSM8K_README = """\
---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files:
  - split: train
    path: socratic/train-*
---
"""


def module_of(name: str) -> Any:
    return import_module(f"harness.worker.data.{DATASETS[name]}")


def fixture_rows(name: str, split: str = "train") -> list[dict[str, Any]]:
    (file,) = (FIXTURES / DATASETS[name]).glob(f"*/{split}-*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_parquet(file: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def repository(
    folder: Path, rows: list[dict[str, Any]], test_rows: list[dict[str, Any]] | None = None
) -> str:
    """Write a parquet repository; with test rows it is laid out as gsm8k's is."""
    if test_rows is None:
        write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)
    else:
        (folder / "README.md").parent.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(GSM8K_README)
        write_parquet(folder / "main" / "train-00000-of-00001.parquet", rows)
        write_parquet(folder / "main" / "test-00000-of-00001.parquet", test_rows)
        write_parquet(folder / "socratic" / "train-00000-of-00001.parquet", [{"other": "x"}])
    return str(folder)
