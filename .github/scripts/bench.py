"""Run `harness bench` with the options that a workflow's inputs ask for.

    bench.py [COMMAND …]       what stands before `bench`; default: harness

Inputs come as BENCH_… variables, never as text in a script. An empty one is left out. The exit code goes
to the step's outputs; with BENCH_FAIL_ON_FAILED=false a benchmark in which some runs failed is a success
of the step, since failed runs are data. An interrupt is passed on, once, so that the study is sealed: to
the command, or with BENCH_CONTAINER to the container of that name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

OPTIONS = {
    "BENCH_MATRIX": "--matrix",
    "BENCH_BUDGET": "--budget",
    "BENCH_FILTER": "--filter",
    "BENCH_SEEDS": "--seeds",
    "BENCH_OUTPUT_DIR": "--output-dir",
}
SOME_RUNS_FAILED = 3
SEALING_S = 240  # GitHub ends a cancelled job after five minutes, the steps after this one included
MEANINGS = {
    2: "the inputs name something that is not there, or doesn't fit; every problem is listed above",
    SOME_RUNS_FAILED: "some runs failed; the report shows each with its reason",
    7: "this machine, its driver or an access is unfit; `harness doctor` says for what",
    8: "the study's folder is in use or damaged; `harness runs verify` says where",
    130: "interrupted; the study is sealed, and the same command goes on with it",
    143: "ended by a signal; the study is sealed, and the same command goes on with it",
}


def main() -> int:
    """Run the benchmark and return what the step should exit with."""
    command = [*(sys.argv[1:] or ["harness"]), "bench", *options(os.environ)]
    sys.stderr.write(f"+ {' '.join(command)}\n")
    code = execute(command, os.environ.get("BENCH_CONTAINER", ""))
    write_output("exit-code", str(code))
    if code == 0:
        return 0
    accepts_failed = os.environ.get("BENCH_FAIL_ON_FAILED") == "false"
    is_accepted = code == SOME_RUNS_FAILED and accepts_failed
    meaning = MEANINGS.get(code, "see the log above")
    level = "warning" if is_accepted else "error"
    print(f"::{level} title=harness bench ended with exit code {code}::{meaning}")
    return 0 if is_accepted else code


def options(inputs: Mapping[str, str]) -> list[str]:
    """Turn the inputs into options; `--name=value`, so that a value can't pass for an option."""
    found = [
        f"{option}={value}"
        for name, option in OPTIONS.items()
        if (value := inputs.get(name, "").strip())
    ]
    settings = (line.strip() for line in inputs.get("BENCH_SET", "").splitlines())
    found += [f"--set={setting}" for setting in settings if setting]
    if inputs.get("BENCH_REHEARSE") == "true":
        found.append("--rehearse")
    return found


def execute(command: Sequence[str], container: str = "") -> int:
    """Run a command to its end, also when interrupted, and return its exit code as a shell counts it."""
    # `python -m` looks into the working folder first, where a checkout would hide what is installed.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command, env=environment) as process:

        def interrupt(number: int, _: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if not container:
                process.send_signal(number)
                return
            # A client of compose may kill what it started, so the engine is asked. In a session of its own:
            # GitHub kills this step ten seconds later, and the benchmark may need more to end.
            stop = ["docker", "stop", "-t", str(SEALING_S), container]
            subprocess.Popen(stop, start_new_session=True)

        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
        code = process.wait()
    return code if code >= 0 else 128 - code


def write_output(name: str, value: str) -> None:
    """Add an output to the step's, where there is a step."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{name}={value}\n")


if __name__ == "__main__":
    sys.exit(main())
