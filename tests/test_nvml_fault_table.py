"""The fault table is made of real studies, and fails where a fault ends a training or hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nvml.fault_table import HEADS, SAMPLER_FAILS, Before, before_row
from tests.nvml.faults import BEFORE, DURING
from tests.scripted_nvml import find_trace


def make_table(
    folder: Path, *options: str, **variables: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the command; return its exit code and the table, by trace and head."""
    file = folder / "faults.md"
    command = [sys.executable, "-m", "tests.nvml.faults", "--markdown", str(file), *options]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert file.exists(), done.stderr
    lines = [line.strip("| ").split(" | ") for line in file.read_text().splitlines()]
    return done.returncode, {line[0]: dict(zip(HEADS, line, strict=True)) for line in lines[2:]}


def assert_lost_in_mid_training(row: dict[str, str]) -> None:
    assert row["Run"] == "ok"
    assert row["NVML answers"] == "15 to every call"
    assert "NVML device memory until" in row["Lenses read"]
    assert "process-tree RSS, " in row["Lenses read"], "RSS goes on to the end"
    assert row["Grade, first reason"].startswith("D The GPU answered nothing more, before")
    assert row["Verdict on memory"] == "refused (NVML device memory)"
    said = "GPU readings ended: the GPU was lost (NVML error 15); the run went on without them"
    assert said in row["What the user reads"]


@pytest.mark.slow
@pytest.mark.usefixtures("nvml_library")  # skips without a compiler
def test_a_lost_gpu_has_its_row_and_a_run_that_ends_otherwise_fails_the_table(tmp_path):
    modes = json.dumps({"sft-steps.lora.s2": "crash"})
    only = ("--fake", "--only", "gpu-lost", "--only", "no-permission")
    code, rows = make_table(tmp_path, *only, FAKE_MODES=modes)
    assert list(rows) == ["healthy", "gpu-lost", "no-permission"]
    assert rows["healthy"]["Verdict on memory"] == "allowed, by NVML device memory"
    assert_lost_in_mid_training(rows["gpu-lost"])
    assert rows["no-permission"]["Run"] == "crashed"
    assert code == 1


@pytest.mark.slow
@pytest.mark.usefixtures("nvml_library")
def test_trl_trains_on_beside_a_lost_gpu_and_a_driver_that_hangs(tmp_path):
    code, rows = make_table(tmp_path, "--only", "gpu-lost", "--only", "hanging-call")
    assert_lost_in_mid_training(rows["gpu-lost"])
    hung = rows["hanging-call"]
    assert (hung["Run"], hung["Verdict on memory"]) == ("ok", "refused (NVML device memory)")
    assert "gave no answer after" in hung["What the user reads"]
    assert float(hung["Seconds, and of them after training"].split(", ")[1]) < 8
    assert code == 0


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (Before(7, "no NVML", 3.0, has_trained=False), None),
        (Before(7, "no NVML", 3.0, has_trained=True), "it trained"),
        (Before(0, "", 3.0, has_trained=False), "exit code 0, not 7"),
        (Before(None, "", 180.0, has_trained=False), "no end after 180 s"),
    ],
)
def test_a_command_that_can_not_begin_has_to_say_so_and_end(found, problem):
    assert before_row("version-mismatch", found).problem == problem


def test_every_fault_has_a_trace():
    for name in {*DURING, *BEFORE} - {SAMPLER_FAILS}:
        assert find_trace(name).stem == name


def test_an_unknown_trace_is_refused_by_the_names_that_there_are():
    with pytest.raises(
        ValueError, match=r"no trace 'two-gpuz'; expected a file, or one of .*two-gpus"
    ):
        find_trace("two-gpuz")
