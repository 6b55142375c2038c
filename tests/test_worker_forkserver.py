"""What the fork server asks of itself before it forks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The two calls of CUDA's driver that matter here, with the answers of the real one.
DRIVER = """
static int is_started;
int cuInit(unsigned flags) { is_started = 1; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return is_started ? 0 : 3; }
"""
ASK = """
import ctypes, sys
from harness.worker.forkserver import has_started_cuda
answers = [has_started_cuda()]
driver = ctypes.CDLL(sys.argv[1])
answers.append(has_started_cuda())
if hasattr(driver, "cuInit"):
    driver.cuInit(0)
answers.append(has_started_cuda())
print(*answers)
"""


def ask(folder: Path, source: str) -> str:
    """The answers without a driver, with its library mapped, and after it was started."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("a stand-in of CUDA's driver needs a C compiler: install gcc")
    (folder / "driver.c").write_text(source)
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(library)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_cuda_that_is_mapped_and_not_started_does_not_keep_from_forking(tmp_path):
    """torch's CUDA builds map the driver's library when they are imported."""
    assert ask(tmp_path, DRIVER) == "False False True"


def test_a_driver_that_cannot_be_asked_counts_as_started(tmp_path):
    assert ask(tmp_path, "int nothing;") == "False True True"
