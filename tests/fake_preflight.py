"""A preflight that reads nothing: the contract of `harness.worker.preflight`, and misbehaviour.

FAKE_PREFLIGHT: absent is a note a run; problem · crash · babble.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

question = json.load(sys.stdin)
mode = os.environ.get("FAKE_PREFLIGHT", "")
for folder in question["places"].values():
    assert Path(folder).is_dir()
if mode == "crash":
    sys.exit("no such library")
if mode == "babble":
    print("hello")
for spec in question["specs"]:
    cell = f"{spec['pair']}.{spec['arm']}.s{spec['seed']}"
    kind = "problem" if mode == "problem" else "note"
    what = f"column 'question' is missing from {spec['dataset']['name']}"
    print(json.dumps({"kind": kind, "cell": cell, "what": what}))
