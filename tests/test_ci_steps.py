"""The steps around a benchmark: inputs to options, exit codes, the summary of what it left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ci_scripts import SCRIPTS, run_script

ROOT = SCRIPTS.parents[1]
STUDY = ROOT / "reports" / "smollm2"


def shim(folder: Path, name: str, script: str) -> Path:
    """A program of our own, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


# bench.py


def bench(tmp_path: Path, code: int, **variables: str) -> tuple[int, list[str], str, str]:
    """Run bench.py over a command that notes its arguments and exits; code, arguments, outputs, log."""
    command = shim(
        tmp_path / "bin",
        "harness",
        f"import json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit({code})\n",
    )
    output = tmp_path / "output"
    output.touch()
    done = run_script("bench", str(command), GITHUB_OUTPUT=str(output), **variables)
    arguments, *log = done.stdout.splitlines()
    return done.returncode, json.loads(arguments), output.read_text(), "\n".join(log)


def test_inputs_become_options_and_empty_ones_nothing(tmp_path: Path) -> None:
    _, arguments, _, _ = bench(
        tmp_path,
        0,
        BENCH_MATRIX="cpu",
        BENCH_BUDGET="",
        BENCH_FILTER="grpo-*",
        BENCH_SEEDS=" 0-2 ",
        BENCH_SET="max_steps=3\n\n  beta=0.1",
        BENCH_REHEARSE="true",
        BENCH_OUTPUT_DIR="results/x",
    )
    assert arguments == [
        "bench",
        "--matrix=cpu",
        "--filter=grpo-*",
        "--seeds=0-2",
        "--output-dir=results/x",
        "--set=max_steps=3",
        "--set=beta=0.1",
        "--rehearse",
    ]


@pytest.mark.parametrize("value", ["--dry-run", "x; touch pwned", "$(id)", "`id`", "a b"])
def test_an_input_stays_one_value_whatever_it_holds(tmp_path: Path, value: str) -> None:
    _, arguments, _, _ = bench(tmp_path, 0, BENCH_FILTER=value)
    assert arguments == ["bench", f"--filter={value}"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 7, 8])
def test_the_exit_code_is_the_benchmarks_and_an_output(tmp_path: Path, code: int) -> None:
    returned, _, outputs, log = bench(tmp_path, code)
    assert returned == code
    assert outputs == f"exit-code={code}\n"
    assert ("::error" in log) == (code != 0)


def test_failed_runs_can_be_a_success_of_the_step_and_nothing_else_can(tmp_path: Path) -> None:
    for code, expected in {3: 0, 2: 2, 7: 7, 143: 143}.items():
        returned, _, outputs, _ = bench(tmp_path, code, BENCH_FAIL_ON_FAILED="false")
        assert returned == expected
        assert outputs.endswith(f"exit-code={code}\n")


ENDS_ON_A_SIGNAL = """\
import pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path({folder!r}, "signals").open("a").write(f"{{number}} ")
    time.sleep(0.3)  # long enough for a second signal, if there is one
    sys.exit(100 + number)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
pathlib.Path({folder!r}, "pid").write_text(str(__import__("os").getpid()))
time.sleep(60)
"""
STOPS = """\
import os, pathlib, signal, sys
pathlib.Path({folder!r}, "asked").write_text(" ".join(sys.argv[1:]))
os.kill(int(pathlib.Path({folder!r}, "pid").read_text()), signal.SIGTERM)
"""


def interrupted(tmp_path: Path, *numbers: signal.Signals, **variables: str) -> int:
    """Run bench.py over a command that ends in its own way, send signals, and return the exit code."""
    command = shim(tmp_path / "bin", "harness", ENDS_ON_A_SIGNAL.format(folder=str(tmp_path)))
    shim(tmp_path / "bin", "docker", STOPS.format(folder=str(tmp_path)))
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS / "bench.py"), str(command)],
        env={"PATH": path, **variables},
    )
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_benchmark_which_ends_in_its_own_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    assert interrupted(tmp_path, number) == 100 + number


