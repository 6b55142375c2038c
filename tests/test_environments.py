"""Environments are made once, found by their content, and never half-made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from harness.cli import run
from harness.environments import (
    NOTE,
    list_environments,
    look_into,
    make_environment,
    name_of,
    remove_environment,
)
from harness.errors import ConfigError, MachineError
from harness.layers import Base, Done, base_folders
from harness.packages import Package, read_with

HERE = {"trl": "1.16.0", "transformers": "5.17.0"}
BASE = Base(base_folders(), HERE, {"httpx": "0.28.1"})
OTHER = Package(name="trl", version="1.14.2")


class Pip:
    """Installs what it is told to by writing its metadata; counts how often; may fail or be killed."""

    def __init__(self, failure: BaseException | None = None, code: int = 0) -> None:
        self.calls, self.failure, self.code = 0, failure, code

    def __call__(self, command: Sequence[str], variables: Mapping[str, str]) -> Done:
        self.calls += 1
        if self.failure:
            raise self.failure
        packages = next((Path(command[0]).parents[1] / "lib").glob("python*/site-packages"))
        for requirement in command:
            name, pinned, version = requirement.partition("==")
            if pinned:
                info = packages / f"{name}-{version}.dist-info"
                info.mkdir()
                text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                (info / "METADATA").write_text(text)
        return Done(self.code, "", "ERROR: it failed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def told() -> list[str]:
    return []


def test_an_environment_is_made_once(told):
    pip = Pip()
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=pip)
    again = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=pip)
    assert (again.folder, again.note, pip.calls) == (made.folder, made.note, 1)
    assert len(told) == 1
    assert "making an environment of TRL 1.14.2" in told[0]
    assert look_into(made).versions["trl"] == "1.14.2"


def test_without_a_lock_it_is_said_where_versions_come_from(told):
    make_environment([OTHER], "TRL", told.append, base=replace(BASE, lock={}), commands=Pip())
    assert "no constraints.txt lies beside this harness" in told[0]


def test_what_decides_over_an_environment_is_in_its_name(tmp_path):
    wheel = OTHER.model_copy(update={"sha256": "a"})
    bases = [
        BASE,
        replace(BASE, versions={**HERE, "numpy": "2.0"}),
        replace(BASE, lock={"httpx": "0.27"}),
        replace(BASE, folders=(*BASE.folders, str(tmp_path))),
    ]
    names = {name_of([p], base) for p in (OTHER, wheel) for base in bases}
    assert len(names) == 8
    both = [OTHER, Package(name="peft", version="0.20.0")]
    assert name_of(both, BASE) == name_of(both[::-1], BASE)
    elsewhere = OTHER.model_copy(update={"place": "/elsewhere"})
    assert name_of([elsewhere], BASE) == name_of([OTHER], BASE)


@pytest.mark.parametrize(
    ("pip", "error"),
    [
        (Pip(code=1), MachineError),
        (Pip(failure=KeyboardInterrupt()), KeyboardInterrupt),
        (Pip(failure=OSError(28, "No space left on device")), MachineError),
    ],
)
def test_what_fails_leaves_nothing_that_passes_for_an_environment(cache, told, pip, error):
    with pytest.raises(error):
        make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=pip)
    assert list_environments() == []
    assert not [path for path in (cache / "environments").iterdir() if path.is_dir()]


def test_one_that_a_kill_left_half_made_is_made_anew(cache, told):
    folder = cache / "environments" / name_of([OTHER], BASE)
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "half").touch()
    pip = Pip()
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=pip)
    assert (made.folder, pip.calls) == (folder, 1)
    assert not (folder / "lib" / "half").exists()


def test_another_release_than_was_asked_for_is_refused(told, tmp_path, monkeypatch):
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=Pip())
    overlay = tmp_path / "overlay" / "trl-1.0.0.dist-info"
    overlay.mkdir(parents=True)
    (overlay / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 1.0.0\n")
    paths = [str(overlay.parent), str(Path(__file__).parent.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with pytest.raises(MachineError, match=r"has trl 1\.0\.0 in place of 1\.14\.2; PYTHONPATH"):
        look_into(made)


def test_one_that_does_not_start_says_what_to_do(told):
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=Pip())
    with pytest.raises(MachineError, match=f"harness environments rm {made.name}"):
        look_into(made, lambda *_: Done(1, "", "Fatal Python error\n"))


def test_an_edited_package_gets_an_environment_of_its_own_and_hides_what_is_here(told, tmp_path):
    package = tmp_path / "edited" / "transformers"
    package.mkdir(parents=True)
    names = set()
    for version in ("5.17.0", "5.17.1"):
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
        made = make_environment(
            [read_with(str(package), HERE)], "it", told.append, base=BASE, commands=Pip()
        )
        assert look_into(made).versions["transformers"] == version
        names.add(made.name)
    assert len(names) == 2


def test_the_commands_list_and_remove_environments(told, capsys):
    for version in ("1.14.2", "1.14.1"):
        package = Package(name="trl", version=version)
        made = make_environment([package], f"TRL {version}", told.append, base=BASE, commands=Pip())
    os.utime(made.folder / NOTE, (0, 0))
    assert run(["environments", "ls", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["label"] for line in lines] == ["TRL 1.14.2", "TRL 1.14.1"]
    assert lines[0]["packages"] == {"trl": "1.14.2"}
    assert lines[0]["bytes"] > 0
    assert lines[1]["used_utc"] == "1970-01-01T00:00:00Z"
    assert run(["environments", "ls"]) == 0
    assert "TRL 1.14.2" in capsys.readouterr().out
    assert run(["environments", "rm", "nothing", "x"]) == 2
    assert "no environment has a name that begins with 'nothing'" in capsys.readouterr().err
    assert run(["environments", "rm"]) == 2
    assert run(["environments", "rm", made.name[:10]]) == 0
    assert [each.note.label for each in list_environments()] == ["TRL 1.14.2"]
    assert run(["environments", "rm", "--all"]) == 0
    assert list_environments() == []


def test_one_that_is_being_made_is_not_removed(told):
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=Pip())
    with FileLock(f"{made.folder}.lock"), pytest.raises(ConfigError, match="is being made"):
        remove_environment(made)
    assert list_environments() == [made]


def test_one_that_a_process_works_in_is_not_removed(told):
    made = make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=Pip())
    code = "print('up', flush=True); input()"
    process = subprocess.Popen(
        [made.python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"up\n"
        with pytest.raises(ConfigError, match=f"is used by process {process.pid}"):
            remove_environment(made)
        process.communicate(b"\n")
    remove_environment(made)
    assert list_environments() == []


def test_a_cache_that_can_not_be_written_is_said(told, cache):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file")
    with pytest.raises(MachineError, match="HARNESS_CACHE"):
        make_environment([OTHER], "TRL 1.14.2", told.append, base=BASE, commands=Pip())
