"""The torch wheel of the CPU image, in the folder that the build mounts.

A build that finds none there takes torch from the package index, which serves the CUDA build: several
gigabytes that a CPU never uses.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.containers.base import PYTHON
from tests.containers.engine import CannotPrepare, call

ROOT = Path(__file__).parent.parent.parent
WHEELS = ROOT / "wheels"


def ensure_wheel() -> Path:
    """Return the CPU wheel of the locked torch; pip fetches it if it is not there.

    pip looks where it always does here (its configuration, PIP_FIND_LINKS), and in TORCH_CPU_INDEX.
    Raises: CannotPrepare.
    """
    version = locked_torch()
    tag = f"cp{PYTHON.replace('.', '')}"
    wanted = f"torch-{version}+cpu-{tag}-*.whl"
    found = next(WHEELS.glob(wanted), None)
    if found is not None:
        return found
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", PYTHON, "--dest", str(WHEELS), f"torch=={version}+cpu"]
    index = os.environ.get("TORCH_CPU_INDEX")
    command += ["--extra-index-url", index] if index else []
    try:
        call(command, what=f"downloading torch {version}+cpu")
    except CannotPrepare as error:
        raise CannotPrepare(
            f"no CPU wheel of torch {version} for Python {PYTHON}; expected one where pip looks "
            f"(PIP_FIND_LINKS) or in the index that TORCH_CPU_INDEX names, or put it into wheels/\n{error}"
        ) from None
    return next(WHEELS.glob(wanted))


def locked_torch() -> str:
    """The version of torch in constraints.txt, without a local part."""
    text = (ROOT / "constraints.txt").read_text()
    match = re.search(r"^torch==([^\s;+]+)", text, re.MULTILINE)
    assert match, "constraints.txt pins no torch"
    return match[1]
