"""Processes that trace: the longest first, one that ends, one that is no longer wanted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

from harness.catalog import MODELS
from harness.memory_trace import Step, Trace
from harness.subject import Adapter, Subject
from harness.tracers import Tracers, effort
from tests.waiting import wait_until

SMALL = Subject(facts=MODELS["smollm2"], dtype="float32", loop="sft", batch=2)
LARGE = SMALL.model_copy(
    update={"adapter": Adapter(r=8, target_modules="all-linear"), "has_checkpointing": True}
)
STEP = Step(sizes=(1,), kinds=("weights",), events=((-1, 0),))
TRACE = Trace(length=8, longer_length=4, setup=STEP, first=STEP, repeated=STEP, longer=(1,))

PROGRAM = f"""
import json, sys, time
for line in sys.stdin:
    length = json.loads(line)["length"]
    if length == 13:
        sys.exit("out of luck")
    if length == 14:
        time.sleep(600)
    if length == 15:
        print("a library says hello", flush=True)
        continue
    if length == 16:
        print(json.dumps({{"error": "no such kernel"}}), flush=True)
        continue
    print({TRACE.model_dump_json()!r}, flush=True)
"""
COMMAND = (sys.executable, "-c", PROGRAM)


def test_every_question_has_its_own_answer():
    asked = [(SMALL, 8), (LARGE, 16), (SMALL, 9), (SMALL, 15)]
    with Tracers(asked, command=COMMAND) as tracers:
        found = dict(tracers.answers())
    assert found[0] == found[2] == TRACE
    assert found[1] == "no such kernel"
    assert "can't be read" in found[3]


def test_what_takes_longest_is_asked_first():
    assert effort(LARGE, 64) > effort(SMALL, 64)
    assert effort(SMALL.model_copy(update={"accumulation": 2}), 64) > effort(SMALL, 64)


def test_a_process_that_ends_leaves_its_last_words():
    with Tracers([(SMALL, 13)], command=COMMAND) as tracers:
        found = dict(tracers.answers())
    assert found[0] == "the tracer ended with exit code 1: out of luck"


def test_the_questions_after_one_that_ended_its_process_are_answered_by_another():
    asked = [(LARGE, 13), *[(SMALL, n) for n in (8, 9, 10)], (SMALL, 13), (SMALL, 11)]
    with Tracers(asked, command=COMMAND) as tracers:
        found = dict(tracers.answers())
    assert [found[i] == TRACE for i in range(6)] == [False, True, True, True, False, True]


def test_where_no_process_ever_answers_questions_stay_without_one():
    with Tracers([(SMALL, 13)] * 9, command=COMMAND) as tracers:
        found = dict(tracers.answers())
    assert 0 < len(found) <= 4
    assert "out of luck" in tracers.why


def test_processes_end_within_a_second_once_they_are_not_wanted():
    begin = time.monotonic()
    with Tracers([(SMALL, 14)], lambda: time.monotonic() < begin + 0.5, COMMAND) as tracers:
        found = list(tracers.answers())
    assert found == []
    assert time.monotonic() - begin < 5


# A step of 28 layers: minutes of importing and tracing, none of which a test waits for.
STARTER = f"""
from harness.subject import Subject
from harness.tracers import Tracers
asked = Subject.model_validate_json({LARGE.model_dump_json()!r})
with Tracers([(asked, 4096)]) as tracers:
    list(tracers.answers())
"""


def is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # that nobody here reaps
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_traces_ends_with_its_starter(number):
    starter = subprocess.Popen([sys.executable, "-c", STARTER])
    try:
        wait_until(lambda: psutil.Process(starter.pid).children(), 60)
        [tracer] = psutil.Process(starter.pid).children()
        wait_until(lambda: "harness.worker.tracer" in tracer.cmdline(), 10)
    finally:
        starter.send_signal(number)
        starter.wait()
    wait_until(lambda: is_over(tracer), 3)
