"""A study whose every seed meets a trace of its own: one warm worker serves many faults.

    python -m tests.nvml --replay healthy -- \
        python -m tests.nvml.by_seed --matrix M --traces FOLDER --seeds 0 1 -o STUDY

FOLDER holds `0.trace`, `1.trace` and so on; the sampler of a run writes when its trace began, in seconds
of CLOCK_MONOTONIC, to `0.start`. Else as `replayed`: the workers train on the CPU.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from harness.launch import Launch
from harness.plan import Request
from harness.spec import RunSpec
from tests.fake_worker import COMMAND
from tests.nvml.replayed import OnCpu, run


class BySeed(OnCpu):
    """Gives the sampler of each run the trace of its seed."""

    def __init__(self, traces: Path, **options: Any) -> None:
        super().__init__(**options)
        self._traces = traces

    def prepare(self, attempt: Path, launch: Launch) -> Launch:
        """Choose the trace by what the sampler will inherit: it starts after this."""
        spec = RunSpec.model_validate_json((attempt.parent / "spec.json").read_text())
        os.environ["SCRIPTED_NVML"] = str(self._traces / f"{spec.seed}.trace")
        os.environ["SCRIPTED_NVML_START"] = str(self._traces / f"{spec.seed}.start")
        return super().prepare(attempt, launch)


def main() -> int:
    """Run the arm `lora` with every seed, and end with the exit code that `harness bench` would."""
    parser = argparse.ArgumentParser(prog="python -m tests.nvml.by_seed")
    parser.add_argument("--matrix", required=True)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("-o", "--output-dir", type=Path, required=True)
    parser.add_argument("--fake", action="store_true", help="train nothing")
    options = parser.parse_args()
    request = Request(
        matrix=options.matrix,
        output_dir=options.output_dir,
        filters=("*.lora.*",),
        seeds=tuple(options.seeds),
        device="gpu",
        renders_report=False,
        command="python -m tests.nvml.by_seed",
    )
    command = COMMAND if options.fake else None
    launcher = BySeed(options.traces, is_cold=options.fake, command=command)
    return run(request, launcher)


if __name__ == "__main__":
    raise SystemExit(main())
