"""Run any command against the scripted NVML.

    python -m tests.nvml --replay vllm-pool -- harness env
    python -m tests.nvml --replay two-gpus -- harness doctor --matrix blog

TRACE is a file or a name of `tests/nvml/traces`. Time starts with the first process that asks NVML, and
all share it; with `--each` every process starts the trace anew, so that it plays from the beginning for
each run. Runs that train on the CPU beside scripted GPUs: `replayed`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.scripted_nvml import NoCompiler, check_trace, compile_library, find_trace, variables

# By these names whatever interpreter runs this.
NAMED = {"harness": [sys.executable, "-m", "harness.cli"], "python": [sys.executable]}


def main() -> int:
    """Build the library, run the command, and end with its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.nvml")
    parser.add_argument("--replay", required=True, metavar="TRACE")
    parser.add_argument("--each", action="store_true", help="the trace begins anew in each process")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            trace = find_trace(options.replay)
            check_trace(trace)
            library = compile_library(Path(folder))
        except (ValueError, NoCompiler) as error:
            parser.error(str(error))
        start = None if options.each else library / "start"
        environment = variables(library, trace, start)
        command = [*NAMED.get(options.command[0], options.command[:1]), *options.command[1:]]
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        except OSError as error:
            parser.error(
                f"{command[0]!r} can't be started: {error.strerror}; expected after -- a program of PATH, "
                f"or {' or '.join(NAMED)}"
            )


if __name__ == "__main__":
    raise SystemExit(main())
