"""What benchmarks/speed measures is stored as its own seconds, and compared with what was stored last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEST = """\
import pytest
from benchmarks.speed.recorded import CLOCK, record

@pytest.mark.benchmark(timer=CLOCK, group="g")
def test_it(benchmark):
    record(benchmark, [0.5, 0.25, 0.1], ratio=1.5)
"""


@pytest.mark.slow
def test_measured_seconds_are_stored_and_compared(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(TEST)
    words = [
        *(sys.executable, "-m", "pytest", str(tmp_path / "test_it.py"), "-p", "no:cacheprovider"),
        *(
            "-W",
            "default::pytest.PytestWarning",
            f"--rootdir={ROOT}",
            f"--config-file={ROOT}/pyproject.toml",
        ),
        *("-m", "", "--benchmark-autosave", "--benchmark-save-data", "--benchmark-compare"),
        f"--benchmark-storage=file://{tmp_path / 'stored'}",
    ]
    # Beside other tests, what pytest-xdist tells its workers would switch benchmarks off.
    variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    first, second = (
        subprocess.run(
            words, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert "test_it (NOW)" not in first
    assert "test_it (NOW)" in second
    stored = json.loads(next((tmp_path / "stored").glob("*/0002_*.json")).read_text())
    assert stored["benchmarks"][0]["stats"]["data"] == [0.5, 0.25, 0.1]
    assert stored["benchmarks"][0]["extra_info"] == {"ratio": 1.5}


@pytest.mark.parametrize(("target", "compares"), [("speed", False), ("speed-compare", True)])
def test_make_stores_in_one_place(target, compares):
    told = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "-o", ".venv/.installed", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--benchmark-storage=file://.benchmarks" in told
    assert "--benchmark-autosave" in told
    assert ("--benchmark-compare" in told) is compares
