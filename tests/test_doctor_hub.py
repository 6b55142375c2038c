"""Token and repositories: found or not, gated or not, fetched or not; a token's value never shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.doctor_hub import check_repositories, check_token
from harness.hub_token import HubToken, find_token
from tests.doctor_cases import needs

SECRET = "hf_thisIsTheValueThatNobodyMaySee"
FOUND = HubToken("the file /run/secrets/hf_token")
LLAMA = "meta-llama/Llama-3.1-8B"


def token(of: HubToken, matrix: str = "blog", environ=None, *, is_container: bool = False):
    return check_token(needs(matrix), of, environ or {}, is_container=is_container)


def test_a_token_is_named_by_its_place():
    check = token(FOUND)
    assert (check.word, check.text) == ("ok", "from the file /run/secrets/hf_token")
    assert check.value["is_found"] is True


def test_anonymous_does_where_nothing_is_gated():
    check = token(HubToken(), "doc-examples")
    assert (check.word, check.text) == (
        "ok",
        "none: the Hub is asked anonymously, which does for this matrix",
    )


def test_gated_repositories_need_a_token():
    check = token(HubToken())
    assert (check.word, check.exit_code) == ("problem", 7)
    assert check.text.endswith(f"meta-llama/Llama-3.1-8B-Instruct, {LLAMA} are gated")
    assert "hf auth login" in check.advice
    assert check.value["gated"] == [r.name for r in needs("blog").repositories if r.is_gated]


def test_in_a_container_the_tokens_file_is_named_outside_of_it():
    check = token(HubToken(), is_container=True)
    assert check.word == "problem"
    assert (
        check.advice
        == "name the token's file with HF_TOKEN_FILE, before `docker compose` or in .env"
    )


def test_gated_repositories_that_are_here_need_none():
    names = tuple(r.name for r in needs("blog").repositories if r.is_gated)
    assert check_token(needs("blog", cached=names), HubToken(), {}, is_container=False).word == "ok"
    maps = tuple((name, "/models") for name in names)
    assert check_token(needs("blog", maps=maps), HubToken(), {}, is_container=False).word == "ok"


@pytest.mark.parametrize(
    ("matrix", "is_fatal", "word"),
    [
        ("blog", False, "problem"),  # a missing file leaves gated repositories out of reach
        ("doc-examples", False, "note"),
        ("doc-examples", True, "problem"),  # a folder fails every request
        ("cpu", True, "note"),  # nothing is asked of the Hub
    ],
)
def test_a_bad_place_is_a_problem_where_it_would_fail(matrix, is_fatal, word):
    check = token(HubToken(problem="it is a folder", advice="mend it", is_fatal=is_fatal), matrix)
    assert (check.word, check.sentence) == (word, "it is a folder; mend it")


def test_a_token_that_is_kept_back_is_said():
    check = token(FOUND, environ={"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})
    assert check.word == "problem"
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it from being sent" in check.text
    assert token(FOUND, "cpu", {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).word == "note"


def test_a_token_of_a_strange_shape_is_noted():
    check = token(HubToken("the variable HF_TOKEN", is_odd=True))
    assert check.word == "note"
    assert "expected one word that begins with hf_" in check.text


def test_a_variable_in_a_container_is_seen_by_docker_inspect():
    variable = HubToken("the variable HF_TOKEN")
    check = token(variable, is_container=True)
    assert check.word == "note"
    assert "`docker inspect` shows" in check.text
    assert "HF_TOKEN_FILE" in check.advice
    assert token(variable).word == "ok"
    assert token(FOUND, is_container=True).word == "ok"


def test_the_value_shows_nowhere(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text(SECRET)
    for environ in (
        {"HF_TOKEN": SECRET},
        {"HF_TOKEN": f"x {SECRET}"},
        {"HF_TOKEN_PATH": str(file)},
    ):
        check = token(find_token(environ, file), environ=environ, is_container=True)
        assert SECRET not in str(check.as_dict())


def repositories(matrix: str = "blog", *, is_offline: bool = False, is_container=False, **options):
    checks = check_repositories(
        needs(matrix, **options), is_offline=is_offline, is_container=is_container
    )
    return {check.value["name"]: check for check in checks}


def test_what_ships_or_is_generated_needs_nothing():
    found = repositories("cpu")
    assert found["embedded:micro-llama"].sentence == "embedded:micro-llama ships with the harness"
    assert {check.word for check in found.values()} == {"ok"}
    assert repositories("smollm2")["chain_sum"].sentence == "chain_sum is generated here"


def test_a_public_repository_has_a_size_and_a_gated_one_its_terms():
    found = repositories()
    assert found["Qwen/Qwen3-8B-Base"].sentence == "Qwen/Qwen3-8B-Base is to be fetched, 16.4 GB"
    assert found["Qwen/Qwen3-8B-Base"].word == "ok"
    assert found["openai/gsm8k"].sentence == "openai/gsm8k is to be fetched, of unknown size"
    assert (found[LLAMA].word, found[LLAMA].name) == ("note", "model")
    assert found[LLAMA].sentence == (
        f"{LLAMA} is to be fetched, 16.1 GB; it is gated (llama3.1); accept its terms at "
        f"https://huggingface.co/{LLAMA} with the token's account"
    )


def test_what_is_cached_or_mapped_is_not_fetched(tmp_path: Path):
    (tmp_path / "train.parquet").touch()
    found = repositories(cached=(LLAMA,), maps=(("openai/gsm8k", str(tmp_path)),))
    assert found[LLAMA].sentence == f"{LLAMA} is in the cache, 1,000.0 GB"
    assert found["openai/gsm8k"].sentence == f"openai/gsm8k is in the local folder {tmp_path}"
    assert {found[LLAMA].word, found["openai/gsm8k"].word} == {"ok"}


def test_a_mapped_folder_that_is_not_what_it_is_taken_for_is_a_problem(tmp_path: Path):
    maps = ((LLAMA, str(tmp_path / "nope")), ("openai/gsm8k", str(tmp_path)))
    found = repositories(maps=maps)
    assert (found[LLAMA].word, found["openai/gsm8k"].word) == ("problem", "problem")
    assert f"{LLAMA} is mapped to {tmp_path}/nope: the folder does not exist" in found[LLAMA].text
    assert f"--map {LLAMA}=FOLDER" in found[LLAMA].advice
    assert "holds no rows" in found["openai/gsm8k"].text


def test_a_download_that_broke_off_says_what_is_left():
    of = needs("blog")
    broken = next(r for r in of.repositories if r.name == LLAMA).model_copy(
        update={"download_bytes": 3_000_000_000}
    )
    (check,) = check_repositories(
        replace(of, repositories=(broken,)), is_offline=False, is_container=False
    )
    assert "is to be fetched, 3.0 GB of 16.1 GB" in check.text


def test_offline_nothing_can_be_fetched():
    check = repositories(is_offline=True)["openai/gsm8k"]
    assert check.word == "problem"
    assert check.sentence == (
        "openai/gsm8k is not in the cache, and offline mode (HF_HUB_OFFLINE) keeps it from the Hub; "
        "`harness fetch --matrix blog` where there is a network, or name a folder that holds it with --map "
        "openai/gsm8k=FOLDER"
    )
    assert repositories(is_offline=True, cached=("openai/gsm8k",))["openai/gsm8k"].word == "ok"


@pytest.mark.parametrize(("is_offline", "word"), [(False, "note"), (True, "problem")])
def test_smollm2_is_made_by_a_command_that_is_there(is_offline, word, monkeypatch):
    monkeypatch.setattr("harness.downloads.smollm2_is_cached", lambda: False)
    of = needs.__wrapped__("smollm2")
    for is_container, command in ((False, "make smollm2"), (True, "-m harness.worker.smollm2")):
        check = check_repositories(of, is_offline=is_offline, is_container=is_container)[0]
        assert (check.word, command in check.advice) == (word, True)
        assert ("HF_HUB_OFFLINE" in check.text) == is_offline


def test_smollm2_in_the_cache_is_ok(monkeypatch):
    monkeypatch.setattr("harness.downloads.smollm2_is_cached", lambda: True)
    (check, *_) = check_repositories(
        needs.__wrapped__("smollm2"), is_offline=True, is_container=False
    )
    assert (check.word, check.text) == ("ok", "smollm2 is in the cache, 93 MB")
