"""What an interpreter says it has."""

from __future__ import annotations

import json
import sys

import pytest

from harness.installed import is_hidden, look, main, parse


def distribution(folder, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_first_on_the_path_counts(tmp_path):
    distribution(tmp_path / "layer", "Some_Package", "2.0")
    distribution(tmp_path / "base", "some-package", "1.0")
    distribution(tmp_path / "base", "other", "3.0")
    found = look([str(tmp_path / "layer"), str(tmp_path / "base")])
    assert found.versions == {"some-package": "2.0", "other": "3.0"}


def test_a_package_that_is_hidden_is_not_there(tmp_path, monkeypatch):
    distribution(tmp_path, "some-package", "1.0")
    monkeypatch.setitem(sys.modules, "some_package", None)
    assert is_hidden("some-package")
    assert look([str(tmp_path)]).versions == {}


def test_what_is_printed_is_read_again(capsys):
    assert main() == 0
    printed = capsys.readouterr().out
    assert parse(printed) == look()
    assert "click" in json.loads(printed)["versions"]
    with pytest.raises(ValueError, match="Expecting value"):
        parse("Traceback")
