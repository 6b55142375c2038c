"""NVML through `pynvml`: starting it, asking it, and what its errors mean.

A reading that can't be had is None and leaves one note; nothing here raises for a missing library, driver,
permission or lost device. What this leaves out: what one GPU reads (`device`), whose memory it is
(`tenants`), listing GPUs (`gpus`); NVLink and per-process utilisation.
"""

# The protocol below carries the names of the module that it describes.
# ruff: noqa: D102, N802, N815

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

# NVML's return codes (nvml.h, nvmlReturn_t).
_UNSUPPORTED = {
    2: "the driver refuses the question", 3: "this GPU does not support it",
    4: "no permission to read it", 13: "this driver does not know it",
}  # fmt: skip
_NO_FUNCTION = 13
_FATAL = {
    1: "NVML was shut down", 9: "the driver is not loaded", 15: "the GPU was lost",
    16: "the GPU needs a reset", 18: "driver and library versions differ",
    999: "unknown NVML error",
}  # fmt: skip
# The inode of the first PID namespace is a constant of the kernel (PROC_PID_INIT_INO).
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"

T = TypeVar("T")


class Nvml(Protocol):
    """The part of the module `pynvml` that is used; a test's fake stands here."""

    NVMLError: type[Exception]
    nvmlMemory_v2: int

    def nvmlInit(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str: ...
    def nvmlSystemGetCudaDriverVersion(self) -> int: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...
    def nvmlDeviceGetName(self, handle: Any) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int | None = None) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetComputeMode(self, handle: Any) -> int: ...
    def nvmlDeviceGetEccMode(self, handle: Any) -> Sequence[int]: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Any, error: int, counter: int) -> int: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Any, clock: int) -> int: ...
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...


@dataclass(frozen=True)
class Absence:
    """Why NVML can't be used: a sentence, and NVML's return code where it gave one."""

    note: str
    code: int | None = None


def load_nvml() -> tuple[Nvml | None, Absence | None]:
    """Import pynvml and start NVML; return it, or None and the reason."""
    try:
        nvml = cast(Nvml, importlib.import_module("pynvml"))
    except ImportError:
        return None, Absence("no NVML: the package nvidia-ml-py is not installed")
    return start_nvml(nvml)


def start_nvml(nvml: Nvml) -> tuple[Nvml | None, Absence | None]:
    """Initialise NVML; return it, or None and the reason."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        code = getattr(error, "value", None)
        why = f"{_FATAL[code]} (NVML error {code})" if code in _FATAL else str(error)
        return None, Absence(f"no NVML: {why}", code)
    return nvml, None


def errors_of(nvml: Nvml) -> tuple[type[Exception], ...]:
    """Return what calls raise: NVML's error, and pynvml's own where a driver lacks a newer function."""
    return (nvml.NVMLError, getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError))


def code_of(error: Exception) -> int:
    """Return NVML's return code of an error; pynvml's own is that of a function that is not there."""
    return int(getattr(error, "value", _NO_FUNCTION))


class Asker:
    """Calls NVML: an error becomes None and one note, and what can't ever answer is asked once."""

    def __init__(self, nvml: Nvml) -> None:
        self._errors = errors_of(nvml)
        self._answered: set[str] = set()
        self._dropped: set[str] = set()
        self._notes: dict[str, None] = {}  # a set that keeps its order
        self.lost_because: str | None = None  # the GPU answers nothing more

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that could not be read."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        self._notes[sentence] = None

    def knows(self, what: str) -> bool | None:
        """Whether something was ever told; None while it was neither told nor refused."""
        return True if what in self._answered else False if what in self._dropped else None

    def __call__(self, what: str, call: Callable[[], T]) -> T | None:
        """Return what the call returns, or None."""
        if self.lost_because is not None or what in self._dropped:
            return None
        try:
            answer = call()
        except self._errors as error:
            self.refused(what, error)
            return None
        self._answered.add(what)
        return answer

    def answered(self, what: str) -> None:
        """Take note that something was told."""
        self._answered.add(what)

    def refused(self, what: str, error: Exception) -> None:
        """Take in an NVML error: a note, and no more questions where they are in vain."""
        code = code_of(error)
        if code in _FATAL:
            self.lost_because = f"{_FATAL[code]} (NVML error {code})"
            self.note(f"GPU readings ended: {self.lost_because}; the run went on without them")
        elif code in _UNSUPPORTED and what in self._answered:
            self._dropped.add(what)
            self.note(
                f"{what} ended in mid-run: {_UNSUPPORTED[code]}; what was read until then is kept"
            )
        elif code in _UNSUPPORTED:
            self._dropped.add(what)
            self.note(f"{what} not measured: {_UNSUPPORTED[code]}")
        else:
            self.note(f"{what} missing at times: NVML error {code}")


def memory_reader(nvml: Nvml, handle: Any, version: int | None) -> Callable[[], tuple[int, int]]:
    """Return a function that reads a GPU's memory in use and its total, bytes. It raises as pynvml does.

    For the reading of every sample. pynvml's own function makes a structure and looks up the library's at
    each call, which with cold caches takes as long as the call. Here both come from pynvml once; where it
    does not show them, its own function is called.
    """
    try:
        shown: Any = nvml
        memory = shown.c_nvmlMemory_v2_t() if version else shown.c_nvmlMemory_t()
        call = getattr(shown.nvmlLib, f"nvmlDeviceGetMemoryInfo{'_v2' if version else ''}")
    except AttributeError:
        return lambda: _memory_of(nvml.nvmlDeviceGetMemoryInfo(handle, version))
    if version:
        memory.version = version
    place, error = ctypes.byref(memory), nvml.NVMLError

    def read() -> tuple[int, int]:
        if code := call(handle, place):
            raise error(code)
        return memory.used, memory.total

    return read


def _memory_of(memory: Any) -> tuple[int, int]:
    return int(memory.used), int(memory.total)


def has_host_pids() -> bool:
    """Whether process ids here are the host's, which are the ones that NVML reports."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False
