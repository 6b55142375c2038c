"""What lowers the grade of a run on a GPU: other processes, throttling, drifting clocks, a lost device.

And lenses that contradict one another: NVML must read at least what torch says it reserved, and no
more above it than context, libraries and a pool explain. Where NVML's process ids are of another
namespace, others can't be told apart, and the device above its idle baseline stands for the run.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from harness import text
from harness.grade_bounds import (
    BEYOND_C,
    CAPPED_B,
    CAPPED_BITS,
    COMMUNICATION_BYTES,
    CONTEXT_BYTES,
    DRIFT_B,
    DRIFT_C,
    DRIFT_FIFTH,
    FOREIGN_D,
    SHORT_B,
    SHORT_C,
    SHORT_D,
    SHORT_SLACK_BYTES,
    SLOWED_B,
    SLOWED_BITS,
    SLOWED_C,
    UNTOLD_BYTES,
)
from harness.grade_faults import Fault, Watch
from harness.lenses import (
    ABOVE_IDLE,
    DEVICE,
    LENS_NAMES,
    PROCESS,
    RESERVED,
    SAMPLED,
    TRAINING,
)
from harness.samples import DeviceSummary


def foreign_faults(watch: Watch, lens: str = DEVICE) -> list[Fault]:
    """Say whether other processes held memory on the device while it trained.

    Above idle, what they held before the run already is no part of the figure.
    """
    devices = _devices(watch)
    if any(device.has_trusted_pids is False for device in devices):
        return [
            *_untold(watch, lens),
            Fault(
                "B",
                "NVML's process ids are of another namespace: other processes on the device can't be "
                "told apart, and the device above its idle baseline stands for the run.",
            ),
        ]
    most, peak = _most_foreign(watch, lens), watch.peak(DEVICE)
    if most is None:
        seen = sum(len(device.foreign_pids) for device in devices)
        if not seen:
            return [Fault("B", "Other processes on the device: not measured.")]
        who = "1 other process" if seen == 1 else f"{seen} other processes"
        return [Fault("C", f"Contaminated. {who} on the device; how much they held is not told.")]
    if not most:
        return []
    said = f"Other processes held up to {text.memory(most)} on the device while it trained."
    is_large = not peak or most > FOREIGN_D * peak
    return [Fault("D" if is_large else "C", f"Contaminated. {said}" if is_large else said)]


def _most_foreign(watch: Watch, lens: str) -> int | None:
    """Return the most that others added to a lens while training, GPU by GPU; None if not known."""
    rows = watch.gpu_rows
    if "foreign_bytes" not in rows:
        return None
    most = {str(uuid): part["foreign_bytes"].max() for uuid, part in rows.groupby("device")}
    known = {uuid: int(value) for uuid, value in most.items() if pd.notna(value)}
    before = {d.uuid: d.idle_bytes or 0 for d in _devices(watch)} if lens == ABOVE_IDLE else {}
    added = sum(max(0, value - before.get(uuid, 0)) for uuid, value in known.items())
    return added if added or (known and len(known) == len(most)) else None


def _untold(watch: Watch, lens: str) -> list[Fault]:
    """Say that the device's figure holds what was in use before the run, by nobody that is known."""
    before, peak = sum(d.idle_bytes or 0 for d in _devices(watch)), watch.peak(DEVICE)
    if lens != DEVICE or before <= max(UNTOLD_BYTES, FOREIGN_D * (peak or 0)):
        return []
    said = f"Contaminated. {text.memory(before)} of the device were in use before the run."
    return [Fault("D", said)]


def throttle_faults(watch: Watch) -> list[Fault]:
    """Say for how much of training the GPU was slowed down, by heat or hardware, or capped in power."""
    rows = watch.gpu_rows
    masks = rows["throttle_reasons"].dropna() if "throttle_reasons" in rows else ()
    if not len(masks):
        return [Fault("B", "Throttling: not measured.")]
    bits = [int(mask) for mask in masks]
    slowed = sum(bool(mask & SLOWED_BITS) for mask in bits) / len(bits)
    capped = sum(bool(mask & CAPPED_BITS) for mask in bits) / len(bits)
    faults = []
    if slowed > SLOWED_B:
        said = (
            f"Slowed down by heat or hardware in {text.share(slowed)} of the samples of training."
        )
        faults.append(Fault("C" if slowed > SLOWED_C else "B", said))
    if capped > CAPPED_B:
        said = f"Held at its power cap in {text.share(capped)} of the samples of training."
        faults.append(Fault("B", said))
    return faults


def clock_faults(watch: Watch) -> list[Fault]:
    """Say that the SM clock of the end of training is not that of its begin, the worst of several GPUs."""
    spans = watch.spans
    rows = watch.gpu_rows
    if not spans or "sm_clock_mhz" not in rows:
        return [Fault("B", "Drift of the clock: not measured.")]
    begin, end = spans[0][0], spans[-1][1]
    fifth = (end - begin) * DRIFT_FIFTH
    drifts = []
    for _, part in rows[rows["sm_clock_mhz"].notna()].groupby("device"):
        first = part[part["t_ns"] <= begin + fifth]["sm_clock_mhz"].mean()
        last = part[part["t_ns"] >= end - fifth]["sm_clock_mhz"].mean()
        if pd.notna(first) and pd.notna(last) and first > 0:
            drifts.append((abs(last / first - 1), first, last))
    if not drifts:
        return [Fault("B", "Drift of the clock: not measured.")]
    drift, first, last = max(drifts)
    if drift <= DRIFT_B:
        return []
    said = (
        f"The SM clock went from {first:.0f} to {last:.0f} MHz between the first and the last fifth "
        "of training."
    )
    return [Fault("C" if drift > DRIFT_C else "B", said)]


