"""Other users of a run's GPUs: what they held, and memory that was in use before the run.

NVML lists processes that compute, with their memory or without it. What is in use beyond the list, by
programs that only draw or by clients of MPS, is known by one reading alone: idle, taken before the worker
had a context. The device above idle has neither in it, as long as they hold what they held then. What
this leaves out: the other faults of a GPU (`gpu_faults`).
"""

from __future__ import annotations

import pandas as pd

from harness import text
from harness.grade_bounds import CONTEXT_BYTES, DRIVER_BYTES, FOREIGN_D, OLD_DRIVER_BYTES
from harness.grade_faults import Fault, Watch
from harness.lenses import (
    ABOVE_IDLE,
    DEVICE,
    PROCESS,
    RESERVED,
    SAMPLED,
    device_series,
    idle_by_device,
    load_begin,
)
from harness.samples import DeviceSummary

PROCESS_COLUMN = SAMPLED[PROCESS]
FOREIGN_COLUMN = "foreign_bytes"


def foreign_faults(watch: Watch, lens: str = DEVICE) -> list[Fault]:
    """Say whether others held memory on the GPUs while they trained, each GPU by what is known of it.

    Above idle, what they held before the run already is no part of the figure.
    """
    faults = [*_untold(watch, lens), *_given_back(watch, lens), *_held(watch, lens)]
    devices = _devices(watch)
    if any(device.has_trusted_pids is False for device in devices):
        stands = ", and the device above its idle baseline stands for the run"
        faults.append(
            Fault(
                "B",
                "NVML's process ids are of another namespace: other processes on the device can't be "
                f"told apart{stands if stands_above_idle(watch) else ''}.",
            )
        )
    hidden = {device.uuid: len(device.foreign_pids) for device in devices if _hides(watch, device)}
    seen = sum(hidden.values())
    if seen:
        who = "1 other process" if seen == 1 else f"{seen} other processes"
        said = f"Contaminated. {who} on the device; how much they held is not told."
        faults.append(Fault("C", said))
    apart = {device.uuid for device in devices if device.has_trusted_pids is False}
    if _gpus(watch) - apart - hidden.keys() - _most(watch).keys():
        faults.append(Fault("B", "Other processes on the device: not measured."))
    return faults


def stands_above_idle(watch: Watch) -> bool:
    """Whether memory above idle, and not the device's, is what the run is judged by.

    So it is where process ids are foreign, and where more was in use before the run than leaves a ratio of
    two peaks as it is, by nobody that is listed. Never where idle was read too late, or is gone since.
    """
    peak, idle = watch.peak(DEVICE), _known_idle(watch)
    if not peak or len(idle) < len(_gpus(watch)) or _has_gone(watch):
        return False
    is_apart = any(device.has_trusted_pids is False for device in _devices(watch))
    return is_apart or _untold_bytes(watch) > FOREIGN_D * peak


def added_by_others(watch: Watch, lens: str = ABOVE_IDLE) -> int:
    """Return the most that listed processes added to a lens while training, GPU by GPU."""
    before = _before(watch) if lens == ABOVE_IDLE else {}
    return sum(max(0, most - before.get(uuid, 0)) for uuid, most in _most(watch).items())


def _held(watch: Watch, lens: str) -> list[Fault]:
    added, peak = added_by_others(watch, lens), watch.peak(lens)
    if not added:
        return []
    said = f"Other processes held up to {text.memory(added)} on the device while it trained."
    is_large = added > FOREIGN_D * max(peak or 0, 0)
    return [Fault("D" if is_large else "C", f"Contaminated. {said}" if is_large else said)]


def _given_back(watch: Watch, lens: str) -> list[Fault]:
    """Say how much less others held in training than when idle was read, GPU by GPU."""
    rows = watch.gpu_rows
    if lens != ABOVE_IDLE or FOREIGN_COLUMN not in rows:
        return []
    least = rows.groupby("device")[FOREIGN_COLUMN].min().dropna()
    before = _before(watch)
    gone = sum(max(0, before.get(str(uuid), 0) - int(held)) for uuid, held in least.items())
    if gone <= FOREIGN_D * max(watch.peak(lens) or 0, 0):
        return []
    said = (
        f"Other processes gave back {text.memory(gone)} after idle was read: above it is too low."
    )
    return [Fault("D", said)]


