"""Where a token is found, what is wrong with the place, and that its value is never told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.access import has_token
from harness.hub_token import HubToken, find_token

SECRET = "hf_thisIsTheValueThatNobodyMaySee"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hf_token"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_variable_comes_before_the_file(file, name):
    file.write_text(SECRET)
    assert find_token({name: SECRET}, file) == HubToken(f"the variable {name}")


@pytest.mark.parametrize("text", [SECRET, f"{SECRET}\n", f"  {SECRET}\r\n"])
def test_a_file_is_a_tokens_place(file, text):
    file.write_text(text)
    assert find_token({}, file) == HubToken(f"the file {file}")


@pytest.mark.parametrize("text", ["", "\n", "  \r\n"])
@pytest.mark.parametrize("environ", [{}, {"HF_TOKEN": ""}, {"HF_TOKEN": " "}])
def test_nothing_but_blanks_is_anonymous(file, text, environ):
    file.write_text(text)
    assert find_token(environ, file) == HubToken()


def test_no_file_is_anonymous_unless_it_was_named(file):
    assert find_token({}, file) == HubToken()
    named = find_token({"HF_TOKEN_PATH": str(file)}, file)
    assert named.problem == f"HF_TOKEN_PATH names {file}, which is not there"
    assert named.advice == "put the token in that file, or unset HF_TOKEN_PATH"
    assert (named.is_found, named.is_fatal) == (False, False)


def test_a_folder_in_its_place_is_explained(file):
    file.mkdir()
    found = find_token({"HF_TOKEN_PATH": str(file)}, file)
    assert f"HF_TOKEN_PATH names {file}, which is a folder" in found.problem
    assert "Docker makes one where the file of a secret is missing" in found.problem
    assert "`rmdir`" in found.advice
    assert (found.is_found, found.is_fatal) == (False, True)
    assert find_token({}, file).problem.startswith(f"the token's file {file} is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_explained(file):
    file.write_text(SECRET)
    file.chmod(0)
    found = find_token({}, file)
    assert f"can't be read by user {os.geteuid()}: Permission denied" in found.problem
    assert found.is_fatal


def test_a_file_below_a_file_can_not_be_read(file):
    file.write_text(SECRET)
    found = find_token({}, file / "token")
    assert f"can't be read by user {os.geteuid()}: Not a directory" in found.problem
    assert "let that user read it" in found.advice


def test_a_file_that_is_no_text_is_explained(file):
    file.write_bytes(b"\xff\xfe\x00")
    assert find_token({}, file).problem.endswith("it is not text")


@pytest.mark.parametrize("text", ["HF_TOKEN=hf_abc", "hf_abc def", "'hf_abc'", "abc"])
def test_what_does_not_look_like_a_token_is_odd(file, text):
    file.write_text(text)
    found = find_token({}, file)
    assert (found.is_found, found.is_odd) == (True, True)


def test_an_exchange_with_the_ci_provider_is_not_made(file):
    found = find_token({"HF_OIDC_RESOURCE": "x", "HF_TOKEN": SECRET}, file)
    assert found.origin == "an exchange with the CI provider (HF_OIDC_RESOURCE), not made here"


def test_the_value_is_nowhere(file):
    file.write_text(f"export HF_TOKEN='{SECRET}'")
    told = [find_token({"HF_TOKEN": SECRET}, file), find_token({"HF_TOKEN_PATH": str(file)}, file)]
    assert all(found.is_found for found in told)
    assert SECRET not in repr(told)


def test_the_rest_of_the_harness_asks_the_same(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(file))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert not has_token()
    file.write_text(SECRET)
    assert has_token()
    file.unlink()
    file.mkdir()
    assert not has_token()  # where huggingface_hub's own answer is an IsADirectoryError
