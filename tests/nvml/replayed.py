"""`harness bench` whose workers train on the CPU while the sampler reads the scripted GPUs.

    python -m tests.nvml --replay two-gpus --each -- \
        python -m tests.nvml.replayed --matrix tests/data/replayed/two-gpus.yaml -o results/two-gpus

A worker that is given a GPU asks torch for it, and no library's script can lend torch one. So the
launcher leaves the GPUs out of what the worker is told; places, sampler and record are as they ship.
`--fake` takes the stand-in that trains nothing (`tests.fake_worker`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from harness.bench import bench
from harness.errors import HarnessError
from harness.launch import Launch
from harness.launch.local import LocalLauncher
from harness.plan import Request
from harness.progress import choose_display
from harness.terminal import complain
from tests.fake_worker import COMMAND


class OnCpu(LocalLauncher):
    """Starts workers that see no GPU."""

    def prepare(self, attempt: Path, launch: Launch) -> Launch:
        """Take the GPUs out of what the worker is told; the sampler has them from its place."""
        return super().prepare(attempt, launch).model_copy(update={"gpus": ()})


def _at_least(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers, from the least that makes sense."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"found {text}, expected a whole number, {least} or more"
            )
        return int(text)

    return parse


def main() -> int:
    """Run a matrix, and end with the exit code that `harness bench` would."""
    parser = argparse.ArgumentParser(prog="python -m tests.nvml.replayed")
    parser.add_argument("--matrix", required=True)
    parser.add_argument("-o", "--output-dir", type=Path, required=True)
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--jobs", type=_at_least(1))
    parser.add_argument("--exclusive", type=_at_least(0), metavar="SECONDS")
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("--no-forecast", action="store_true")
    parser.add_argument("--fake", action="store_true", help="train nothing")
    options = parser.parse_args()
    request = Request(
        matrix=options.matrix,
        output_dir=options.output_dir,
        filters=tuple(options.filter),
        seeds=tuple(options.seeds) if options.seeds is not None else None,
        jobs=options.jobs,
        device="gpu",
        exclusive_wait_s=options.exclusive,
        renders_report=not options.no_report,
        forecasts_memory=not options.no_forecast,
        command="python -m tests.nvml --replay TRACE --each -- python -m tests.nvml.replayed",
    )
    launcher = OnCpu(is_cold=options.fake, command=COMMAND if options.fake else None)
    return run(request, launcher)


def run(request: Request, launcher: OnCpu) -> int:
    """Run what is asked for, and return the exit code that `harness bench` would end with."""
    try:
        return bench(request, launcher, choose_display(is_json=False, is_quiet=False)).exit_code
    except HarnessError as error:
        complain(str(error))
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
