from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.release_list import KNOWN, between, in_order, list_releases, parse_listing

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LISTING = """\
trl (1.16.0)
Available versions: 1.16.0, 1.10.0, 1.9.2, 1.9.0rc1, 0.29.1.post1
  INSTALLED: 1.16.0
"""
NAMES = ("0.29.1.post1", "1.9.2", "1.10.0", "1.16.0")


class Pip:
    """A pip that answers, and counts."""

    def __init__(self, answer: str | None = LISTING) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, package: str) -> str | None:
        self.asked += 1
        return self.answer


def test_final_releases_are_listed_in_their_order():
    assert parse_listing(LISTING) == NAMES


@pytest.mark.parametrize(
    "output", ["", "no such option: --json", "ERROR: No matching distribution"]
)
def test_an_answer_without_a_list_lists_nothing(output):
    assert parse_listing(output) == ()


def test_pip_is_asked_once_a_day(tmp_path: Path):
    pip = Pip()
    assert list_releases("TRL", pip, tmp_path, NOW).names == NAMES
    assert list_releases("trl", pip, tmp_path, NOW + timedelta(hours=23)).names == NAMES
    assert pip.asked == 1
    list_releases("trl", pip, tmp_path, NOW + timedelta(hours=25))
    assert pip.asked == 2


def test_a_torn_list_is_asked_for_again(tmp_path: Path):
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "trl.json").write_text('{"utc": "2026-01-02T03:')
    pip = Pip()
    assert list_releases("trl", pip, tmp_path, NOW).names == NAMES
    assert pip.asked == 1


def test_without_pip_the_committed_list_serves_and_is_dated(tmp_path: Path):
    found = list_releases("trl", Pip(None), tmp_path, NOW)
    assert found.names == KNOWN["trl"]
    assert "2026-11-26" in found.source


def test_without_pip_another_package_has_no_list(tmp_path: Path):
    with pytest.raises(ConfigError, match="--releases"):
        list_releases("transformers", Pip(None), tmp_path, NOW)


def test_a_cache_that_cannot_be_written_costs_another_question(tmp_path: Path):
    (tmp_path / "releases").write_text("a file in the way")
    pip = Pip()
    assert list_releases("trl", pip, tmp_path, NOW).names == NAMES
    assert list_releases("trl", pip, tmp_path, NOW).names == NAMES
    assert pip.asked == 2


def test_the_committed_list_is_in_order():
    assert in_order(KNOWN["trl"]) == KNOWN["trl"]
    assert len(KNOWN["trl"]) == 42


def test_the_span_runs_from_good_to_bad_whichever_is_newer():
    assert between(NAMES, "1.9.2", "1.16.0") == ("1.9.2", "1.10.0", "1.16.0")
    assert between(NAMES, "1.16.0", "1.9.2") == ("1.16.0", "1.10.0", "1.9.2")


def test_both_wrong_ends_are_said_at_once():
    with pytest.raises(ConfigError) as found:
        between(NAMES, "1.16", "1.9.3")
    assert len(found.value.problems) == 2
    assert "did you mean '1.16.0'" in str(found.value)


def test_one_release_is_no_span():
    with pytest.raises(ConfigError, match="expected two releases"):
        between(NAMES, "1.9.2", "1.9.2")