def _untold(watch: Watch, lens: str) -> list[Fault]:
    """Say that more was in use before the run than listed processes and an idle driver hold."""
    before, peak = _untold_bytes(watch), watch.peak(DEVICE)
    drivers = sum(
        DRIVER_BYTES if device.memory_version == 2 else OLD_DRIVER_BYTES
        for device in _devices(watch)
    )
    if before <= max(drivers or OLD_DRIVER_BYTES, FOREIGN_D * (peak or 0)):
        return []
    said = f"{text.memory(before)} of the device were in use before the run"
    if _has_gone(watch):
        said += "; by what torch reserved they were given back since"
        return [
            Fault("D", f"{said}: above it is too low.")
            if lens == ABOVE_IDLE
            else Fault("B", f"{said}.")
        ]
    if lens == ABOVE_IDLE:
        return [Fault("B", f"{said}, by nobody that is known: above idle takes it as unchanged.")]
    return [Fault("D", f"Contaminated. {said}.")]


def _has_gone(watch: Watch) -> bool:
    """Whether what was in use before the run was given back, by what torch reserved in training.

    Above idle there would be less than that, and beside it on the device no more than a context explains.
    """
    device, above, reserved = (watch.peak(lens) for lens in (DEVICE, ABOVE_IDLE, RESERVED))
    if device is None or above is None or reserved is None or watch.sleeps or watch.first_device:
        return False
    return above < reserved <= device <= reserved + CONTEXT_BYTES + watch.pool_bytes


def _untold_bytes(watch: Watch) -> int:
    """Return what was in use before the run, less what listed processes held then, GPU by GPU."""
    before = _before(watch)
    return sum(max(0, idle - before.get(uuid, 0)) for uuid, idle in _known_idle(watch).items())


def _known_idle(watch: Watch) -> dict[str, int]:
    """Return what each GPU held before the run, of those that were read before the model was loaded."""
    devices, begin = _devices(watch), load_begin(watch.phases)
    idle = idle_by_device(watch.memory, watch.phases, devices)
    if begin is None:
        return {d.uuid: idle[d.uuid] for d in devices if d.idle_bytes is not None}
    read = device_series(watch.memory, SAMPLED[DEVICE])
    return {uuid: idle[uuid] for uuid, series in read.items() if series.index[0] <= begin}


def _before(watch: Watch) -> dict[str, int]:
    """Return what listed processes held on each GPU when it was idle; absent where that isn't known."""
    return idle_by_device(watch.memory, watch.phases, column=FOREIGN_COLUMN)


def _most(watch: Watch) -> dict[str, int]:
    """Return the most that listed processes held on each GPU while training; absent: not known."""
    rows = watch.gpu_rows
    if FOREIGN_COLUMN not in rows:
        return {}
    most = rows.groupby("device")[FOREIGN_COLUMN].max().dropna()
    return {str(uuid): int(held) for uuid, held in most.items()}


def _hides(watch: Watch, device: DeviceSummary) -> bool:
    """Whether strangers were seen whose memory NVML does not tell.

    No list ever told any of theirs, or one told the worker's own and not theirs.
    """
    rows = watch.memory[watch.memory["device"] == device.uuid]
    if not device.foreign_pids:
        return False
    if FOREIGN_COLUMN not in rows or not (rows[FOREIGN_COLUMN].fillna(0) > 0).any():
        return True
    own: pd.DataFrame = watch.gpu_rows[watch.gpu_rows["device"] == device.uuid]
    return bool((own[PROCESS_COLUMN].notna() & own[FOREIGN_COLUMN].isna()).any())


def _gpus(watch: Watch) -> set[str]:
    """Return every GPU of the run: those that the sampler noted, and those that have samples."""
    rows = watch.gpu_rows
    sampled = {str(uuid) for uuid in rows["device"]} if len(rows) else set()
    return sampled | {device.uuid for device in _devices(watch)}


def _devices(watch: Watch) -> tuple[DeviceSummary, ...]:
    return watch.sampler.devices if watch.sampler else ()
