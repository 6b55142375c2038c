"""A pynvml with scripted GPUs, to stand where the module does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 2**30


@dataclass
class FakeNvml:
    """A pynvml with scripted GPUs; `faults` maps a function's name to an NVML error code."""

    uuids: tuple[str, ...] = ("GPU-aaaa", "GPU-abbb")
    faults: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    used: int = 3 * GIB
    reserved: int = GIB
    processes: list[Any] = field(default_factory=list)
    mig: tuple[str, ...] = ()
    capability: tuple[int, int] = (9, 0)
    compute_mode: int = 0
    ecc_errors: int | None = 0  # None: ECC is off
    throttle: int = 4
    NVMLError: type[Exception] = pynvml.NVMLError
    nvmlMemory_v2: int = 0x02000028  # noqa: N815 - pynvml's name

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = getattr(type(self), "answer_" + name.removeprefix("nvml"))

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if name in self.faults:
                raise pynvml.NVMLError(self.faults[name])
            return answer(self, *arguments, **options)

        return call

    def answer_Init(self):
        return None

    def answer_SystemGetDriverVersion(self):
        return "580.65"

    def answer_SystemGetCudaDriverVersion(self):
        return 13000

    def answer_DeviceGetCount(self):
        return len(self.uuids)

    def answer_DeviceGetHandleByIndex(self, index):
        return self.uuids[index]

    def answer_DeviceGetHandleByUUID(self, uuid):
        if uuid not in self.uuids:
            raise pynvml.NVMLError(6)
        return uuid

    def answer_DeviceGetUUID(self, handle):
        return handle

    def answer_DeviceGetName(self, handle):
        return "NVIDIA Fake"

    def answer_DeviceGetMemoryInfo(self, handle, version=None):
        total = 80 * GIB
        if version is None:  # version 1 counts the driver's reservation as used
            used = self.used + self.reserved
            return SimpleNamespace(total=total, used=used, free=total - used)
        if "v2" in self.faults:
            raise pynvml.NVMLError(self.faults["v2"])
        free = total - self.used - self.reserved
        return SimpleNamespace(total=total, used=self.used, free=free, reserved=self.reserved)

    def answer_DeviceGetComputeRunningProcesses(self, handle):
        return self.processes

    def answer_DeviceGetMigMode(self, handle):
        return [int(bool(self.mig)), 0]

    def answer_DeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def answer_DeviceGetMigDeviceHandleByIndex(self, handle, index):
        if index >= len(self.mig):
            raise pynvml.NVMLError(6)
        return self.mig[index]

    def answer_DeviceGetCudaComputeCapability(self, handle):
        return self.capability

    def answer_DeviceGetComputeMode(self, handle):
        return self.compute_mode

    def answer_DeviceGetEccMode(self, handle):
        return [int(self.ecc_errors is not None), 0]

    def answer_DeviceGetTotalEccErrors(self, handle, error, counter):
        assert (error, counter) == (
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        )
        return self.ecc_errors

    def answer_DeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=42, memory=7)

    def answer_DeviceGetPowerUsage(self, handle):
        return 250_000

    def answer_DeviceGetTotalEnergyConsumption(self, handle):
        return 5_000

    def answer_DeviceGetTemperature(self, handle, sensor):
        return 61

    def answer_DeviceGetClockInfo(self, handle, clock):
        return {pynvml.NVML_CLOCK_SM: 1410, pynvml.NVML_CLOCK_MEM: 2619}[clock]

    def answer_DeviceGetCurrentClocksEventReasons(self, handle):
        return self.throttle

    def answer_DeviceGetCurrentClocksThrottleReasons(self, handle):
        return self.throttle


def process(pid: int, used: int | None) -> Any:
    """A process as NVML lists it."""
    return SimpleNamespace(pid=pid, usedGpuMemory=used)
