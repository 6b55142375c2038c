"""NVML through `pynvml`: what a GPU, found by its UUID, reads at an instant.

Memory is read at every sample, that of the worker's processes too where the driver lists them
quickly: a phase may be over within a second, and its peak with it. The rest is read once a second: it
updates no faster, and the energy counter alone takes milliseconds. A reading that can't be had is None and
leaves one note; nothing here raises for a missing library, driver, permission or lost device.
What this leaves out: NVLink and per-process utilisation; listing GPUs is in `gpus`.
"""

# The protocol below carries the names of the module that it describes.
# ruff: noqa: D102, N802, N815

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from harness.measure.sources import Sample

SLOW_S = 1.0
# A list of processes holds a lock of the whole driver: 33 µs on one machine, milliseconds on another.
QUICK_S = 0.001
SLOW_LISTS = 3  # in a row: one alone can be the scheduler's doing
# NVML's return codes (nvml.h, nvmlReturn_t).
_UNSUPPORTED = {
    2: "invalid argument", 3: "not supported", 4: "no permission", 13: "not in this driver",
}  # fmt: skip
_FATAL = {
    1: "NVML was shut down", 9: "the driver is not loaded", 15: "the GPU was lost",
    16: "the GPU needs a reset", 18: "driver and library versions differ",
    999: "unknown NVML error",
}  # fmt: skip
_SENSOR_GPU, _CLOCK_SM = 0, 1  # nvmlTemperatureSensors_t, nvmlClockType_t
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
        return None, Absence(f"no NVML: {error}", getattr(error, "value", None))
    return nvml, None


class Asker:
    """Calls NVML: an error becomes None and one note, and what can't ever answer is asked once."""

    def __init__(self, nvml: Nvml) -> None:
        self._error = nvml.NVMLError
        self._dropped: set[str] = set()
        self._notes: dict[str, None] = {}  # a set that keeps its order
        self._is_lost = False

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each thing that could not be read."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        self._notes[sentence] = None

    def __call__(self, what: str, call: Callable[[], T]) -> T | None:
        """Return what the call returns, or None."""
        if self._is_lost or what in self._dropped:
            return None
        try:
            return call()
        except self._error as error:
            code = getattr(error, "value", None)
            if code in _FATAL:
                self._is_lost = True
                self.note(f"GPU readings end: {_FATAL[code]} (NVML error {code}, at {what})")
            elif code in _UNSUPPORTED:
                self._dropped.add(what)
                self.note(f"{what} not measured: {_UNSUPPORTED[code]}")
            else:
                self.note(f"{what} missing at times: NVML error {code}")
            return None


def has_host_pids() -> bool:
    """Whether process ids here are the host's, which are the ones that NVML reports."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


class NvmlSource:
    """One GPU, or one MIG slice, found by its UUID."""

    name = "nvml"

    def __init__(
        self,
        nvml: Nvml,
        uuid: str,
        tree_pids: Callable[[], frozenset[int]],
        is_pid_trusted: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml, self._clock = nvml, clock
        self.uuid = uuid
        self._tree_pids = tree_pids
        self._ask = Asker(nvml)
        self._lenses: dict[str, None] = {}
        self._slow_at: float | None = None
        self._lists_quickly = True
        self._slow_lists = 0  # in a row
        self._version: int | None = nvml.nvmlMemory_v2
        self._handle = self._ask(f"GPU {uuid}", lambda: nvml.nvmlDeviceGetHandleByUUID(uuid))
        self._is_pid_trusted = has_host_pids() if is_pid_trusted is None else is_pid_trusted
        if not self._is_pid_trusted:
            self._ask.note("NVML process memory not measured: in a container NVML counts host pids")
        if self._handle is not None:
            self._choose_memory_version()

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read, and which memory figure this is."""
        return self._ask.notes

    @property
    def lenses(self) -> tuple[str, ...]:
        """`nvml-device` and `nvml-process`, once each has given a value."""
        return tuple(self._lenses)

    def read(self, t_ns: int) -> list[Sample]:
        """Return the GPU's sample; every field is None once the GPU can't be read."""
        if self._handle is None:
            return []
        sample = Sample(t_ns, self.uuid, nvml_device_bytes=self._device_bytes())
        now = self._clock()
        is_second = self._slow_at is None or now - self._slow_at >= SLOW_S
        if self._is_pid_trusted and (is_second or self._lists_quickly):
            sample = sample._replace(nvml_process_bytes=self._process_bytes())
            self._judge_list(self._clock() - now)
        if is_second:
            self._slow_at = now
            sample = self._with_slow_readings(sample)
        return [sample]

    def _judge_list(self, took_s: float) -> None:
        """Stop listing processes at every sample once several lists in a row were slow."""
        self._slow_lists = self._slow_lists + 1 if took_s > QUICK_S else 0
        if self._lists_quickly and self._slow_lists >= SLOW_LISTS:
            self._lists_quickly = False
            self._ask.note(
                f"NVML process memory is read once a second: a list of processes took {took_s * 1e3:.1f} ms"
            )

    def _choose_memory_version(self) -> None:
        # Version 1 counts memory that the driver keeps for itself as used: 912 MB against 8 MB on
        # an idle A100. Older drivers have no version 2.
        nvml, handle = self._nvml, self._handle
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=self._version)
        except nvml.NVMLError:
            if self._ask("NVML device memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle)):
                self._version = None
                self._ask.note(
                    "NVML device memory is version 1: it includes the driver's reservation"
                )
            return
        parts = int(memory.used) + int(memory.free) + int(memory.reserved)
        if abs(parts - int(memory.total)) > 0.01 * int(memory.total):
            self._ask.note(
                f"NVML memory does not add up: used + free + reserved is {parts} bytes, "
                f"total {int(memory.total)}"
            )

    def _device_bytes(self) -> int | None:
        memory = self._ask(
            "NVML device memory",
            lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._version),
        )
        if memory is None:
            return None
        self._lenses["nvml-device"] = None
        return int(memory.used)

    def _with_slow_readings(self, sample: Sample) -> Sample:
        nvml, handle, ask = self._nvml, self._handle, self._ask
        rates = ask("utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power_mw = ask("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy_mj = ask("energy", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        celsius = ask("temperature", lambda: nvml.nvmlDeviceGetTemperature(handle, _SENSOR_GPU))
        clock_mhz = ask("SM clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))
        return sample._replace(
            utilization_percent=None if rates is None else float(rates.gpu),
            power_w=None if power_mw is None else power_mw / 1000,
            energy_j=None if energy_mj is None else energy_mj / 1000,
            temperature_c=None if celsius is None else float(celsius),
            sm_clock_mhz=None if clock_mhz is None else float(clock_mhz),
        )

    def _process_bytes(self) -> int | None:
        running = self._ask(
            "NVML process memory",
            lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle),
        )
        pids = self._tree_pids()
        own = [p.usedGpuMemory for p in running or () if p.pid in pids]
        if not own or any(used is None for used in own):
            return None  # not listed (no CUDA context yet), or listed without a figure
        self._lenses["nvml-process"] = None
        return sum(int(used) for used in own)
