"""The scripted NVML of `nvml/scripted_nvml.c`: building it, and what a process needs to find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from harness.errors import did_you_mean
from harness.text import plural

SOURCE = Path(__file__).parent / "nvml" / "scripted_nvml.c"
TRACES = SOURCE.parent / "traces"
LIBRARY = "libnvidia-ml.so.1"  # the name that pynvml opens

# What a trace's lines may begin with: as a whole, and before a dot.
KEYS = (
    "driver", "cuda", "start", "device", "slice", "name", "compute", "total_mib", "reserved_mib",
    "used_mib", "utilization", "power_mw", "energy_mj", "celsius", "sm_mhz", "memory_mhz", "throttle",
    "mig", "ecc", "ecc_uncorrected", "compute_mode",
)  # fmt: skip
PREFIXES = {
    "mark": "a phase",
    "process": "a process id, or worker",
    "fault": "a function of NVML that is scripted, or *",
    "slow": "a function of NVML that is scripted, or *",
}

UUID = "GPU-5c217ed0-0000-4000-8000-000000000001"
OTHER_UUID = "GPU-5c217ed0-0000-4000-8000-000000000002"
# An H100 as far as the harness asks; `used_mib` and processes are for each test to say.
GPU = f"""\
driver 580.65.06
cuda 13000
device {UUID}
name NVIDIA Scripted 80GB
compute 9.0
total_mib 81559
reserved_mib 912
used_mib 8
utilization 37
power_mw 250500
energy_mj 5000
celsius 61
sm_mhz 1410
memory_mhz 2619
throttle 0
mig 0
ecc 1
ecc_uncorrected 0
compute_mode 0
"""


# How a sampler says that it, or the driver, was slow. On a busy machine any run may have such a note.
OF_ITS_PACE = ("the sampler lowered itself to ", "memory was sampled ")
_READ_RARELY = " was read every "


class NoCompiler(Exception):  # noqa: N818 - a state of the machine
    """The library can't be built here: what is missing, in a sentence."""


def build_library(folder: Path) -> Path:
    """Compile the library into a folder and return that folder; skip the test without a compiler."""
    try:
        return compile_library(folder)
    except NoCompiler as error:
        pytest.skip(str(error))


def compile_library(folder: Path) -> Path:
    """Compile the library into a folder and return that folder. Raises: NoCompiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompiler("the scripted NVML needs a C compiler: install gcc")
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    command += ["-isystem", str(_headers()), "-o", str(folder / LIBRARY), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def find_trace(name: str) -> Path:
    """Return a trace of `nvml/traces` by its name, or any file. Raises: ValueError if there is neither."""
    known = {path.stem: path for path in sorted(TRACES.glob("*.trace"))}
    found = known.get(name, Path(name).resolve())
    if not found.is_file():
        raise ValueError(f"no trace {name!r}; expected a file, or one of {', '.join(known)}")
    return found


def without_pace(notes: Iterable[str]) -> list[str]:
    """A sampler's notes but for those that the machine's speed decides."""
    return [n for n in notes if not n.startswith(OF_ITS_PACE) and _READ_RARELY not in n]


def check_trace(trace: Path) -> None:
    """Raise: ValueError for a file that is no trace: the library would skip what it does not know."""
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    problems = list(_unknown(lines, trace.name))
    if not problems and not any(line.split()[:1] == ["device"] for line in lines):
        problems = [
            f"{trace.name}: no GPU; expected a line `device GPU-UUID`, and below it what it reads"
        ]
    if problems:
        more = f" (and {plural(len(problems) - 1, 'line')} more)" if problems[1:] else ""
        raise ValueError(f"{problems[0]}{more}; {SOURCE.name} says how a trace is written")


def _unknown(lines: list[str], where: str) -> Iterator[str]:
    """Say of each line that the library would skip, or never look at, why."""
    functions = set(re.findall(r"\bnvml[A-Z]\w+", SOURCE.read_text(encoding="utf-8")))
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        kind, dot, of = words[0].partition(".")
        at = f"{where}:{number}: {words[0][:80]!r}"
        if dot and kind in PREFIXES:
            known = {
                "mark": bool(of),
                "process": of.isdecimal() or of == "worker",
            }.get(kind, of == "*" or of in functions)
            if not known:
                yield f"{at} is no key of a trace; expected {kind}. and {PREFIXES[kind]}"
        elif words[0] not in KEYS:
            keys = ", ".join((*KEYS, *(f"{prefix}.…" for prefix in PREFIXES)))
            guess = did_you_mean(words[0], (*KEYS, *PREFIXES))
            yield f"{at} is no key of a trace{guess}; expected one of {keys}"
            continue
        if len(words) == 1:
            yield f"{at} has no value; expected `{words[0][:80]} VALUE`"


def variables(library: Path, script: Path, start: Path | None = None) -> dict[str, str]:
    """The environment of a process that finds the library, and with it the trace.

    `start` is a file that shares the trace's time among processes; without one each has its own.
    """
    found = {"LD_LIBRARY_PATH": str(library), "SCRIPTED_NVML": str(script)}
    shared = {"SCRIPTED_NVML_START": str(start)} if start else {}
    return {**os.environ, **found, **shared}


def _headers() -> Path:
    try:
        files = metadata.files("nvidia-nvml-dev") or []
    except metadata.PackageNotFoundError as error:
        raise NoCompiler(
            "the scripted NVML needs nvml.h: install the package nvidia-nvml-dev (extra dev)"
        ) from error
    return next(Path(str(file.locate())).parent for file in files if file.name == "nvml.h")
