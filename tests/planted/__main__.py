"""How many planted faults the comparison catches, and whether it says rightly where they are.

    python -m tests.planted --only grpo-advantages,lora-scaling
    python -m tests.planted --jobs 2 --into results/planted      all of them, two side by side

Each fault is an edit of one line in a copy of the package. The copy trains the matrix `upgrade` by
`harness bench --trl` or `--with`, and `harness compare` holds it against the installed releases. Placed
right means: each task that the fault can reach is named and no other; a fault that only adapters can feel
is named in LoRA alone. What was trained already is compared again and not trained.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from harness.compare.model import Comparison
from tests.planted.faults import LIST, Fault, plant, read_faults
from tests.planted.table import Row, render

CLI = "from harness.cli import main; main()"


def harness(log: Path, *words: str, core: int | None = None) -> int:
    """Run a command of the harness; what it says goes to a log."""
    pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    with log.open("a") as file:
        return subprocess.run(
            [*pin, sys.executable, "-c", CLI, *words], check=False, stdout=file, stderr=file
        ).returncode


def try_fault(fault: Fault, base: Path, into: Path, core: int | None, chosen: Sequence[str]) -> Row:
    """Plant a fault, train under it, compare; returns its row of the table."""
    folder = into / fault.name
    answer = folder / "compared" / "comparison.json"
    log, codes = folder / "log.txt", folder / "codes.json"
    study = str(folder / "study")
    if codes.exists():
        trained = json.loads(codes.read_text())["bench"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        copy = plant(fault, folder / "edited")
        stack = ("--trl", str(copy)) if fault.package == "trl" else ("--with", str(copy))
        words = (*chosen, "--no-report", "--output-dir", study)
        trained = harness(log, "bench", *words, *stack, core=core)
        shutil.rmtree(folder / "edited")
    code = harness(log, "compare", str(base), study, "-o", str(answer.parent), core=core)
    codes.write_text(json.dumps({"bench": trained, "compare": code}))
    said = Comparison.model_validate_json(answer.read_text()) if answer.exists() else None
    return Row(fault, said)


def main() -> None:
    """Try the faults that were asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--list", type=Path, default=LIST, dest="path")
    parser.add_argument("--only", default="*", help="names or patterns, comma-separated")
    parser.add_argument("--into", type=Path, default=Path("results/planted"))
    parser.add_argument("--base", type=Path, help="a study of the releases as installed")
    parser.add_argument("--matrix", default="upgrade")
    parser.add_argument("--filter", help="only runs that match, as `harness bench` takes it")
    parser.add_argument("--jobs", type=int, default=1, help="faults side by side, a core each")
    asked = parser.parse_args()
    wanted = [
        fault for fault in read_faults(asked.path)
        if any(fnmatch.fnmatch(fault.name, each) for each in asked.only.split(","))
    ]  # fmt: skip
    base = asked.base or asked.into / "base"
    asked.into.mkdir(parents=True, exist_ok=True)
    chosen = ("--matrix", asked.matrix, *(("--filter", asked.filter) if asked.filter else ()))
    if not (base / "study.json").exists():
        harness(asked.into / "base.txt", "bench", *chosen, "--no-report", "-o", str(base))
    cores: SimpleQueue[int | None] = SimpleQueue()
    allowed = sorted(os.sched_getaffinity(0))
    for number in range(asked.jobs):
        cores.put(allowed[number % len(allowed)] if asked.jobs > 1 else None)

    def one(fault: Fault) -> Row:
        core = cores.get()
        try:
            row = try_fault(fault, base, asked.into, core, chosen)
        finally:
            cores.put(core)
        print(row.line, flush=True)
        return row

    with ThreadPoolExecutor(asked.jobs) as pool:
        rows = list(pool.map(one, wanted))
    print(render(rows))


if __name__ == "__main__":
    main()
