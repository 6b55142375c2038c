"""`python -m harness.worker.tracer --parent PID`: the process that traces, tied to its starter's life.

It has a session of its own, so what ends its starter need not reach it, and importing torch alone takes
seconds: it ties itself before that. What it answers is said in `tracing`.
"""

from __future__ import annotations

import argparse
import os
import sys

from harness.worker.confine import die_with_parent


def main() -> int:
    """Answer stdin's questions on stdout for as long as the starter lives."""
    parser = argparse.ArgumentParser(prog="python -m harness.worker.tracer")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="the starter's pid")
    die_with_parent(parser.parse_args().parent)
    from harness.worker.tracing import main as trace_all

    return trace_all()


if __name__ == "__main__":
    sys.exit(main())