def device_faults(watch: Watch, lens: str) -> list[Fault]:
    """Say that a device was lost, or that its query counts the driver's own memory as used."""
    spans = watch.spans
    faults = []
    for device in _devices(watch):
        if device.lost_ns is not None:
            because = f" ({device.lost_because.rstrip('.')})" if device.lost_because else ""
            is_over = bool(spans) and device.lost_ns > spans[-1][1]
            when = "after training" if is_over else "before training was over"
            faults.append(
                Fault("C" if is_over else "D", f"The GPU answered nothing more, {when}{because}.")
            )
        if lens == DEVICE and device.memory_version != 2:
            said = (
                "An old driver's memory query: what the driver keeps for itself counts as used."
                if device.memory_version == 1
                else "The version of the driver's memory query: not measured."
            )
            faults.append(Fault("B", said))
    return _with_unknown(watch, [*faults, *_silent(watch, lens)])


def _silent(watch: Watch, lens: str) -> list[Fault]:
    """Say that of several GPUs one gave nothing: the sum is then of the others."""
    column = SAMPLED[PROCESS if lens == PROCESS else DEVICE]
    every, rows = {d.uuid for d in _devices(watch)}, watch.gpu_rows
    if len(every) < 2 or column not in rows:
        return []
    told = every & set(rows[rows[column].notna()]["device"])
    if len(told) == len(every):
        return []
    said = f"{_name(lens)} is that of {len(told)} of {len(every)} GPUs: the others gave none in training."
    return [Fault("D", said)]


def disagreement(watch: Watch, lens: str) -> list[Fault]:
    """Hold NVML against torch's reservation: never less, and no more than is explained above it.

    Of several GPUs the first alone, which is the one that torch's counters speak of.
    """
    by_lens = watch.first_device or watch.statistics
    compared = PROCESS if PROCESS in by_lens and lens == PROCESS else ABOVE_IDLE
    seen = by_lens.get(compared, {}).get(TRAINING)
    reserved = watch.peak(RESERVED)
    if seen is None or not reserved:
        return []
    if watch.sleeps:
        return [
            Fault("B", "Beside a vLLM that sleeps torch's counters can't be held against NVML.")
        ]
    return _short(seen.peak_bytes, reserved, compared) or _beyond(
        watch, seen.peak_bytes, reserved, compared
    )


def counter_faults(watch: Watch) -> list[Fault]:
    """Say where torch's counters do not speak of the whole run."""
    faults = []
    if watch.sleeps:
        faults.append(Fault("C", "Beside a vLLM that sleeps torch's counters are wrong."))
    if watch.processes > 1:
        faults.append(Fault("B", f"torch counted the first of {watch.processes} processes alone."))
    return faults


def _short(seen: int, reserved: int, lens: str) -> list[Fault]:
    lacking = reserved - seen
    if lacking <= max(SHORT_SLACK_BYTES, SHORT_B * reserved):
        return []
    share = lacking / reserved
    said = (
        f"{_name(lens)} peaked {text.memory(lacking)} below what torch reserved "
        f"({text.memory(seen)} against {text.memory(reserved)}): the sampler missed the peak, or one of "
        "the two is wrong."
    )
    return [Fault("D" if share > SHORT_D else "C" if share > SHORT_C else "B", said)]


def _beyond(watch: Watch, seen: int, reserved: int, lens: str) -> list[Fault]:
    explained = CONTEXT_BYTES + watch.pool_bytes
    if lens == ABOVE_IDLE:
        explained += _most_foreign(watch, lens) or 0
    if watch.processes > 1:
        explained += COMMUNICATION_BYTES
    beyond = seen - reserved - explained
    if beyond <= 0:
        return []
    said = (
        f"{_name(lens)} peaked {text.memory(seen - reserved)} above what torch reserved; context, "
        f"libraries{' and pool' if watch.pool_bytes else ''} explain {text.memory(explained)} at most."
    )
    return [Fault("C" if beyond > BEYOND_C * seen else "B", said)]


def _name(lens: str) -> str:
    names: Iterable[tuple[str, str]] = LENS_NAMES.items()
    return next((name for key, name in names if key == lens), lens)


def _devices(watch: Watch) -> tuple[DeviceSummary, ...]:
    return watch.sampler.devices if watch.sampler else ()


def _with_unknown(watch: Watch, faults: list[Fault]) -> list[Fault]:
    """Add that nothing was noted of the devices, as in a study from before it was."""
    if _devices(watch):
        return faults
    return [*faults, Fault("B", "What the driver said of the device: not measured.")]
