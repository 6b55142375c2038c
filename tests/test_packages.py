"""What --trl and --with can name, and what makes two of them the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.packages import Package, read_trl, read_with, without_place

HERE = {"trl": "1.16.0", "peft": "0.21.2", "transformers": "5.17.0", "huggingface-hub": "1.33.0"}
METADATA = "Metadata-Version: 2.1\nName: trl\nVersion: 1.9.1\nRequires-Dist: accelerate>=1.4\n"
METADATA += 'Requires-Dist: vllm>=0.10; extra == "vllm"\n\nRequires-Dist: not-a-header\n'


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def trl(value: object) -> Package:
    found = read_trl(str(value), HERE)
    assert found is not None
    return found


def problem(read, text: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read(str(text), HERE)
    return str(caught.value)


@pytest.mark.parametrize("version", ["1.14.2", "1.17.0rc1", "1.17.0.dev0", "0.22.2"])
def test_a_release_is_its_version(version):
    assert trl(version).identity == ("trl", version, "")
    assert trl(version).label == version


def test_current_is_what_is_installed_here():
    assert read_trl("current", HERE) is None


def test_another_package_is_named_with_its_version_however_it_is_spelt():
    found = read_with("HuggingFace_Hub==0.36.2", HERE)
    assert (found.name, found.version, found.kind) == ("huggingface-hub", "0.36.2", "release")


CHECKOUT = {
    "pyproject.toml": '[project]\nname = "trl"\ndynamic = ["version"]\n'
    'dependencies = ["accelerate>=1.4"]\n',
    "VERSION": "1.17.0.dev0\n",
    "trl/__init__.py": "",
    "trl/trainer/sft.py": "scale = 1\n",
    "tests/__init__.py": "",
}


def test_a_checkout_says_its_version_and_what_it_requires(tmp_path):
    found = trl(write(tmp_path / "my trl", CHECKOUT))
    assert (found.name, found.version, found.kind) == ("trl", "1.17.0.dev0", "folder")
    assert found.requires == ("accelerate>=1.4",)
    assert found.place == str(tmp_path / "my trl" / "trl")
    assert found.label == f"1.17.0.dev0 (folder my trl, {found.sha256[:8]})"
    assert found.slug == f"trl-1.17.0.dev0-{found.sha256[:8]}"


def test_a_checkout_with_setup_py_and_src_is_found_without_its_name(tmp_path):
    setup = (
        'setup(\n    name="peft",\n    version="0.22.0.dev0",\n    packages=find_packages("src"))\n'
    )
    write(tmp_path, {"setup.py": setup, "src/peft/__init__.py": "", "tests/__init__.py": ""})
    found = read_with(str(tmp_path), HERE)
    assert (found.name, found.version) == ("peft", "0.22.0.dev0")
    assert found.place == str(tmp_path / "src" / "peft")


def test_a_copy_of_site_packages_takes_the_version_of_the_distribution_beside_the_package(tmp_path):
    files = {"trl/__init__.py": "", "trl-1.9.1.dist-info/METADATA": METADATA}
    found = trl(write(tmp_path, files))
    assert (found.version, found.requires, found.metadata) == (
        "1.9.1",
        ("accelerate>=1.4",),
        METADATA,
    )
    assert trl(tmp_path / "trl").identity == found.identity


def test_of_many_packages_the_one_that_was_named_is_taken(tmp_path):
    files = {"trl/__init__.py": "", "peft/__init__.py": '__version__ = "0.20.0"\n'}
    write(tmp_path, files)
    assert read_with(f"peft={tmp_path}", HERE).version == "0.20.0"
    assert trl(tmp_path).name == "trl"
    assert "say which package it is: --with NAME=PATH" in problem(read_with, tmp_path)


def test_a_package_alone_is_known_by_its_folder_and_says_its_own_version(tmp_path):
    write(tmp_path, {"peft/__init__.py": '"""PEFT."""\n__version__ = "0.21.2"\n'})
    found = read_with(str(tmp_path / "peft"), HERE)
    assert (found.name, found.version, found.is_assumed) == ("peft", "0.21.2", False)


def test_a_package_that_says_no_version_is_taken_for_the_one_that_is_here(tmp_path):
    write(tmp_path, {"edited/__init__.py": "version = None\n"})
    found = trl(tmp_path / "edited")
    assert (found.name, found.version, found.is_assumed) == ("trl", "1.16.0", True)
    with pytest.raises(ConfigError, match="no version of trl is written there"):
        read_trl(str(tmp_path / "edited"), {})


def test_an_edit_makes_another_package_and_what_python_derives_does_not(tmp_path):
    before = trl(write(tmp_path, CHECKOUT)).sha256
    write(tmp_path, {"trl/__pycache__/sft.cpython-311.pyc": "x", "trl/.git": "gitdir: x"})
    write(tmp_path, {"README.md": "not in the package"})
    assert trl(tmp_path).sha256 == before
    write(tmp_path, {"trl/trainer/sft.py": "scale = 2\n"})
    after = trl(tmp_path).sha256
    assert after != before
    (tmp_path / "trl/trainer/sft.py").rename(tmp_path / "trl/trainer/grpo.py")
    assert trl(tmp_path).sha256 not in (before, after)


def test_the_place_of_a_package_is_no_part_of_it(tmp_path):
    one, other = (write(tmp_path / name, CHECKOUT) for name in ("one", "other"))
    assert trl(one).identity == trl(other).identity


def test_a_wheel_says_its_name_and_version(tmp_path):
    wheel = tmp_path / "huggingface_hub-0.36.2-py3-none-any.whl"
    wheel.write_bytes(b"one")
    found = read_with(str(wheel), HERE)
    assert (found.name, found.version, found.kind) == ("huggingface-hub", "0.36.2", "wheel")
    assert found.label == f"0.36.2 (wheel huggingface-hub, {found.sha256[:8]})"
    wheel.write_bytes(b"other")
    assert read_with(str(wheel), HERE).identity != found.identity
    assert "holds huggingface-hub, expected trl" in problem(read_trl, wheel)
    bad = tmp_path / "trl.whl"
    bad.write_bytes(b"")
    assert "is not a wheel's" in problem(read_trl, bad)


def test_what_can_not_be_meant_says_what_would_do(tmp_path):
    assert "neither a version such as 1.14.2 nor a wheel" in problem(read_trl, "newest")
    assert "needs TRL 0.20 or newer" in problem(read_trl, "0.19.1")
    assert "clone it and give the folder" in problem(
        read_trl, "git+https://example.org/huggingface/trl"
    )
    assert "expected trl/__init__.py or src/trl/__init__.py" in problem(read_trl, tmp_path)
    assert "holds no package; say which" in problem(read_with, tmp_path)
    write(tmp_path / "odd", {"__init__.py": '__version__ = "../up"\n'})
    assert "says '../up', which is no version" in problem(read_trl, tmp_path / "odd")
    assert "expected NAME==VERSION, the path" in problem(read_with, "peft")
    assert "write --trl 1.14.2" in problem(read_with, "trl==1.14.2")
    for name in ("torch", "vllm", "lora-harness"):
        assert "belongs to the installation" in problem(read_with, f"{name}==2.0.0")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("1.14.2", "1.14.2"),
        ("/home/me/trl", "trl"),
        ("peft==0.20.0", "peft==0.20.0"),
        ("peft=../edited/peft", "peft=peft"),
    ],
)
def test_a_kept_command_names_no_place(given, kept):
    assert without_place(given) == kept
