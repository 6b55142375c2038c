from __future__ import annotations

import pytest

from harness import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("HarnessError", 1),
        ("ConfigError", 2),
        ("RunsFailed", 3),
        ("MachineError", 7),
        ("StudyError", 8),
    ],
)
def test_every_error_has_its_exit_code(kind, code):
    assert getattr(errors, kind).exit_code == code


def test_all_problems_stand_in_the_message():
    error = errors.ConfigError("first", "second")
    assert str(error) == "2 problems:\n  - first\n  - second"
    assert str(errors.ConfigError("only")) == "only"


def test_the_closest_word_is_suggested():
    assert errors.did_you_mean("benhc", ["bench", "report"]) == " (did you mean 'bench'?)"
    assert errors.did_you_mean("xyz", ["bench"]) == ""
