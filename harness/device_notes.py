"""Which devices a run's readings are of, and that it did not train there.

A run that trained on the CPU beside a GPU, for whatever reason, has readings that are not its own: that
stands on top of the report. What this leaves out: what was learned of each device (`device_tables`).
"""

from __future__ import annotations

from collections.abc import Iterable

from harness import text
from harness.forecasts import CPU
from harness.samples import DeviceSummary
from harness.series import is_ok
from harness.view import RunView, StudyView


def devices_of(run: RunView) -> tuple[DeviceSummary, ...]:
    """Return the GPUs, or slices of one, that were read beside a run."""
    sampler = run.record.sampler if run.record else None
    return sampler.devices if sampler else ()


def name_of(device: DeviceSummary) -> str:
    """Return what a device calls itself."""
    return device.name or "a GPU without a name"


def names_of(runs: Iterable[RunView]) -> tuple[str, ...]:
    """Return what the devices that runs were read on call themselves, each once."""
    return tuple(dict.fromkeys(name_of(device) for run in runs for device in devices_of(run)))


def beside_notice(view: StudyView) -> str:
    """Say that runs trained on the CPU while a GPU was read; empty where none did."""
    ended = [run for run in view.runs if is_ok(run)]
    beside = [run for run in ended if _trained_on(run) == CPU and devices_of(run)]
    if not beside:
        return ""
    many = f"{len(beside)} of {text.plural(len(ended), 'run')}"
    return (
        f"Trained on the CPU: {many}. What was read of {', '.join(names_of(beside))} is not of these "
        "trainings: no figure of a GPU here says what they would take."
    )


def _trained_on(run: RunView) -> str | None:
    result = run.record.result if run.record else None
    return result.device if result else None
