"""Which image a version of TRL means, and where its study goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import run
from harness.errors import ConfigError
from harness.stacks import Asked, Stack, find_stacks
from tests.conftest import MATRIX

HOME = Path("results/tiny")
HERE = {"trl": "1.16.0", "transformers": "5.17.0", "peft": "0.21.2"}


def stacks(launcher="docker", image=None, versions=(), output_dir=None, has_gpu=False, extras=()):
    asked = Asked(launcher, image, tuple(versions), tuple(extras))
    return find_stacks(asked, output_dir, HOME, has_gpu=has_gpu, here=HERE)


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


def test_each_release_has_an_environment_and_a_study_of_its_own():
    found = stacks("local", versions=("1.14.2", "1.16.0"))
    assert [(s.image, s.trl, s.label, str(s.output_dir)) for s in found] == [
        (None, "1.14.2", "TRL 1.14.2", "results/tiny-trl-1.14.2"),
        (None, "1.16.0", "TRL 1.16.0", "results/tiny-trl-1.16.0"),
    ]
    below = stacks("local", versions=("1.14.2", "1.16.0"), output_dir=Path("o"))
    assert [str(s.output_dir) for s in below] == ["o/trl-1.14.2", "o/trl-1.16.0"]
    [alone] = stacks("local", versions=("1.14.2",), output_dir=Path("o"))
    assert alone.output_dir == Path("o")


def test_other_packages_are_in_every_environment_and_in_its_name():
    extras = ("transformers==4.57.6",)
    first, second = stacks("local", versions=("0.22.1", "0.22.2"), extras=extras)
    assert [p.name for p in first.packages] == ["trl", "transformers"]
    assert second.label == second.name == "TRL 0.22.2, transformers 4.57.6"
    assert str(second.output_dir) == "results/tiny-trl-0.22.2-transformers-4.57.6"
    [alone] = stacks("local", extras=("peft==0.20.0",))
    assert (alone.label, str(alone.output_dir)) == (
        "TRL 1.16.0, peft 0.20.0",
        "results/tiny-peft-0.20.0",
    )


def test_current_is_this_installation():
    assert stacks("local", versions=("current",)) == (Stack(),)
    _, second = stacks("local", versions=("1.14.2", "current"))
    assert (second.packages, second.label) == ((), None)
    assert (second.name, str(second.output_dir)) == (
        "this installation",
        "results/tiny-trl-current",
    )
    assert stacks("local", versions=("current",), extras=("peft==0.20.0",))[0].trl is None


def test_an_edited_folder_is_told_apart_by_its_content(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    _, edited = stacks("local", versions=("1.16.0", str(tmp_path / "mine")))
    digits = edited.packages[0].sha256[:8]
    assert edited.label == f"TRL 1.16.0 (folder mine, {digits})"
    assert str(edited.output_dir) == f"results/tiny-trl-1.16.0-{digits}"
    assert "mine does not say its version of trl; taken for 1.16.0" in edited.notes[0]


def test_what_can_not_be_meant_is_refused_all_at_once():
    several = problems(
        launcher="local",
        image="a",
        versions=("newest", "1.0.0", "1.0.0"),
        extras=("peft", "peft==0.20.0", "peft==0.19.0"),
    )
    assert len(several) == 5
    assert "add --launcher docker" in several[0]
    assert "--trl newest: is neither a version" in several[1]
    assert "--with peft: is neither" in several[2]
    assert "--with names peft twice" in several[3]
    assert "--trl names trl-1.0.0 twice" in several[4]
    assert len(stacks("local", versions=("1.0.0",))) == 1


def test_what_an_image_can_not_be_is_refused_all_at_once():
    several = problems(
        versions=("1.14.2", "1.14.2", "newest"), image="mine:1", extras=("peft==0.20.0",)
    )
    assert len(several) == 4
    assert "'newest' is not a version" in several[0]
    assert "an image holds its releases" in several[1]
    assert "each version once" in several[2]
    assert "mine:1 is one image for 3 versions" in several[3]
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


def test_a_dry_run_names_the_environment_of_each_run_and_makes_none(typed, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    words = ("bench", "-m", "tiny.yaml", "--trl", "0.22.2", "--with", "transformers==4.57.6")
    code, out, _ = typed(*words, "--dry-run", "--filter", "*.s0", "--json")
    assert code == 0
    assert {json.loads(line)["stack"] for line in out.splitlines()} == {
        "TRL 0.22.2, transformers 4.57.6"
    }
    assert not (tmp_path / "cache").exists()


def test_images_take_no_other_packages(typed):
    words = ("--launcher", "docker", "--with", "peft==0.20.0")
    code, _, err = typed("bench", "-m", "tiny.yaml", *words)
    assert code == 2
    assert "an image holds its releases" in err
