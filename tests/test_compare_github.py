"""What GitHub Actions is told: commands that can't be broken out of, and a summary."""

from __future__ import annotations

import re

import pytest

from harness.compare.github import ANNOTATIONS_MAX, list_annotations, step_summary, tell_github
from harness.compare.markdown import MARKER
from harness.compare.model import Control
from harness.errors import MachineError
from tests.comparison_pages import HOSTILE, every_word, make, only, with_text

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\r\n]*)::([^\r\n]*)")


def test_each_word_has_its_kind():
    assert list_annotations(every_word()) == [
        "::error title=pair-5.full%3A changed::This one is changed.",
        "::warning title=pair-4.full%3A undecided::This one is undecided.",
        "::warning title=pair-2.full%3A not comparable::This one is not comparable.",
        "::notice title=pair-3.full%3A unsupported here::This one is unsupported here.",
    ]


def test_a_comparison_without_an_error_says_its_sentence():
    assert list_annotations(make().comparison) == [
        "::notice title=TRL 1.15.9 → TRL 1.16.0%3A same::Nothing changed."
    ]


@pytest.mark.parametrize("value", [HOSTILE, "a\r\nb", "100%, x: y", "%0A::error::"])
def test_no_text_breaks_out_of_its_command(value):
    lines = list_annotations(with_text(value, 2).comparison)
    assert lines
    for line in lines:
        assert COMMAND.fullmatch(line)
        assert not re.search(r"%(?!25|0A|0D|3A|2C)", line)


def test_escapes_are_as_github_reads_them():
    comparison = with_text("50% a: b, c\nd").comparison
    line = next(line for line in list_annotations(comparison) if line.startswith("::error"))
    title = "50%25 a%3A b%2C c%0Ad0.50%25 a%3A b%2C c%0Ad%3A changed"
    assert line == f"::error title={title}::50%25 a: b, c%0Ad"


def test_more_than_ten_of_a_kind_are_counted():
    lines = list_annotations(with_text("x", 25).comparison)
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == ANNOTATIONS_MAX
    assert "title=17 more::" in errors[-1]  # 25 cells and a replayed item, nine of them shown


def test_a_change_that_was_accepted_is_a_notice():
    comparison = make(
        only("sft", gradients=lambda g: 2 * g), accepted="as the notes say"
    ).comparison
    lines = list_annotations(comparison)
    assert not any(line.startswith("::error") for line in lines)
    assert (
        "::notice title=sft-plain.full%3A changed%2C acknowledged::It differs from step 1." in lines
    )


def test_alarms_of_the_reruns_are_a_warning():
    lines = list_annotations(make(controls=(Control(compared=4, alarms=1),)).comparison)
    assert "::warning title=A/A::A/A: 1 of 4 reruns differed." in lines


def test_in_actions_annotations_are_printed_and_the_summary_appended(tmp_path):
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    said = []
    comparison = every_word()
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    tell_github(comparison, environ, said.append)
    assert said == list_annotations(comparison)
    assert summary.read_text() == f"before\n{step_summary(comparison)}\n"
    assert MARKER in summary.read_text()


@pytest.mark.parametrize("environ", [{}, {"GITHUB_ACTIONS": "false"}, {"GITHUB_STEP_SUMMARY": ""}])
def test_elsewhere_nothing_is_told(environ):
    said = []
    tell_github(every_word(), environ, said.append)
    assert said == []


def test_a_summary_that_can_not_be_written_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(MachineError, match="GITHUB_STEP_SUMMARY"):
        tell_github(every_word(), {"GITHUB_STEP_SUMMARY": str(tmp_path)}, print)


@pytest.mark.slow
def test_a_summary_of_many_cells_fits_into_a_step():
    text = step_summary(with_text("a sentence of a cell, " * 15, 3000).comparison)
    assert len(text.encode()) < 2**20
