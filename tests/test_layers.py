"""What a layer changes, what pip is told, what its failures mean; and that a layer hides the base."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from harness.errors import ConfigError, MachineError
from harness.layers import Base, Done, base_folders, last_lines, make_layer, plan_change, python
from harness.packages import Package
from harness.pins import BEFORE_TRANSFORMERS_5

VERSIONS = {
    "trl": "1.16.0", "transformers": "5.17.0", "tokenizers": "0.23.0", "datasets": "5.2.0",
    "fsspec": "2026.9.0", "huggingface-hub": "1.33.0", "trackio": "0.43.0", "torch": "2.13.0+cpu",
    "legacy": "unknown",
}  # fmt: skip
BASE = Base((), VERSIONS, {"httpx": "0.28.1", "torch": "2.13.0", "trl": "1.16.0"})


def release(name: str, version: str) -> Package:
    return Package(name=name, version=version)


class Pip:
    """Stands for the programs that a layer runs: notes what they are told, and answers."""

    def __init__(self, code: int = 0, said: str = "") -> None:
        self.done = Done(code, "", said)
        self.commands: list[list[str]] = []
        self.variables: Mapping[str, str] = {}

    def __call__(self, command: Sequence[str], variables: Mapping[str, str]) -> Done:
        self.commands.append(list(command))
        self.variables = variables
        return self.done


def test_what_nobody_asked_for_stays_as_it_is_here_and_the_lock_speaks_of_the_rest():
    change = plan_change([release("trl", "1.14.2")], BASE)
    assert change.requirements == ("trl==1.14.2",)
    assert "torch==2.13.0+cpu" in change.constraints
    assert "httpx==0.28.1" in change.constraints
    assert not [line for line in change.constraints if line.startswith(("trl", "legacy"))]
    assert change.hidden == ()


def test_an_older_transformers_takes_along_what_must_move_and_hides_what_can_not_stay():
    asked = [release("trl", "0.22.2"), release("transformers", "4.57.6")]
    change = plan_change(asked, BASE)
    moved = {f"{name}=={version}" for name, version in BEFORE_TRANSFORMERS_5.items()}
    assert set(change.requirements) == {"trl==0.22.2", "transformers==4.57.6", *moved}
    assert change.hidden == ("trackio",)
    asked.append(release("datasets", "4.4.0"))
    assert "datasets==4.4.0" in plan_change(asked, BASE).requirements
    assert "datasets==4.8.5" not in plan_change(asked, BASE).requirements


def test_a_newer_transformers_frees_what_the_older_one_held():
    old = {**VERSIONS, **BEFORE_TRANSFORMERS_5, "transformers": "4.57.6"}
    change = plan_change([release("transformers", "5.17.0")], Base((), old, {}))
    assert change.requirements == ("transformers==5.17.0",)
    assert not {line.partition("==")[0] for line in change.constraints} & {
        "huggingface-hub",
        "datasets",
        "tokenizers",
    }
    assert plan_change([release("trl", "0.22.2")], Base((), old, {})).hidden == ()


def test_pip_is_told_only_what_was_asked_for_and_looks_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("PIP_TARGET", "elsewhere")
    pip = Pip()
    make_layer(tmp_path / "layer", [release("trl", "1.14.2")], BASE, pip)
    [command] = pip.commands
    assert command[:4] == [str(tmp_path / "layer/bin/python"), "-m", "pip", "install"]
    assert command[-1] == "trl==1.14.2"
    constraints = Path(command[command.index("--constraint") + 1]).read_text()
    assert "torch==2.13.0+cpu\n" in constraints
    assert not {"PYTHONPATH", "PIP_TARGET"} & pip.variables.keys()


def test_a_wheel_is_installed_even_where_its_release_is_here(tmp_path):
    wheel = Package(name="trl", version="1.16.0", kind="wheel", place="/w/trl-1.16.0-x.whl")
    pip = Pip()
    make_layer(tmp_path / "layer", [wheel], BASE, pip)
    forced, resolved = pip.commands
    assert {"--no-deps", "--force-reinstall"} <= set(forced)
    assert "--no-deps" not in resolved
    assert forced[-1] == resolved[-1] == "/w/trl-1.16.0-x.whl"


NO_RELEASE = (
    "ERROR: Could not find a version that satisfies the requirement trl=={} (from versions: {})\n"
    "ERROR: No matching distribution found for trl=={}\n"
)
CONFLICT = (
    "ERROR: Cannot install trl==1.17.0 because these package versions have conflicting dependencies.\n"
    "The conflict is caused by:\n    trl 1.17.0 depends on transformers>=6\n"
    "    The user requested (constraint) transformers==5.17.0\n"
    "ERROR: ResolutionImpossible: see https://pip.example/help\n"
)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            NO_RELEASE.format("1.14.9", "1.14.1, 1.14.2, 1.16.0", "1.14.9"),
            ConfigError,
            "the package index has no trl 1.14.9 (did you mean '1.14.2'?)",
        ),
        (
            NO_RELEASE.format("9.9", "1.14.2, 1.16.0", "9.9"),
            ConfigError,
            "has no trl 9.9 (the newest is 1.16.0)",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(…)'\n"
            + NO_RELEASE.format("1.14.2", "none", "1.14.2"),
            MachineError,
            "the package index can't be reached",
        ),
        (CONFLICT, ConfigError, "trl 1.17.0 depends on transformers>=6"),
        ("/x/python: No module named pip\n", MachineError, "pip is not installed"),
        ("ERROR: Disk quota exceeded\n", MachineError, "pip could not install trl==1.14.2"),
    ],
)
def test_a_failure_of_pip_says_what_it_means(tmp_path, said, kind, words):
    with pytest.raises(kind) as caught:
        make_layer(tmp_path / "layer", [release("trl", "1.14.2")], BASE, Pip(1, said))
    assert words in str(caught.value)
    assert "https://" not in str(caught.value)


def test_the_last_lines_of_pip_name_no_index():
    text = "\n\n".join(f"line {n} at https://user:secret@index/simple" for n in range(9))
    assert last_lines(text) == [f"line {n} at (address)" for n in range(3, 9)]


def ask(layer: Path, code: str) -> str:
    done = subprocess.run(
        [str(python(layer)), "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def folder_package(folder: Path, name: str, version: str, text: str) -> Package:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    place = {"kind": "folder", "place": str(folder), "given": folder.name}
    return Package(name=name, version=version, sha256="0" * 64, **place)


def test_a_layer_hides_the_release_of_the_base_and_leaves_it_the_rest(tmp_path):
    base = tmp_path / "base"
    for name, version in (("edited-one", "1.0"), ("other", "7.0"), ("trackio", "0.43.0")):
        module = name.replace("-", "_")
        (base / module).mkdir(parents=True)
        (base / module / "__init__.py").write_text("where = 'base'\n")
        info = base / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (base / "more.pth").write_text(f"{tmp_path / 'linked'}\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/editable.py").write_text("where = 'linked'\n")
    versions = {"edited-one": "1.0", "other": "7.0", "trackio": "0.43.0", "transformers": "5.17.0"}
    edited = folder_package(tmp_path / "mine", "edited-one", "1.1", "where = 'layer'\n")
    old = folder_package(tmp_path / "old", "transformers", "4.57.6", "")
    with pytest.raises(MachineError):  # what moves along with transformers is pip's to bring
        make_layer(tmp_path / "failed", [edited, old], Base((str(base),), versions, {}), Pip(1))
    layer = tmp_path / "layer"
    make_layer(layer, [edited, old], Base((str(base),), versions, {}), Pip())
    assert ask(layer, "import edited_one, other; print(edited_one.where, other.where)") == (
        "layer base"
    )
    assert ask(layer, "import editable; print(editable.where)") == "linked"
    version = "from importlib.metadata import version as v; print(v('edited-one'), v('other'))"
    assert ask(layer, version) == "1.1 7.0"
    found = "from importlib.util import find_spec; print(find_spec('trackio'))"
    assert ask(layer, found) == "None"


def test_a_layer_of_this_installation_finds_the_harness_and_its_dependencies(tmp_path):
    base = Base(base_folders(), {}, {})
    package = folder_package(tmp_path / "mine", "something", "1.0", "")
    make_layer(tmp_path / "layer", [package], base, Pip())
    assert ask(tmp_path / "layer", "import harness, pydantic, something; print('found')") == "found"


def test_an_edited_file_never_meets_the_byte_code_of_the_one_it_was_copied_from(tmp_path):
    base, copied = tmp_path / "base" / "edited_one", tmp_path / "copy" / "edited_one"
    for folder in (base, copied):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("where = 'base'\n")
        (folder / "same.py").write_text("value = 1\n")
        (folder / "edited.py").write_text("value = 1\n")
    for name in ("__init__", "same", "edited"):
        py_compile.compile(str(base / f"{name}.py"))
    shutil.copytree(base / "__pycache__", copied / "__pycache__")
    (copied / "edited.py").write_text("value = 2\n")
    times = (base / "edited.py").stat()  # of the same length, and as old
    os.utime(copied / "edited.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    package = Package(
        name="edited-one", version="1.0", kind="folder", place=str(copied), given="copy", sha256="0"
    )
    layer = tmp_path / "layer"
    make_layer(layer, [package], Base((str(base.parent),), {"edited-one": "1.0"}, {}), Pip())
    code = "from edited_one import edited, same; print(edited.value, same.value, same.__cached__)"
    edited, same, cached = ask(layer, code).split()
    assert (edited, same) == ("2", "1")
    assert Path(cached).read_bytes() == Path(cache_from_source(str(base / "same.py"))).read_bytes()
