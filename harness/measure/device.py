"""What one GPU, or one MIG slice, found by its UUID, reads at an instant.

Memory is read at every sample. A list of processes holds a lock of the whole driver: it is read when the
memory has changed, and else as often as its cost allows (`pace.Turn`). Power, clocks and the like come
twice a second, about as often as they change, and the energy counter, which takes milliseconds on some
GPUs, once a second. What this leaves out: deriving anything from the values (`summary`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from harness.measure.nvml import Asker, Nvml, code_of, errors_of, has_host_pids, memory_reader
from harness.measure.pace import NOW, SHARE, Turn
from harness.measure.sources import Sample
from harness.measure.tenants import INSTEAD, Tenants, is_here

# nvmlTemperatureSensors_t, nvmlClockType_t
_SENSOR_GPU, _CLOCK_SM, _CLOCK_MEMORY = 0, 1, 2
SENSORS_S, ENERGY_S = 0.5, 1.0
LIST_S = 0.5  # while memory stays as it is
# Of the whole sampler's share of a core; the rest is the loop's, memory's and that of RSS. While memory
# changes a list of processes may take four times its part.
LIST_PART, ENERGY_PART, SENSORS_PART = 0.05, 0.3, 0.05
# Of wall time: reading memory that slowly would hold up others who ask the driver.
MEMORY_SHARE = 0.2
PROMPT_S = 0.002  # what takes no longer than that needs no turn
RARELY_S = 0.25  # worth a note
NEVER = float("inf")
# Sample() fills in what is left out by code of Python; this is for the sample of every instant.
_new, _UNREAD = tuple.__new__, (None,) * (len(Sample._fields) - 5)
MEMORY, LIST, ENERGY = "NVML device memory", "NVML process memory", "energy"


class NvmlSource:
    """One GPU, or one MIG slice, found by its UUID; `share` is of a core, for it alone."""

    def __init__(
        self,
        nvml: Nvml,
        uuid: str,
        owns: Callable[[int], bool],
        is_pid_trusted: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        share: float = SHARE,
        exists: Callable[[int], bool] = is_here,
    ) -> None:
        self._nvml, self._clock = nvml, clock
        self.name = self.uuid = uuid
        self._ask, self._errors = Asker(nvml), errors_of(nvml)
        self._lenses: dict[str, None] = {}
        self._has_no_memory = self._is_slow = False
        self._memory_turn = Turn(0.0, MEMORY_SHARE)
        self._list_turn = Turn(LIST_S, LIST_PART * share)
        self._sensors_turn = Turn(SENSORS_S, SENSORS_PART * share)
        self._energy_turn = Turn(ENERGY_S, ENERGY_PART * share)
        self._rare_s = NOW  # when the first of these is due
        self._news_s = NOW  # from when on a list may be read because memory has changed
        self._version: int | None = nvml.nvmlMemory_v2
        self._called: str | None = None
        self._total_bytes: int | None = None
        self._reserved_bytes: int | None = None
        self._idle_bytes: int | None = None
        self._listed_at: int | None = None  # memory in use at the last list of processes
        self._lost_ns: int | None = None
        self._read_ns: int | None = None
        self.longest_gap_ns = 0
        trusted = has_host_pids() if is_pid_trusted is None else is_pid_trusted
        self._tenants = Tenants(owns, trusted, exists)
        self._handle = self._ask(f"GPU {uuid}", lambda: nvml.nvmlDeviceGetHandleByUUID(uuid))
        if self._handle is not None:
            self._begin(trusted)

    def _begin(self, is_pid_trusted: bool) -> None:
        if not is_pid_trusted:
            self._ask.note(
                f"{LIST} not measured: process ids here are not the host's, which NVML counts; {INSTEAD}"
            )
        if self._is_slice:
            self._ask.note("power, energy and clocks not measured: a MIG slice has none of its own")
        quiet = Asker(self._nvml)
        self._called = quiet("name", lambda: self._nvml.nvmlDeviceGetName(self._handle))
        self._choose_memory_version()
        self._read_memory = memory_reader(self._nvml, self._handle, self._version)

    @property
    def _rare(self) -> tuple[Turn, ...]:
        sensors = () if self._is_slice else (self._sensors_turn, self._energy_turn)
        return (self._list_turn, *sensors) if self._tenants.is_trusted else sensors

    @property
    def _is_slice(self) -> bool:
        return self.uuid.startswith("MIG-")

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read, and which memory figure this is."""
        notes = list(self._ask.notes)
        for turn, what in ((self._memory_turn, MEMORY), (self._energy_turn, ENERGY)):
            if turn.is_slowed and turn.every_s >= RARELY_S:
                cost_ms = 1e3 * turn.cost_s
                notes.append(
                    f"{what} was read every {turn.every_s:.1f} s: a reading took {cost_ms:.1f} ms"
                )
        if self._tenants.why_not:
            notes.append(self._tenants.why_not)
        if self._tenants.foreign_pids:
            notes.append(self._tell_foreign())
        return tuple(notes)

    def _tell_foreign(self) -> str:
        pids = self._tenants.foreign_pids
        most = self._tenants.foreign_bytes_max
        held = f" and held up to {most / 2**30:.2f} GiB" if most is not None else ""
        who = f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"
        return f"{who} of other programs ran on the GPU{held}: its memory and times are not the run's alone"

    @property
    def lenses(self) -> tuple[str, ...]:
        """`nvml-device` and `nvml-process`, once each has given a value."""
        return tuple(self._lenses)

    @property
    def tells_memory(self) -> bool:
        """Whether its memory is read: it was, and it is not lost."""
        return self._read_ns is not None and self._lost_ns is None and not self._has_no_memory

    @property
    def strangers(self) -> tuple[int, ...]:
        """Process ids of other programs that were seen on it."""
        return self._tenants.foreign_pids

    @property
    def device(self) -> dict[str, object]:
        """What was learned about the GPU, as samples.DeviceSummary has it."""
        tenants = self._tenants
        is_listed = self._ask.knows(LIST)
        return {
            "uuid": self.uuid,
            "name": self._called,
            "total_bytes": self._total_bytes,
            "reserved_bytes": self._reserved_bytes,
            "idle_bytes": self._idle_bytes,
            "memory_version": (2 if self._version else 1) if self._ask.knows(MEMORY) else None,
            "has_trusted_pids": tenants.is_trusted if is_listed or not tenants.is_trusted else None,
            "has_energy_counter": False if self._is_slice else self._ask.knows(ENERGY),
            "foreign_bytes_max": tenants.foreign_bytes_max,
            "foreign_pids": list(tenants.foreign_pids),
            "lost_ns": self._lost_ns,
            "lost_because": self._ask.lost_because,
        }

    def read(self, t_ns: int) -> list[Sample]:
        """Return the GPU's sample; every field is None once the GPU can't be read."""
        if self._handle is None:
            return []
        if self._lost_ns is not None:
            return [Sample(t_ns, self.uuid)]
        began_s = self._clock()
        is_due = began_s >= self._memory_turn.due_s
        used = self._device_bytes(t_ns) if is_due else None
        now_s = self._clock()
        if is_due and (now_s - began_s > PROMPT_S or self._is_slow):
            self._memory_turn.took(began_s, now_s)
            self._is_slow = self._memory_turn.is_slowed
        if now_s < self._rare_s and (
            now_s < self._news_s or used == self._listed_at or used is None
        ):
            return [_new(Sample, (t_ns, self.uuid, None, None, used, *_UNREAD))]
        sample = self._with_processes(Sample(t_ns, self.uuid, None, None, used))
        if now_s >= self._rare_s:
            sample = sample if self._is_slice else self._with_readings(sample)
        self._rare_s = min((turn.due_s for turn in self._rare), default=NEVER)
        self._news_s = self._list_turn.urgent_s if self._tenants.is_trusted else NEVER
        if self._ask.lost_because is not None:
            self._lost_ns = t_ns
        return [sample]

    def _device_bytes(self, t_ns: int) -> int | None:
        """Read the memory in use. Not by way of `Asker`: this is the reading of every sample."""
        if self._has_no_memory:
            return None
        try:
            used, total = self._read_memory()
        except self._errors as error:
            self._ask.refused(MEMORY, error)
            self._has_no_memory = self._ask.knows(MEMORY) is False
            self._rare_s = NOW  # a lost GPU is noticed in this very sample
            return None
        if not total:
            self._ask.note(f"{MEMORY} not measured: the driver tells a GPU of 0 bytes")
            return None
        if self._read_ns is None:
            self._ask.answered(MEMORY)
            self._idle_bytes = used
            self._lenses["nvml-device"] = None
        elif t_ns - self._read_ns > self.longest_gap_ns:
            self.longest_gap_ns = t_ns - self._read_ns
        self._read_ns = t_ns
        return used

    def _with_readings(self, sample: Sample) -> Sample:
        began_s = self._clock()
        if began_s >= self._sensors_turn.due_s:
            sample = self._with_sensors(sample)
            self._sensors_turn.took(began_s, self._clock())
        began_s = self._clock()
        if began_s >= self._energy_turn.due_s:
            energy_mj = self._ask(
                ENERGY, lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            )
            self._energy_turn.took(began_s, self._clock())
            sample = sample._replace(energy_j=None if energy_mj is None else energy_mj / 1000)
        return sample

    def _choose_memory_version(self) -> None:
        # Version 1 counts memory that the driver keeps for itself as used: 912 MB against 8 MB on
        # an idle A100. Older drivers have no version 2.
        nvml, handle = self._nvml, self._handle
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=self._version)
        except self._errors:
            memory = self._ask(MEMORY, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
            if memory is not None:
                self._version = None
                self._total_bytes = int(memory.total) or None
                self._ask.note(
                    "NVML device memory is version 1: it includes the driver's reservation"
                )
            return
        used, free, reserved = int(memory.used), int(memory.free), int(memory.reserved)
        self._total_bytes, self._reserved_bytes = int(memory.total) or None, reserved
        if abs(used + free + reserved - int(memory.total)) > 0.01 * int(memory.total):
            self._ask.note(
                f"NVML memory does not add up: used + free + reserved is {used + free + reserved} bytes, "
                f"total {int(memory.total)}"
            )

    def _with_processes(self, sample: Sample) -> Sample:
        """Add whose memory it is: when the list's turn has come, or sooner if the memory changed."""
        now_s, used, turn = self._clock(), sample.nvml_device_bytes, self._list_turn
        if not self._tenants.is_trusted:
            return sample
        is_same = used is None or used == self._listed_at
        if now_s < (turn.due_s if is_same else turn.urgent_s):
            return sample
        running = self._ask(
            LIST, lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        )
        turn.took(now_s, self._clock())
        self._listed_at = used if used is not None else self._listed_at
        if running is None:
            return sample
        grown = (
            used - self._idle_bytes if used is not None and self._idle_bytes is not None else None
        )
        held = self._tenants.judge([(p.pid, p.usedGpuMemory) for p in running], grown, now_s)
        if held.own_bytes is not None:
            self._lenses["nvml-process"] = None
        return sample._replace(nvml_process_bytes=held.own_bytes, foreign_bytes=held.foreign_bytes)

    def _with_sensors(self, sample: Sample) -> Sample:
        nvml, handle, ask = self._nvml, self._handle, self._ask
        rates: Any = ask("utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power_mw = ask("power", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        celsius = ask("temperature", lambda: nvml.nvmlDeviceGetTemperature(handle, _SENSOR_GPU))
        sm_mhz = ask("SM clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM))
        memory_mhz = ask("memory clock", lambda: nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_MEMORY))
        return sample._replace(
            utilization_percent=None if rates is None else float(rates.gpu),
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=None if celsius is None else float(celsius),
            sm_clock_mhz=None if sm_mhz is None else float(sm_mhz),
            memory_clock_mhz=None if memory_mhz is None else float(memory_mhz),
            throttle_reasons=ask("throttle reasons", lambda: _reasons(nvml, handle)),
        )


def _reasons(nvml: Nvml, handle: Any) -> int:
    """Why clocks are held back, a bit mask; older drivers know it by another name."""
    try:
        return nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except errors_of(nvml) as error:
        if code_of(error) != 13:
            raise
        return nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
