"""Which GPUs this machine has, as NVML lists them, and which of them CUDA would show.

Used to choose a device and to describe a machine; never imports CUDA or torch. The driver is asked by a
process of its own (`python -m harness.measure.gpus`): where a GPU has failed a call may never return, and
whoever made it could not even be killed.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from harness.measure.nvml import Asker, Nvml, errors_of, load_nvml, start_nvml

T = TypeVar("T")
# nvmlComputeMode_t, nvmlMemoryErrorType_t, nvmlEccCounterType_t (nvml.h).
_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
_UNCORRECTED, _SINCE_DRIVER_LOAD = 1, 0
_LIBRARY = "libnvidia-ml.so.1"  # the name that pynvml opens
# Without persistence mode a driver wakes every GPU first, some seconds each.
ANSWER_S = 60.0


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a GPU, under the host's process id."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class MigSlice:
    """A part of a partitioned GPU; CUDA gives a process one."""

    uuid: str
    name: str | None
    total_bytes: int | None
    used_bytes: int | None = None
    free_bytes: int | None = None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML describes it. `index` is NVML's, which is the PCI order; None: not told."""

    index: int
    uuid: str
    name: str
    total_bytes: int | None
    driver_version: str | None
    cuda_driver_version: str | None
    is_mig_enabled: bool
    mig_uuids: tuple[str, ...]
    processes: tuple[GpuProcess, ...]
    used_bytes: int | None = (
        None  # by processes; the driver's reservation left out where it is told
    )
    free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    compute_mode: str | None = None
    is_ecc_enabled: bool | None = None
    ecc_uncorrected: int | None = None  # errors since the driver was loaded
    mig_slices: tuple[MigSlice, ...] = ()
    parent_uuid: str | None = None  # of a MIG slice: the GPU that it and `mig_slices` are parts of

    def part(self, chosen: MigSlice) -> Gpu:
        """Return a slice of this GPU as what a run has: its own memory, name and processes."""
        return replace(
            self,
            uuid=chosen.uuid,
            name=chosen.name or f"MIG slice of {self.name}",
            total_bytes=chosen.total_bytes,
            used_bytes=chosen.used_bytes,
            free_bytes=chosen.free_bytes,
            processes=chosen.processes,
            mig_uuids=(),
            parent_uuid=self.uuid,
        )

    @property
    def as_shown(self) -> Gpu:
        """What CUDA shows of it: itself, or its first slice where it is cut into some."""
        return self.part(self.mig_slices[0]) if self.mig_slices else self


@dataclass(frozen=True)
class GpuList:
    """The GPUs of this machine, and in a sentence why there are none."""

    gpus: tuple[Gpu, ...]
    note: str | None = None
    nvml_error: int | None = None  # NVML's return code, where NVML would not start


def list_gpus(answer_s: float = ANSWER_S) -> GpuList:
    """Describe every GPU of this machine; an empty list says why, a driver that gives no answer too."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return describe_gpus()
    command = [sys.executable, "-m", "harness.measure.gpus"]
    asked = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        answer, _ = asked.communicate(timeout=answer_s)
    except subprocess.TimeoutExpired:
        note = (
            f"no NVML: the GPU's driver gave no answer within {answer_s:g} s; a GPU may have failed"
        )
        return GpuList((), note)
    finally:
        _let_go(asked)
    if asked.returncode:
        return GpuList((), f"no NVML: listing GPUs ended with exit status {asked.returncode}")
    return _read(json.loads(answer))


def _let_go(asked: subprocess.Popen[bytes]) -> None:
    """End a process without waiting long: one that sits in the driver does not even hear SIGKILL."""
    if asked.poll() is None:
        asked.kill()
        with suppress(subprocess.TimeoutExpired):
            asked.wait(1)
    if asked.stdout:
        asked.stdout.close()


def _read(told: Mapping[str, Any]) -> GpuList:
    gpus = []
    for each in told["gpus"]:
        slices = tuple(_with_processes(MigSlice, part) for part in each["mig_slices"])
        capability = each["compute_capability"]
        more = {
            "mig_slices": slices,
            "mig_uuids": tuple(each["mig_uuids"]),
            "compute_capability": tuple(capability) if capability else None,
        }
        gpus.append(_with_processes(Gpu, each | more))
    return GpuList(tuple(gpus), told["note"], told["nvml_error"])


def _with_processes(kind: type[T], told: Mapping[str, Any]) -> T:
    processes = tuple(GpuProcess(**each) for each in told["processes"])
    return kind(**{**told, "processes": processes})


def describe_gpus(nvml: Nvml | None = None) -> GpuList:
    """Ask the driver, in this process and for as long as it takes."""
    loaded, absence = start_nvml(nvml) if nvml is not None else load_nvml()
    if loaded is None or absence is not None:
        return GpuList((), absence.note if absence else None, absence.code if absence else None)
    ask = Asker(loaded)
    count = ask("the number of GPUs", loaded.nvmlDeviceGetCount) or 0
    driver = ask("driver version", loaded.nvmlSystemGetDriverVersion)
    cuda = ask("CUDA version", loaded.nvmlSystemGetCudaDriverVersion)
    cuda_text = f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None
    gpus: list[Gpu] = []
    notes = list(ask.notes)
    for index in range(count):
        ask_one = Asker(loaded)  # its own, so that one lost GPU does not silence the others
        gpu = _describe(loaded, ask_one, index, driver, cuda_text)
        gpus += [gpu] if gpu is not None else []
        notes += ask_one.notes
    if not gpus and not notes:
        notes.append("NVML lists no GPU")
    return GpuList(tuple(gpus), "; ".join(notes) or None)


def _describe(
    nvml: Nvml, ask: Asker, index: int, driver: str | None, cuda: str | None
) -> Gpu | None:
    handle = ask(f"GPU {index}", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return None
    uuid = ask(f"UUID of GPU {index}", lambda: nvml.nvmlDeviceGetUUID(handle))
    if uuid is None:
        return None
    quiet = Asker(nvml)  # what a GPU does not support is no news in a listing
    memory = _memory(nvml, quiet, handle)
    mode = quiet("MIG mode", lambda: nvml.nvmlDeviceGetMigMode(handle))
    slices = _mig_slices(nvml, quiet, handle) if mode and mode[0] else ()
    capability = quiet("capability", lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    computes = quiet("compute mode", lambda: nvml.nvmlDeviceGetComputeMode(handle))
    ecc = quiet("ECC mode", lambda: nvml.nvmlDeviceGetEccMode(handle))
    return Gpu(
        index=index,
        uuid=uuid,
        name=quiet("name", lambda: nvml.nvmlDeviceGetName(handle)) or "unnamed GPU",
        total_bytes=int(memory.total) if memory is not None else None,
        driver_version=driver,
        cuda_driver_version=cuda,
        is_mig_enabled=bool(mode and mode[0]),
        mig_uuids=tuple(s.uuid for s in slices),
        processes=_processes(nvml, quiet, handle),
        used_bytes=int(memory.used) if memory is not None else None,
        free_bytes=int(memory.free) if memory is not None else None,
        compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
        compute_mode=_COMPUTE_MODES.get(computes) if computes is not None else None,
        is_ecc_enabled=bool(ecc[0]) if ecc else None,
        ecc_uncorrected=_ecc_errors(nvml, quiet, handle) if ecc and ecc[0] else None,
        mig_slices=slices,
    )


def _memory(nvml: Nvml, ask: Asker, handle: Any) -> Any:
    """Version 2, which leaves the driver's own memory out of `used`; version 1 on an old driver."""
    version = nvml.nvmlMemory_v2
    memory = ask("memory v2", lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=version))
    return memory or ask("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))


def _ecc_errors(nvml: Nvml, ask: Asker, handle: Any) -> int | None:
    return ask(
        "ECC errors",
        lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED, _SINCE_DRIVER_LOAD),
    )