def test_the_second_signal_that_github_sends_is_not_passed_on(tmp_path: Path) -> None:
    assert interrupted(tmp_path, signal.SIGINT, signal.SIGTERM) == 100 + signal.SIGINT
    assert (tmp_path / "signals").read_text() == f"{signal.SIGINT.value} "


def test_a_benchmark_in_a_container_is_ended_by_the_engine_not_by_the_client(
    tmp_path: Path,
) -> None:
    code = interrupted(tmp_path, signal.SIGINT, BENCH_CONTAINER="harness-7-1")
    assert code == 100 + signal.SIGTERM
    assert (tmp_path / "asked").read_text() == "stop -t 240 harness-7-1"


# doctor.py


def test_doctor_judges_the_runs_that_bench_trains_next(tmp_path: Path) -> None:
    note = "import sys\nprint(*sys.argv[1:], sep='\\n')\nsys.exit(7)\n"
    command = str(shim(tmp_path / "bin", "harness", note))
    choice = {
        "BENCH_MATRIX": "blog",
        "BENCH_BUDGET": "short",
        "BENCH_FILTER": "$(id); --all",
        "BENCH_SEEDS": "0-1",
    }
    asked = run_script("doctor", command, **choice, BENCH_OUTPUT_DIR="x", BENCH_REHEARSE="true")
    trained = run_script("bench", command, **choice)
    assert asked.returncode == trained.returncode == 7
    _, *options = asked.stdout.splitlines()
    assert asked.stdout.splitlines()[0] == "doctor"
    assert options == trained.stdout.splitlines()[1:5]
    assert "--filter=$(id); --all" in options


# summary.py


def test_a_summary_holds_the_brief_the_endings_and_the_versions() -> None:
    shown = run_script("summary", str(STUDY)).stdout
    assert (STUDY / "brief.md").read_text().strip() in shown
    assert "20 of 20 runs ended ok" in shown
    assert "trl 1.16.0" in shown
    assert "Side by side" not in shown


def test_a_study_and_its_downloaded_report_have_one_summary(tmp_path: Path) -> None:
    shutil.copytree(STUDY, tmp_path / "study" / "report")
    assert (
        run_script("summary", str(tmp_path / "study")).stdout
        == run_script("summary", str(STUDY)).stdout
    )


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_study_without_a_report_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "data.json").write_text(content)
    done = run_script("summary", str(tmp_path))
    assert done.returncode == 0
    assert "No report in" in done.stdout


def newer(folder: Path) -> Path:
    """The same study as if under another TRL, with one run lost and one arm absent."""
    data: dict[str, Any] = json.loads((STUDY / "data.json").read_bytes())
    for environment in data["environments"]:
        environment["packages"]["trl"] = "1.17.0"
    data["runs"][0]["status"] = "oom-host"
    data["findings"] = data["findings"][1:]
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "brief.md").write_text("newer brief\n")
    return folder


def test_two_studies_stand_side_by_side_and_neither_is_judged(tmp_path: Path) -> None:
    shown = run_script("summary", str(STUDY), str(newer(tmp_path / "newer"))).stdout
    head = next(line for line in shown.splitlines() if line.startswith("| Pair, arm"))
    assert head.index("TRL 1.16.0: worse by") < head.index("TRL 1.17.0: worse by")
    table = shown.partition("Nothing here is judged")[0].splitlines()
    rows = {line.split(" | ")[0]: line for line in table if line.startswith("| sft-gsm")}
    assert rows["| sft-gsm, lora-r16"].endswith("| supported | – | – | – |")
    assert rows["| sft-gsm, lora-r1"].count("supported") == 2
    assert "process-tree RSS" in shown  # a memory figure names its lens
    assert "19 of 20 runs ended ok; 1 oom-host." in shown
    assert "newer brief" in shown
    assert "Nothing here is judged" in shown
