"""What is measured beside a run: the models of `phases.jsonl`, `sampler.json` and `memory.parquet`.

The worker marks phases; the sampler, a process beside it, reads memory. Values are raw: peaks, energy and
grades are derived again by `summary`, so a better formula needs no new run. Missing is null.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.frozen import Count, Frozen, absent

FORMAT = 1  # of every file of an attempt; its history is in `record`

Phase = Literal["load", "build", "evaluate", "train", "generate", "weight_sync", "save"]
PHASES: tuple[Phase, ...] = (
    "load", "build", "evaluate", "train", "generate", "weight_sync", "save",
)  # fmt: skip


class PhaseRow(Frozen):
    """A line of `phases.jsonl`: one span, written when it ends. Phases nest; the innermost counts."""

    phase: Phase
    begin_ns: int
    end_ns: int
    step: Count | None = None
    rss_bytes: Count | None = Field(None, description="the worker's own RSS at the end of the span")
    torch_allocated_peak_bytes: Count | None = None
    torch_reserved_peak_bytes: Count | None = None


class DeviceSummary(Frozen):
    """What the sampler learned about one GPU, or one MIG slice, beside its samples."""

    uuid: str
    name: str | None = None
    total_bytes: Count | None = None
    reserved_bytes: Count | None = Field(
        None, description="the driver's own, where it is told apart"
    )
    idle_bytes: Count | None = Field(
        None,
        description="in use on the device before the worker had a context on it: the first sample",
    )
    memory_version: Literal[1, 2] | None = Field(
        None, description="of NVML's memory query; 1 counts the driver's reservation as used"
    )
    has_trusted_pids: bool | None = Field(
        None,
        description="whether NVML's process ids are those of this namespace; false inside most "
        "containers: process figures are then null, and the device above its idle baseline stands for "
        "the run",
    )
    has_energy_counter: bool | None = None
    foreign_bytes_max: Count | None = Field(
        None,
        description="most that processes outside the worker's tree held at once; null: not known",
    )
    foreign_pids: tuple[int, ...] = Field(
        (), description="processes outside the worker's tree that were seen on the device"
    )
    lost_ns: int | None = Field(
        None, description="time.monotonic_ns from which the device answered nothing more"
    )
    lost_because: str | None = Field(None, description="one sentence")


class SamplerSummary(Frozen):
    """`sampler.json`: what the sampler did and what it cost."""

    format: int = FORMAT
    requested_hz: float
    achieved_hz: float | None
    longest_gap_s: float | None
    samples: Count
    cpu_s: float = Field(
        description="CPU time of the sampler process over its life, start-up included"
    )
    sampling_cpu_s: float = Field(description="CPU time of the sampling loop alone")
    wall_s: float = Field(description="length of the sampling loop")
    lenses: tuple[str, ...] = Field(description="lenses that gave at least one value")
    gpus: tuple[str, ...] = Field((), description="UUIDs of the GPUs that were read")
    notes: tuple[str, ...] = ()
    devices: tuple[DeviceSummary, ...] = Field((), exclude_if=absent(()))
    paced_down_hz: float | None = Field(
        None,
        exclude_if=absent(None),
        description="the lowest rate to which the sampler lowered itself, to keep within its share of a "
        "core; null: it never had to",
    )


# Columns of memory.parquet, one row per device and instant; `device` is 'host' or a GPU's UUID.
# Bytes, watts, joules, degrees Celsius, MHz, percent; null where the lens did not answer.
MEMORY_COLUMNS: dict[str, str] = {
    "t_ns": "int64",
    "device": "string",
    "rss_bytes": "int64",  # process-tree RSS (host rows)
    "processes": "int64",  # processes in the tree (host rows)
    "nvml_device_bytes": "int64",  # device memory in use, driver reservation excluded where v2 exists
    "nvml_process_bytes": "int64",  # the worker's own, where process ids can be trusted
    "utilization_percent": "float64",
    "power_w": "float64",
    "energy_j": "float64",  # counter since the driver was loaded
    "temperature_c": "float64",
    "sm_clock_mhz": "float64",
    "memory_clock_mhz": "float64",
    "throttle_reasons": "int64",  # nvmlClocksEventReasons, a bit mask
    "foreign_bytes": "int64",  # held by processes outside the worker's tree, where ids can be trusted
}
