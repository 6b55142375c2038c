"""Compose and BuildKit themselves read our files, and no secret gets through either. No container runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.prepare import Ready

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parent.parent
CANARY = "hf_canarycanarycanary"
# What lies about in a clone, or is put there by mistake.
SECRET = (
    ".env",
    ".netrc",
    ".git/config",
    "token",
    "harness/.env",
    "harness/worker/.netrc",
    "id_rsa",
)
OURS = (
    "harness/cli.py",
    "harness/worker/assets",
    "benchmarks/cpu.yaml",
    "benchmarks/baselines/README.md",
    "pyproject.toml",
    "wheels/a.whl",
)


def commands(*names: str) -> Iterator[list[str]]:
    """Every installed one: a client that is first on the path may lack a plugin that another has."""
    for name in names:
        for folder in os.environ["PATH"].split(os.pathsep):
            found = shutil.which(name, path=folder)
            if found:
                yield [found]


def compose_commands() -> list[list[str]]:
    plugins = [[*c, "compose"] for c in commands("docker")]
    found = [*commands("docker-compose"), *plugins]
    return [
        c for c in found if subprocess.run([*c, "version"], capture_output=True).returncode == 0
    ]


@pytest.mark.parametrize(
    ("profile", "service"), [((), "harness"), (("--profile", "cpu"), "harness-cpu")]
)
def test_compose_reads_the_file_without_a_word_and_shows_no_token(
    ready: Ready, tmp_path, profile, service
):
    tools = compose_commands()
    assert tools, "one of them started containers"
    token = tmp_path / "token"
    token.write_text(CANARY)
    environment = os.environ | {"HF_TOKEN_FILE": str(token), "HF_TOKEN": CANARY}
    for tool in tools:
        command = [*tool, *profile, "config"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert str(token) in done.stdout
        assert CANARY not in done.stdout
        assert f"  {service}:\n" in done.stdout


def test_the_build_context_holds_our_files_and_nothing_that_lies_about(ready: Ready, tmp_path):
    clone = tmp_path / "clone"
    for name in (*SECRET, *OURS):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(CANARY if name in SECRET else "ours")
    (clone / "results").mkdir()
    (clone / "results" / "study.json").write_text(CANARY)
    (clone / "harness" / "__pycache__").mkdir()
    (clone / "harness" / "__pycache__" / "cli.pyc").write_text(CANARY)
    shutil.copy(ROOT / ".dockerignore", clone)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    out = tmp_path / "out"
    words = ("build", "--quiet", "--output", str(out), "--file", "../Dockerfile", ".")
    command = [ready.engine.client, *words]
    done = subprocess.run(
        command, cwd=clone, env=ready.engine.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == set(OURS)
