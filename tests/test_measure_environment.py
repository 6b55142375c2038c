"""The environment of a run: what matters is there, what is private is not."""

from __future__ import annotations

import getpass
import json
import platform
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import harness
from harness.measure.environment import (
    capture_environment,
    chosen_variables,
    installed_distributions,
    source_state,
)
from harness.measure.gpus import Gpu, GpuProcess

GPU = Gpu(0, "GPU-1", "NVIDIA Fake", 2**30, "580.65", "13.0", False, (), ())


def test_the_versions_that_matter_are_there_and_an_absent_package_is_null():
    environment = capture_environment([GPU], {})
    assert environment["format"] == 1
    assert environment["harness"]["version"] == harness.__version__
    assert environment["packages"]["torch"]
    assert environment["packages"]["deepspeed"] is None
    assert environment["gpus"][0]["uuid"] == "GPU-1"
    assert environment["platform"]["memory_bytes"] > 2**28


def test_what_runs_on_a_gpu_is_no_part_of_the_environment():
    """Or no two runs would share one, and the host's process ids would be published."""
    busy = [
        replace(
            GPU,
            processes=(GpuProcess(pid=4242 + n, used_bytes=n),),
            used_bytes=n,
            free_bytes=99 - n,
            ecc_uncorrected=n,
        )
        for n in range(2)
    ]
    first, second = (capture_environment([gpu], {}) for gpu in busy)
    assert first == second
    assert "processes" not in first["gpus"][0]
    assert first["gpus"][0]["name"] == "NVIDIA Fake"


def test_it_is_json_and_names_no_host_user_or_place():
    text = json.dumps(capture_environment([GPU]))
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert platform.node() not in text or len(platform.node()) < 4
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert f"/{getpass.getuser()}" not in text


def test_variables_come_from_the_list_alone_and_paths_stay_out():
    environ = {
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": "hf_secret",
        "PYTORCH_CUDA_ALLOC_CONF": "/home/someone/x",
    }
    assert chosen_variables(environ) == {
        "OMP_NUM_THREADS": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "(set, left out: holds a path)",
    }


def test_the_hash_of_the_installation_is_stable():
    first, second = installed_distributions(), installed_distributions()
    assert first == second
    assert any(name.startswith("torch==") for name in first["list"])


@pytest.mark.parametrize(
    ("revision", "commit", "is_dirty"),
    [("0a1b2c", "0a1b2c", False), ("0a1b2c-dirty", "0a1b2c", True), ("", None, None)],
)
def test_an_image_tells_the_commit_it_was_built_from(monkeypatch, revision, commit, is_dirty):
    monkeypatch.setenv("HARNESS_REVISION", revision)
    assert source_state(None) == {"commit": commit, "is_dirty": is_dirty}


def test_the_commit_and_its_changes_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_REVISION", raising=False)

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    git("init", "-q")
    assert source_state(tmp_path) == {"commit": None, "is_dirty": None}
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    state = source_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["is_dirty"] is False
    (tmp_path / "a").write_text("2")
    assert source_state(tmp_path)["is_dirty"] is True
    assert source_state(None) == {"commit": None, "is_dirty": None}
