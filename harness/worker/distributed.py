"""`python -m harness.worker.distributed ATTEMPT`: train one run in several processes.

Calls the entry of `accelerate launch` in this interpreter, so that a process that ends badly is
named by torch's launcher itself, not read out of a log. It ties itself to the supervisor's life and
its ranks to its own, and trains nothing.

If the run fails, the last word is the cause's: what a process says of itself, unless it only lost
another one; else the signal that ended a process (the kernel's, when memory runs out), which becomes
the exit of this one; else what the first process said.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.files import write_atomically
from harness.launch import PARENT_VARIABLE, Launch
from harness.launch.parallel import launch_arguments
from harness.record import Result
from harness.spec import RunSpec
from harness.worker.confine import die_with_parent, pin
from harness.worker.ranks import Rank, is_consequence, words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a module on an attempt's folder in as many processes as its launch says."""
    parser = argparse.ArgumentParser(prog="harness.worker.distributed")
    parser.add_argument("--module", default="harness.worker", help="what each process runs")
    parser.add_argument("attempt", type=Path)
    options = parser.parse_args(arguments)
    attempt: Path = options.attempt
    launch = Launch.model_validate_json((attempt / "launch.json").read_text(encoding="utf-8"))
    spec = RunSpec.model_validate_json((attempt.parent / "spec.json").read_text(encoding="utf-8"))
    die_with_parent(int(os.environ.get(PARENT_VARIABLE, os.getppid())))
    if launch.cores:
        pin(set(launch.cores))
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # the ranks' starter
    # All processes are on this machine; a host's name may resolve to a network that is closed.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return start(attempt, launch, launch_arguments(spec, launch, attempt, options.module))


def start(attempt: Path, launch: Launch, arguments: Sequence[str]) -> int:
    """Start the processes, wait for them, and return the exit code of the whole."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    assert launch.parallel is not None  # noqa: S101 - launch_arguments refuses it
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except SignalException as ended:
        return 128 + int(ended.sigval)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return conclude(attempt, launch.parallel.processes, codes)
    return 0


def conclude(attempt: Path, count: int, codes: Mapping[int, int]) -> int:
    """Leave the cause's word as the run's result, and return this process's exit code.

    `codes` are exit codes by rank, negative for a signal.
    """
    path = attempt / "result.json"
    first = Result.model_validate_json(path.read_bytes()) if path.exists() else None
    if first is not None and not is_consequence(first):
        return 1
    for rank, result in words(attempt, count):
        if not is_consequence(result):
            result = result.model_copy(update={"reason": f"{rank.name}: {result.reason}"})
            write_atomically(path, result.model_dump_json(indent=1).encode() + b"\n")
            return 1
    # SIGTERM is what torch's launcher sends the others.
    killed = {rank: -code for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM}
    if not killed:
        for index, code in sorted(codes.items()) if first is None else ():
            sys.stderr.write(f"{Rank(index, count).name} ended with exit code {code}\n")
        return 1
    index, number = min(killed.items())
    if first is not None:
        path.replace(attempt / "rank-0.json")
    name = signal.Signals(number).name
    sys.stderr.write(f"{Rank(index, count).name} was ended by {name}\n")
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
