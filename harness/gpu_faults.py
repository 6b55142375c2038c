"""What lowers the grade of a run on a GPU: throttling, drifting clocks, a lost device.

And lenses that contradict one another: NVML must read at least what torch says it reserved, and no
more above it than context, libraries and a pool explain. What this leaves out: others on the device
(`strangers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    SHORT_B,
    SHORT_C,
    SHORT_D,
    SHORT_SLACK_BYTES,
    SLOWED_B,
    SLOWED_BITS,
    SLOWED_C,
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
    Lens,
)
from harness.samples import DeviceSummary
from harness.strangers import added_by_others


def throttle_faults(watch: Watch) -> list[Fault]:
    """Say for how much of training a GPU was slowed down, by heat or hardware, or capped in power.

    Of several GPUs the worst: the others wait for it at every step.
    """
    rows = watch.gpu_rows
    told = rows[rows["throttle_reasons"].notna()] if "throttle_reasons" in rows else rows[:0]
    if not len(told):
        return [Fault("B", "Throttling: not measured.")]
    each = [
        (str(uuid), [int(mask) for mask in part["throttle_reasons"]])
        for uuid, part in told.groupby("device")
    ]
    faults = []
    slowed, name = _worst_share(each, SLOWED_BITS)
    if slowed > SLOWED_B:
        said = f"Slowed down by heat or hardware in {text.share(slowed)} of the samples of training"
        faults.append(Fault("C" if slowed > SLOWED_C else "B", f"{said}{name}."))
    capped, name = _worst_share(each, CAPPED_BITS)
    if capped > CAPPED_B:
        said = f"Held at its power cap in {text.share(capped)} of the samples of training"
        faults.append(Fault("B", f"{said}{name}."))
    return faults


def _worst_share(each: Sequence[tuple[str, Sequence[int]]], bits: int) -> tuple[float, str]:
    """Return the share of samples with one of the bits on the GPU with most, and its name if not alone."""
    shares = {uuid: sum(bool(mask & bits) for mask in masks) / len(masks) for uuid, masks in each}
    worst = max(shares, key=lambda uuid: shares[uuid])
    return shares[worst], f" on {worst}, the worst of {len(each)} GPUs" if len(each) > 1 else ""


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


def disagreement(watch: Watch, lens: Lens) -> list[Fault]:
    """Hold NVML against torch's reservation: never less, and no more than is explained above it.

    Of several GPUs the first alone, which is the one that torch's counters speak of. The device's figure is
    held against it as it was read: what left the GPU after idle was read makes above idle too low alone.
    """
    by_lens = watch.first_device or watch.statistics
    seen = by_lens.get(lens, {}).get(TRAINING)
    reserved = watch.peak(RESERVED)
    if seen is None or not reserved:
        return []
    if watch.sleeps:
        return [
            Fault("B", "Beside a vLLM that sleeps torch's counters can't be held against NVML.")
        ]
    above = by_lens.get(ABOVE_IDLE if lens == DEVICE else lens, {}).get(TRAINING, seen)
    return _short(seen.peak_bytes, reserved, lens) or _beyond(
        watch, above.peak_bytes, reserved, lens
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


def _beyond(watch: Watch, seen: int, reserved: int, lens: Lens) -> list[Fault]:
    explained = CONTEXT_BYTES + watch.pool_bytes
    if lens != PROCESS:
        explained += added_by_others(watch)
    if watch.processes > 1:
        explained += COMMUNICATION_BYTES
    beyond = seen - reserved - explained
    if beyond <= 0:
        return []
    said = (
        f"{_name(PROCESS if lens == PROCESS else ABOVE_IDLE)} peaked {text.memory(seen - reserved)} above "
        f"what torch reserved; context, libraries{' and pool' if watch.pool_bytes else ''} explain "
        f"{text.memory(explained)} at most."
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
