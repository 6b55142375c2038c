"""What is to fetch, what is here already, and what access is missing; never over a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.downloads import hub_cache, list_repositories
from harness.matrix import expand, load_matrix, parse_matrix
from tests.plan_matrix import MATRIX

SPECS = expand(parse_matrix(MATRIX, "eight"))
LLAMA, QWEN, GSM8K = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B-Base", "openai/gsm8k"


def nothing_cached(kind, name):
    return None


def listed(specs=SPECS, maps=None, cached=nothing_cached, has_token=False):
    found = list_repositories(specs, maps or {}, cached, has_token=has_token)
    return {repository.name: repository for repository in found}


def test_each_repository_is_listed_once_with_every_run_that_needs_it():
    found = list_repositories(SPECS, {}, nothing_cached, has_token=False)
    assert [r.kind for r in found] == ["model", "model", "dataset", "dataset"]
    assert len({r.name for r in found}) == 4
    assert listed()[LLAMA].cells == tuple(s.cell for s in SPECS if s.pair == "grpo-8b")


def test_a_checkpoint_is_two_bytes_a_parameter_and_a_dataset_unknown():
    found = listed()
    assert found[LLAMA].download_bytes == 2 * 8_030_261_248
    assert found[GSM8K].download_bytes is None
    assert found[GSM8K].rows == 7473


def test_a_gated_repository_without_a_token_says_what_to_do():
    found = listed()
    assert "accept its licence at https://huggingface.co/meta-llama/" in found[LLAMA].needs_access
    assert found[QWEN].needs_access is None
    assert listed(has_token=True)[LLAMA].needs_access is None


def test_a_mapped_folder_needs_neither_network_nor_access(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    found = listed(maps={LLAMA: str(tmp_path), GSM8K: str(tmp_path)})
    for name in (LLAMA, GSM8K):
        assert (found[name].place, found[name].bytes, found[name].download_bytes) == (
            "folder",
            1000,
            0,
        )
        assert found[name].needs_access is None


def test_a_model_may_be_a_folder(tmp_path: Path):
    spec = SPECS[0].model_copy(
        update={"model": SPECS[0].model.model_copy(update={"source": str(tmp_path)})}
    )
    assert listed([spec])[str(tmp_path)].place == "folder"


@pytest.mark.parametrize(("share", "place"), [(1.0, "cache"), (0.5, "hub")])
def test_a_download_that_broke_off_is_still_to_fetch(share, place):
    whole = 2 * 8_030_261_248
    held = int(share * whole)
    found = listed(cached=lambda kind, name: held if name == LLAMA else None)[LLAMA]
    assert found.place == place
    assert found.download_bytes == (0 if place == "cache" else whole - held)


def test_the_hub_s_cache_is_read_as_it_lies(tmp_path: Path):
    repository = tmp_path / "datasets--openai--gsm8k"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "train.parquet").write_bytes(b"x" * 500)
    assert hub_cache(tmp_path)("dataset", GSM8K) == 500
    assert hub_cache(tmp_path)("model", GSM8K) is None
    assert hub_cache(tmp_path / "none")("dataset", GSM8K) is None
    assert hub_cache(snapshot / "train.parquet")("dataset", GSM8K) is None  # a file in its place


def test_what_ships_is_not_fetched():
    found = listed(expand(load_matrix("cpu").matrix))
    assert {r.place for r in found.values()} == {"shipped"}
    assert {r.download_bytes for r in found.values()} == {0}
    generated = listed(expand(load_matrix("smollm2").matrix))
    assert generated["gsm_symbolic"].place == "generated"
    assert generated["smollm2"].place in ("cache", "hub")
