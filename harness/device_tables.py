"""The GPUs, or slices of one, that a study's readings are of, and what was learned about each.

Figures of memory have a device, as they have a lens and a phase. What this leaves out: the GPUs that a
machine has and nobody read (`provenance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness import text
from harness.device_notes import devices_of, name_of
from harness.report_tables import Table, make_table
from harness.samples import DeviceSummary
from harness.view import StudyView


def devices_tables(view: StudyView) -> tuple[Table, ...]:
    """List every device that was read, with what was learned about it; nothing without one."""
    found: dict[str, list[DeviceSummary]] = {}
    for run in view.runs:
        for device in devices_of(run):
            found.setdefault(device.uuid, []).append(device)
    rows = [
        (
            name_of(of[0]),
            uuid,
            str(len(of)),
            text.memory(of[0].total_bytes),
            text.memory(of[0].reserved_bytes),
            _range(d.idle_bytes for d in of),
            _process_ids(of),
            _strangers(of),
        )
        for uuid, of in found.items()
    ]
    columns = (
        "Device", "UUID", "Runs", "Memory", "Of it the driver's own", "In use before a run",
        "Process ids", "Other programs on it",
    )  # fmt: skip
    return (make_table("GPUs that were read", columns, rows, {2, 3, 4, 5}),) if rows else ()


def _range(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    shown = list(dict.fromkeys(text.memory(value) for value in (*known[:1], *known[-1:])))
    return " to ".join(shown) or text.MISSING


def _process_ids(devices: Sequence[DeviceSummary]) -> str:
    """Say whether NVML's process ids are those of the place where the sampler ran."""
    trusted = {device.has_trusted_pids for device in devices}
    if False in trusted:
        return "of another namespace: the device above idle stands for a run"
    return "known here" if trusted == {True} else text.MISSING


def _strangers(devices: Sequence[DeviceSummary]) -> str:
    """Say what others held at most; not known where process ids are foreign."""
    if any(device.has_trusted_pids is not True for device in devices):
        return text.MISSING
    most = max((device.foreign_bytes_max or 0 for device in devices), default=0)
    seen = {pid for device in devices for pid in device.foreign_pids}
    if most:
        return f"up to {text.memory(most)}"
    return "there, how much is not told" if seen else "none"
