"""Which image a version of TRL means, and where its study goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import run
from harness.errors import ConfigError
from harness.stacks import Stack, find_stacks
from tests.conftest import MATRIX

HOME = Path("results/tiny")


def stacks(launcher="docker", image=None, versions=(), output_dir=None, has_gpu=False):
    return find_stacks(launcher, image, versions, output_dir, HOME, has_gpu)


def problems(**asked) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        stacks(**asked)
    return caught.value.problems


def test_processes_of_this_machine_train_with_this_installation():
    assert stacks("local", output_dir=Path("o")) == (Stack(None, None, Path("o")),)


def test_without_a_version_the_image_is_the_one_that_make_builds_for_the_device():
    assert stacks() == (Stack("lora-harness:cpu"),)
    assert stacks(has_gpu=True) == (Stack("lora-harness:cuda"),)
    assert stacks(image="mine:1", output_dir=Path("o")) == (Stack("mine:1", None, Path("o")),)


def test_each_version_has_an_image_and_a_study_of_its_own():
    found = stacks(versions=("1.14.2", "1.16.0"))
    assert [s.image for s in found] == [
        "lora-harness:cpu-trl-1.14.2",
        "lora-harness:cpu-trl-1.16.0",
    ]
    assert [s.trl for s in found] == ["1.14.2", "1.16.0"]
    assert [str(s.output_dir) for s in found] == [
        "results/tiny-trl-1.14.2",
        "results/tiny-trl-1.16.0",
    ]
    below = stacks(versions=("1.14.2", "1.16.0"), output_dir=Path("o"), image="mine:{trl}")
    assert [(s.image, str(s.output_dir)) for s in below] == [
        ("mine:1.14.2", "o/trl-1.14.2"),
        ("mine:1.16.0", "o/trl-1.16.0"),
    ]


def test_one_version_takes_the_folder_that_was_named():
    found = stacks(versions=("1.14.2",), output_dir=Path("o"), image="mine:1")
    assert found == (Stack("mine:1", "1.14.2", Path("o")),)


def test_what_can_not_be_meant_is_refused_all_at_once():
    assert len(problems(launcher="local", image="a", versions=("1.0.0",))) == 2
    several = problems(versions=("1.14.2", "1.14.2", "newest"), image="mine:1")
    assert len(several) == 3
    assert "'newest' is not a version" in several[0]
    assert "each version once" in several[1]
    assert "mine:1 is one image for 3 versions" in several[2]
    assert "add --trl" in problems(image="mine:{trl}")[0]


@pytest.mark.parametrize("version", ["1.14.2", "1.17.0rc1", "1.17.0.dev0", "1.16"])
def test_versions_of_every_kind_pass(version):
    assert stacks(versions=(version,))[0].trl == version


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(MATRIX)

    def type_in(*words: str):
        code = run(words)
        out, err = capsys.readouterr()
        return code, out, err

    return type_in


def test_a_dry_run_names_the_version_of_each_run(typed):
    words = ("bench", "-m", "tiny.yaml", "--launcher", "docker", "--trl", "1.14.2")
    words += ("--trl", "1.16.0", "--dry-run", "--filter", "*.s0", "--json")
    code, out, _ = typed(*words)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["trl"] for line in lines] == ["1.14.2"] * 4 + ["1.16.0"] * 4


def test_an_image_without_its_launcher_exits_2_and_makes_nothing(typed):
    code, _, err = typed("bench", "-m", "tiny.yaml", "--image", "mine:1")
    assert code == 2
    assert "add --launcher docker" in err
    assert not Path("results").exists()
