"""Fit or unfit: what a matrix needs is looked for, and what it does not need is not asked for."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError

import pytest

from harness import caches
from harness.doctor import (
    GIB,
    check_disk,
    check_gpu,
    check_memory,
    check_models,
    check_packages,
    examine,
)
from harness.matrix import load_matrix
from harness.measure.gpus import Gpu, GpuList
from tests.study_factory import Plan, build_matrix


@pytest.fixture(scope="module")
def smollm2():
    return load_matrix("smollm2").matrix


@pytest.fixture(scope="module")
def embedded():
    return load_matrix("cpu").matrix


def only(*absent):
    def find(name):
        if name in absent:
            raise PackageNotFoundError(name)
        return "1.0"

    return find


def test_packages_that_the_matrix_uses_are_missed(smollm2, embedded):
    lacking = only("gguf", "reasoning-gym")
    assert check_packages(embedded, False, lacking).word == "ok"
    check = check_packages(smollm2, False, lacking)
    assert (check.word, check.exit_code) == ("problem", 7)
    assert "missing reasoning-gym, gguf" in check.text
    assert check_packages(smollm2, True, only("gguf")).word == "ok"  # the cache is built already
    assert check_packages(smollm2, True, only("reasoning-gym")).word == "problem"
    assert check_packages(embedded, False, only("trl")).word == "problem"


@pytest.mark.parametrize(
    ("cached", "environ", "word"),
    [
        (True, {}, "ok"),
        (True, {"HF_HUB_OFFLINE": "1"}, "ok"),
        (False, {}, "note"),
        (False, {"HF_HUB_OFFLINE": "1"}, "problem"),
    ],
)
def test_smollm2_is_looked_for(smollm2, cached, environ, word):
    (check,) = check_models(smollm2, cached, environ)
    assert check.word == word
    assert ("make smollm2" in check.text) == (not cached)


def test_an_embedded_model_needs_nothing(embedded):
    assert [c.word for c in check_models(embedded, False, {})] == ["ok"]
    assert [c.word for c in check_models(build_matrix(Plan(source="org/m")), False, {})] == ["note"]


def test_little_memory_is_a_problem_for_real_models_alone(smollm2, embedded):
    assert check_memory(smollm2, 3 * GIB, 8 * GIB).word == "problem"
    assert check_memory(smollm2, 5 * GIB, 8 * GIB).word == "ok"
    assert check_memory(embedded, 3 * GIB, 8 * GIB).word == "ok"


def test_the_disk_is_the_one_the_study_will_be_on(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return type("Usage", (), {"free": 5 * GIB})

    monkeypatch.setattr("shutil.disk_usage", usage)
    assert check_disk(tmp_path / "results" / "deep").word == "ok"
    (tmp_path / "results").mkdir()
    check_disk(tmp_path / "results" / "deep")
    assert asked == [tmp_path, tmp_path / "results"]


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": GIB}))
    assert check_disk(tmp_path).word == "problem"


def test_a_gpu_is_asked_for_only_by_a_matrix_that_needs_one(smollm2):
    none, gpu = GpuList((), "no driver"), Gpu(0, "GPU-1", "Fake", GIB, "580", "13", False, (), ())
    needs = smollm2.model_copy(update={"device": "gpu"})
    assert check_gpu(smollm2, none, {}).word == "note"
    assert check_gpu(needs, none, {}).word == "problem"
    assert check_gpu(needs, GpuList((gpu,)), {}).word == "ok"
    assert check_gpu(needs, GpuList((gpu,)), {"CUDA_VISIBLE_DEVICES": ""}).word == "problem"


def test_every_check_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = [check.name for check in examine("smollm2")]
    assert names == ["packages", "cpu", "memory", "disk", "gpu", "model"]
    assert "not in the cache" in examine("smollm2")[-1].text


def test_the_cache_counts_only_if_it_is_whole(tmp_path):
    assert not caches.smollm2_is_cached(tmp_path)
    folder = caches.smollm2_dir(tmp_path)
    folder.mkdir()
    for name in caches.FILES:
        (folder / name).write_bytes(b"12345")
    note = {"gguf_sha256": caches.SMOLLM2_SHA256, "bytes": dict.fromkeys(caches.FILES, 5)}
    (folder / caches.SOURCE_NOTE).write_text(json.dumps(note))
    assert caches.smollm2_is_cached(tmp_path)
    (folder / caches.WEIGHTS).write_bytes(b"123")
    assert not caches.smollm2_is_cached(tmp_path)
