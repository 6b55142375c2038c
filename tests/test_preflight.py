from __future__ import annotations

import sys

import pytest

from harness.errors import ConfigError, MachineError
from harness.matrix import expand, parse_matrix
from harness.preflight import check_sources
from tests.conftest import MATRIX

COMMAND = (sys.executable, "-m", "tests.fake_preflight")
FIXTURE = MATRIX.replace("{name: micro-steps,", "{name: openai/gsm8k, rows_from: fixture,")


def test_embedded_models_and_generated_rows_start_no_process():
    assert check_sources(expand(parse_matrix(MATRIX, "m")), {}, ("no-such-program",)) == []


def test_one_sentence_for_what_holds_for_several_runs():
    specs = expand(parse_matrix(FIXTURE, "m"))
    assert check_sources(specs, {}, COMMAND) == [
        "sft-micro.full.s0 and 3 runs more: column 'question' is missing from openai/gsm8k"
    ]


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("problem", ConfigError, "column 'question' is missing"),
        ("crash", MachineError, "no such library"),
        ("babble", MachineError, "harness doctor"),
    ],
)
def test_a_problem_or_a_program_that_fails_stops(monkeypatch, mode, error, said):
    monkeypatch.setenv("FAKE_PREFLIGHT", mode)
    with pytest.raises(error, match=said):
        check_sources(expand(parse_matrix(FIXTURE, "m")), {}, COMMAND)
