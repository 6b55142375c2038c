"""Asking the worker's code a question: in a process of its own, because that needs the ML libraries.

One JSON object goes in, JSON Lines come out. What this leaves out: what is asked, and of whom.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.errors import MachineError
from harness.frozen import Frozen
from harness.launch.local import FIXED_VARIABLES
from harness.text import harmless

M = TypeVar("M", bound=Frozen)


def ask_worker(command: Sequence[str], question: object, kind: type[M], what: str) -> list[M]:
    """Run a program on a question and read its answer; `what` is how an error calls it.

    It sees no GPU and no network: whoever answers reads folders and shapes only. Raises: MachineError
    with its last words.
    """
    answer = subprocess.run(
        list(command),
        input=json.dumps(question).encode(),
        capture_output=True,
        check=False,
        env={**os.environ, **FIXED_VARIABLES, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
    )
    code: Any = answer.returncode
    found = list[M]()
    try:
        found = [kind.model_validate_json(x) for x in answer.stdout.splitlines() if x.strip()]
    except ValidationError:
        code = code or "an answer that can't be read"
    if code != 0:
        said = [harmless(x)[:300] for x in answer.stderr.decode(errors="replace").splitlines()[-5:]]
        raise MachineError(
            f"{what} ended with {code}; it said:"
            + "".join(f"\n    {line}" for line in said)
            + "\nRun `harness doctor`."
        )
    return found
