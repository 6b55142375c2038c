"""Traces that are kept, and processes that are started again for what a question's end left open."""

from __future__ import annotations

import pytest

from harness.trace_cache import traces
from tests.test_tracers import COMMAND, SMALL, TRACE


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))


def test_a_question_that_ends_its_process_takes_no_other_with_it():
    deadly = [(SMALL.model_copy(update={"batch": rows}), 13) for rows in (1, 2)]
    asked = [*deadly, *((SMALL, length) for length in (8, 9, 10))]
    found = traces(asked, command=COMMAND)
    assert found[:2] == ["the tracer ended with exit code 1: out of luck"] * 2
    assert found[2:] == [TRACE] * 3


def test_processes_that_never_trace_are_not_started_for_ever():
    deadly = [(SMALL.model_copy(update={"batch": rows}), 13) for rows in range(1, 9)]
    found = traces(deadly, command=COMMAND)
    assert len(found) == 8
    assert all("out of luck" in answer for answer in found)


def test_a_trace_is_asked_for_once_and_an_answer_without_one_again():
    assert traces([(SMALL, 8), (SMALL, 16), (SMALL, 8)], command=COMMAND) == [
        TRACE,
        "no such kernel",
        TRACE,
    ]
    nothing = ("false",)
    kept, other = traces([(SMALL, 8), (SMALL, 16)], command=nothing)
    assert kept == TRACE
    assert "exit code 1" in other


def test_what_is_unwanted_from_the_start_says_so():
    (answer,) = traces([(SMALL, 8)], is_wanted=lambda: False, command=COMMAND)
    assert "was ended before it came to this step" in answer
