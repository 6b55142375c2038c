"""Run `harness doctor` about the runs that a workflow's inputs choose: those that `bench.py` trains next.

    doctor.py [COMMAND …]      what stands before `doctor`; default: harness

Inputs come as the same BENCH_… variables; those that choose no run are left out, as doctor knows no such
option. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys

import bench

CHOOSING = ("BENCH_MATRIX", "BENCH_BUDGET", "BENCH_FILTER", "BENCH_SEEDS")


def main() -> int:
    """Ask, and return what the step should exit with."""
    chosen = {name: os.environ.get(name, "") for name in CHOOSING}
    command = [*(sys.argv[1:] or ["harness"]), "doctor", *bench.options(chosen)]
    sys.stderr.write(f"+ {' '.join(command)}\n")
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
