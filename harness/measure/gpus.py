"""Which GPUs this machine has, as NVML lists them, and which of them CUDA would show.

Used to choose a device and to describe a machine; never imports CUDA or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.measure.nvml import Asker, Nvml, load_nvml, start_nvml


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a GPU, under the host's process id."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML describes it. `index` is NVML's, which is the PCI order."""

    index: int
    uuid: str
    name: str
    total_bytes: int | None
    driver_version: str | None
    cuda_driver_version: str | None
    is_mig_enabled: bool
    mig_uuids: tuple[str, ...]
    processes: tuple[GpuProcess, ...]


@dataclass(frozen=True)
class GpuList:
    """The GPUs of this machine, and in a sentence why there are none."""

    gpus: tuple[Gpu, ...]
    note: str | None = None


def list_gpus(nvml: Nvml | None = None) -> GpuList:
    """Describe every GPU of this machine; an empty list says why."""
    loaded, note = start_nvml(nvml) if nvml is not None else load_nvml()
    if loaded is None:
        return GpuList((), note)
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
    memory = quiet("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    mode = quiet("MIG mode", lambda: nvml.nvmlDeviceGetMigMode(handle))
    is_mig = bool(mode and mode[0])
    running = quiet("processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
    return Gpu(
        index=index,
        uuid=uuid,
        name=quiet("name", lambda: nvml.nvmlDeviceGetName(handle)) or "unnamed GPU",
        total_bytes=int(memory.total) if memory is not None else None,
        driver_version=driver,
        cuda_driver_version=cuda,
        is_mig_enabled=is_mig,
        mig_uuids=_mig_uuids(nvml, quiet, handle) if is_mig else (),
        processes=tuple(GpuProcess(int(p.pid), p.usedGpuMemory) for p in running),
    )


def _mig_uuids(nvml: Nvml, ask: Asker, handle: Any) -> tuple[str, ...]:
    count = ask("MIG slices", lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    uuids: list[str] = []
    for index in range(count):
        try:
            slice_handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            uuids.append(nvml.nvmlDeviceGetUUID(slice_handle))
        except nvml.NVMLError:
            continue  # an unused slot of the partitioning answers NotFound
    return tuple(uuids)


def visible_gpus(gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """Map CUDA_VISIBLE_DEVICES (ordinals, UUIDs or prefixes of them) to GPUs, in its order.

    Ordinals count in PCI order, as under CUDA_DEVICE_ORDER=PCI_BUS_ID. Like CUDA: unset shows all,
    the list ends before the first entry that names nothing, and a GPU named twice hides all.
    """
    if cuda_visible_devices is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for word in cuda_visible_devices.split(","):
        gpu = _named(gpus, word.strip())
        if gpu is None:
            break
        if gpu in chosen:
            return ()
        chosen.append(gpu)
    return tuple(chosen)


def _named(gpus: Sequence[Gpu], word: str) -> Gpu | None:
    if word.isdecimal():
        return next((gpu for gpu in gpus if gpu.index == int(word)), None)
    if not word.startswith(("GPU-", "MIG-")):
        return None
    matches = [g for g in gpus if any(u.startswith(word) for u in (g.uuid, *g.mig_uuids))]
    return matches[0] if len(matches) == 1 else None
