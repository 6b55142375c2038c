"""`harness bench --trl`: runs train in the environment that was asked for, and say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.installed import Installed
from harness.matrix import expand, parse_matrix
from harness.ready import make_ready, unsupported
from harness.record import Record, Status
from harness.stacks import Stack
from harness.store import Store
from tests.conftest import MATRIX

OLD = '__version__ = "0.26.0"\n'
SPECS = expand(parse_matrix(MATRIX, "tiny.yaml"), {})


def bench(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # A reward that old releases need not have.
    text = MATRIX.replace("reward: reasoning_accuracy", "reward: strip_reasoning_accuracy")
    (folder / "tiny.yaml").write_text(text)
    command = [sys.executable, "-m", "harness.cli", "bench", "--matrix", "tiny.yaml", "--jobs", "1"]
    return subprocess.run(
        [*command, *words], cwd=folder, env=os.environ | variables,
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def records(study: Path) -> list[Record]:
    store = Store(study)
    found = [store.read_record(planned.run_id) for planned in store.read_study().planned]
    assert all(found)
    return found


def environments(study: Path) -> list[dict[str, object]]:
    files = sorted(study.glob("runs/*/attempt-1/environment.json"))
    return [json.loads(file.read_text()) for file in files]


def test_releases_that_can_train_nothing_here_are_named_once_for_each_task():
    found = Installed({"trl": "0.26.0", "transformers": "5.17.0"}, frozenset())
    sft, grpo = unsupported(SPECS, found)
    assert sft.startswith("unsupported here: 4 sft runs: TRL 0.26.0's SFTTrainer trains on prompts")
    assert "4 grpo runs: TRL 0.26.0's GRPOTrainer can't be imported" in grpo
    without_triton = Installed({"trl": "1.15.0", "transformers": "5.17.0"}, frozenset())
    assert len(unsupported(SPECS, without_triton)) == 2
    assert not unsupported(SPECS, Installed(without_triton.versions, frozenset({"triton"})))


def test_this_installation_and_images_need_no_environment():
    told: list[str] = []
    here = make_ready(Stack(), SPECS, told.append, is_cold=True)
    image = make_ready(Stack(image="mine:1"), SPECS, told.append, is_cold=True)
    assert (here.launcher.name, image.launcher.name) == ("local", "docker")
    assert not told
    assert not here.notes


@pytest.mark.slow
def test_runs_work_in_the_environment_and_what_can_not_train_there_says_why(tmp_path):
    """A package of another release, without a trainer in it, needs neither pip nor torch."""
    (tmp_path / "mine" / "trl").mkdir(parents=True)
    (tmp_path / "mine" / "trl" / "__init__.py").write_text(OLD)
    words = ("--trl", "mine", "--cold", "--filter", "*.full.s0", "--no-report")
    done = bench(tmp_path, *words, HARNESS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 3, done.stderr
    assert "making an environment of TRL 0.26.0 (folder mine, " in done.stderr
    assert "unsupported here: 1 sft runs: TRL 0.26.0's SFTTrainer" in done.stderr
    [study] = (tmp_path / "results").iterdir()
    assert study.name.startswith("tiny-trl-0.26.0-")
    assert Store(study).read_study().stack.startswith("TRL 0.26.0 (folder mine, ")
    assert Store(study).read_study().command.endswith("--trl mine")
    found = records(study)
    assert [r.status for r in found] == [Status.UNAVAILABLE] * 2
    assert all("TRL 0.26.0" in r.reason for r in found)
    assert [e["packages"]["trl"] for e in environments(study)] == ["0.26.0"] * 2
    other = bench(tmp_path, "--output-dir", str(study), "--filter", "*.full.s0", "--cold")
    assert other.returncode == 2
    assert "is trained with TRL 0.26.0 (folder mine, " in other.stderr
    assert "asks for what is installed beside the harness" in other.stderr


@pytest.mark.slow
def test_an_environment_that_can_not_start_leaves_the_others_theirs(tmp_path):
    """Two broken ones: the first ends its own study alone."""
    for name, text in (("one", "1 +\n"), ("two", "2 +\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    words = ("--trl", "one", "--trl", "two", "--filter", "sft-micro.full.s0", "--no-report")
    done = bench(tmp_path, *words, HARNESS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 7
    for name in ("one", "two"):
        assert f"(folder {name}, " in done.stderr
    assert done.stderr.count("the fork server ended while importing") == 2
    assert done.stderr.count("SyntaxError") == 2
    assert len(list((tmp_path / "results").glob("tiny-trl-*/study.json"))) == 2


RELEASE = "1.14.2"
OLD_LINE = ("0.22.2", "transformers==4.57.6")


def skip_without_index(done: subprocess.CompletedProcess[str]) -> None:
    if "the package index can't be reached" in done.stderr:
        pytest.skip("no package index: " + done.stderr.strip().splitlines()[-1])


@pytest.mark.slow
def test_a_release_trains_in_an_environment_beside_this_installation(tmp_path):
    words = ("--trl", RELEASE, "--trl", "current", "--set", "max_steps=2", "--no-report")
    words += ("--filter", "sft-micro.lora.s0", "--filter", "grpo-micro.full.s0")
    done = bench(tmp_path, *words, HARNESS_CACHE=str(tmp_path / "cache"))
    skip_without_index(done)
    assert done.returncode == 0, done.stderr
    other, here = (tmp_path / "results" / f"tiny-trl-{name}" for name in (RELEASE, "current"))
    assert [r.status for r in (*records(other), *records(here))] == [Status.OK] * 4
    assert Store(other).read_study().stack == f"TRL {RELEASE}"
    assert Store(here).read_study().stack is None
    assert {e["packages"]["trl"] for e in environments(other)} == {RELEASE}
    [base] = {e["packages"]["trl"] for e in environments(here)}
    assert base != RELEASE
    differing = {
        line.partition("==")[0]
        for ours, theirs in zip(environments(here), environments(other), strict=True)
        for line in set(ours["installed"]["list"]) ^ set(theirs["installed"]["list"])
    }
    assert differing == {"trl"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [(), ("--cold",)], ids=["warm", "cold"])
def test_the_old_line_trains_with_what_must_move_along(tmp_path, mode):
    trl, extra = OLD_LINE
    words = ("--trl", trl, "--with", extra, "--set", "max_steps=2", "--no-report", *mode)
    words += ("--filter", "*.full.s0")
    done = bench(tmp_path, *words, HARNESS_CACHE=str(tmp_path / "cache"))
    skip_without_index(done)
    assert done.returncode == 0, done.stderr
    study = tmp_path / "results" / "tiny-trl-0.22.2-transformers-4.57.6"
    assert [r.status for r in records(study)] == [Status.OK] * 2
    assert [r.result.started_warm for r in records(study)] == [not mode] * 2
    for environment in environments(study):
        packages = environment["packages"]
        assert (packages["trl"], packages["transformers"]) == ("0.22.2", "4.57.6")
        assert packages["datasets"] == "4.8.5"
        assert packages["trackio"] is None


@pytest.mark.slow
def test_a_release_that_is_nowhere_ends_the_command_before_anything_trains(tmp_path):
    words = ("--trl", "1.14.99", "--filter", "sft-micro.full.s0")
    done = bench(tmp_path, *words, HARNESS_CACHE=str(tmp_path / "cache"))
    skip_without_index(done)
    assert done.returncode == 2
    assert "the package index has no trl 1.14.99 (did you mean" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_without_an_index_it_is_said_and_nothing_is_left(tmp_path):
    variables = {"HARNESS_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
    done = bench(tmp_path, "--trl", "1.14.99", "--filter", "sft-micro.full.s0", **variables)
    assert done.returncode == 7
    assert "the package index can't be reached, or has no such package" in done.stderr
    assert not (tmp_path / "results").exists()