def _mig_slices(nvml: Nvml, ask: Asker, handle: Any) -> tuple[MigSlice, ...]:
    count = ask("MIG slices", lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    slices: list[MigSlice] = []
    for index in range(count):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            uuid = nvml.nvmlDeviceGetUUID(part)
        except errors_of(nvml):
            continue  # an unused slot of the partitioning answers NotFound
        slices.append(_mig_slice(nvml, part, uuid))
    return tuple(slices)


def _mig_slice(nvml: Nvml, part: Any, uuid: str) -> MigSlice:
    ask = Asker(nvml)
    memory = _memory(nvml, ask, part)
    return MigSlice(
        uuid=uuid,
        name=ask("name", lambda: nvml.nvmlDeviceGetName(part)),
        total_bytes=int(memory.total) if memory is not None else None,
        used_bytes=int(memory.used) if memory is not None else None,
        free_bytes=int(memory.free) if memory is not None else None,
        processes=_processes(nvml, ask, part),
    )


def _processes(nvml: Nvml, ask: Asker, handle: Any) -> tuple[GpuProcess, ...]:
    running = ask("processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
    return tuple(GpuProcess(int(p.pid), p.usedGpuMemory) for p in running)


def visible_gpus(gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """Map CUDA_VISIBLE_DEVICES (ordinals, UUIDs, MIG ids, or prefixes of them) to GPUs, in its order.

    A MIG id is the slice itself; a GPU that is cut into slices shows its first. Ordinals count in PCI
    order, as under CUDA_DEVICE_ORDER=PCI_BUS_ID. Like CUDA: unset shows all, the list ends before the
    first entry that names nothing, and a GPU named twice hides all. Unlike CUDA, which gives a process
    one slice at most, several are shown: each is a place for a run of its own.
    """
    if cuda_visible_devices is None:
        return tuple(gpu.as_shown for gpu in gpus)
    chosen: list[Gpu] = []
    for word in cuda_visible_devices.split(","):
        named = named_gpus(gpus, word.strip())
        if len(named) != 1:
            break
        if named[0] in chosen:
            return ()
        chosen += named
    return tuple(chosen)


def named_gpus(gpus: Sequence[Gpu], word: str) -> list[Gpu]:
    """List what an entry of CUDA_VISIBLE_DEVICES fits; CUDA takes it for one of them, or for none."""
    if word.isdecimal():
        return [gpu.as_shown for gpu in gpus if gpu.index == int(word)]
    if word.startswith("GPU-"):
        return [gpu.as_shown for gpu in gpus if gpu.uuid.startswith(word)]
    if word.startswith("MIG-"):
        slices = [(gpu, part) for gpu in gpus for part in gpu.mig_slices]
        return [gpu.part(part) for gpu, part in slices if part.uuid.startswith(word)]
    return []


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(describe_gpus())))
