"""NVML: which GPUs there are and what one reads, on a fake that stands where pynvml does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from harness.measure.device import NvmlSource
from harness.measure.gpus import GpuProcess, describe_gpus, list_gpus, visible_gpus
from harness.measure.sources import Sample
from tests.fake_nvml import GIB, FakeNvml, process


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def source(nvml: FakeNvml, clock: Clock | None = None, **options: Any) -> NvmlSource:
    options = {"owns": lambda pid: pid in (10, 11), "is_pid_trusted": True, **options}
    return NvmlSource(nvml, "GPU-aaaa", clock=clock or Clock(), **options)


def test_a_reading_in_the_units_of_the_record():
    nvml = FakeNvml(processes=[process(10, GIB), process(11, GIB), process(99, 5 * GIB)])
    reader = source(nvml, exists=lambda pid: True)
    assert reader.read(5) == [
        Sample(
            t_ns=5,
            device="GPU-aaaa",
            nvml_device_bytes=3 * GIB,
            nvml_process_bytes=2 * GIB,
            utilization_percent=42.0,
            power_w=250.0,
            energy_j=5.0,
            temperature_c=61.0,
            sm_clock_mhz=1410.0,
            memory_clock_mhz=2619.0,
            throttle_reasons=4,
            foreign_bytes=5 * GIB,
        )
    ]
    assert reader.lenses == ("nvml-device", "nvml-process")
    [note] = reader.notes
    assert note.startswith("process 99 of other programs ran on the GPU and held up to 5.00 GiB")


def test_sensors_and_lists_come_twice_a_second_energy_once_and_memory_every_time():
    clock, nvml = Clock(), FakeNvml(processes=[process(10, GIB)])
    reader = source(nvml, clock)
    rows = []
    for tick in range(41):
        clock.now = tick * 0.05
        rows += reader.read(tick)
    assert sum(row.power_w is not None for row in rows) == 5
    assert sum(row.energy_j is not None for row in rows) == 3
    assert all(row.nvml_device_bytes == 3 * GIB for row in rows)
    assert [row.nvml_process_bytes for row in rows if row.nvml_process_bytes] == [GIB] * 5


class Slow(FakeNvml):
    """A driver whose list of processes takes as long as the test's clock says."""

    def answer_DeviceGetComputeRunningProcesses(self, handle):
        self.clock.now += self.list_s
        return self.processes


@pytest.mark.parametrize(
    ("list_s", "is_growing", "read"),
    [
        (5e-6, False, 4),
        (5e-6, True, 100),
        (0.0001, False, 4),
        (0.0001, True, 34),
        (0.004, False, 1),
        (0.004, True, 1),
    ],
)
def test_a_dear_process_list_comes_rarely_and_sooner_where_memory_changes(list_s, is_growing, read):
    nvml = Slow(processes=[process(10, GIB)])
    nvml.clock, nvml.list_s = Clock(), list_s
    reader = source(nvml, nvml.clock)
    rows = []
    for tick in range(100):
        nvml.clock.now = tick * 0.02
        nvml.used += GIB // 1000 * is_growing
        rows += reader.read(tick)
    found = sum(row.nvml_process_bytes is not None for row in rows)
    assert found == pytest.approx(read, abs=2)
    assert all(row.nvml_device_bytes is not None for row in rows)


class SlowMemory(FakeNvml):
    """A driver that takes 60 ms to tell of memory."""

    def answer_DeviceGetMemoryInfo(self, handle, version=None):
        self.clock.now += 0.06
        return super().answer_DeviceGetMemoryInfo(handle, version)


def test_memory_that_is_slow_to_read_is_read_less_often_and_that_is_said():
    nvml = SlowMemory()
    nvml.clock = Clock()
    reader = source(nvml, nvml.clock)
    read_at = list[float]()
    while nvml.clock.now < 10:
        began_s = nvml.clock.now
        [row] = reader.read(int(began_s * 1e9))
        read_at += [began_s] if row.nvml_device_bytes is not None else []
        nvml.clock.now = max(nvml.clock.now, began_s + 0.02)
    assert len(read_at) == pytest.approx(10 / 0.3, abs=3)
    assert reader.longest_gap_ns == pytest.approx(0.3e9, abs=0.03e9)
    assert reader.notes == ("NVML device memory was read every 0.3 s: a reading took 60.0 ms",)


@pytest.mark.parametrize("code", [13, 2, 25])
def test_an_old_driver_falls_back_to_version_1_and_says_so(code):
    reader = source(FakeNvml(faults={"v2": code}))
    assert reader.read(0)[0].nvml_device_bytes == 4 * GIB
    assert "version 1" in reader.notes[0]


def test_memory_that_does_not_add_up_is_noted():
    reader = source(type("Odd", (FakeNvml,), {"answer_DeviceGetMemoryInfo": _odd_memory})())
    assert "does not add up" in reader.notes[0]


def _odd_memory(self, handle, version=None):
    return SimpleNamespace(total=80 * GIB, used=GIB, free=GIB, reserved=0)


def test_process_memory_is_not_read_where_ids_are_not_the_hosts():
    nvml = FakeNvml(processes=[process(10, GIB)])
    reader = source(nvml, is_pid_trusted=False)
    assert reader.read(0)[0].nvml_process_bytes is None
    assert "nvmlDeviceGetComputeRunningProcesses" not in nvml.calls
    assert "process memory not measured" in reader.notes[0]
    assert reader.lenses == ("nvml-device",)


@pytest.mark.parametrize("listed", [[], [process(99, GIB)], [process(10, None)]])
def test_process_memory_that_is_not_told_is_missing_not_zero(listed):
    assert source(FakeNvml(processes=listed)).read(0)[0].nvml_process_bytes is None


@pytest.mark.parametrize("code", [15, 18, 999])
def test_a_gpu_that_is_lost_in_mid_run_reads_null_with_one_note(code):
    clock, nvml = Clock(), FakeNvml()
    reader = source(nvml, clock)
    reader.read(0)
    nvml.faults["nvmlDeviceGetMemoryInfo"] = code
    asked = len(nvml.calls)
    for tick in range(1, 50):
        clock.now = tick * 0.1
        assert reader.read(tick) == [Sample(tick, "GPU-aaaa")]
    assert len(nvml.calls) == asked + 1  # a lost GPU is not asked again
    assert len(reader.notes) == 1
    assert str(code) in reader.notes[0]


@pytest.mark.parametrize("code", [3, 4])
def test_what_is_not_supported_or_permitted_is_null_and_the_rest_goes_on(code):
    clock = Clock()
    reader = source(FakeNvml(faults={"nvmlDeviceGetPowerUsage": code}), clock)
    for tick in range(5):
        clock.now = float(tick)
        [row] = reader.read(tick)
        assert row.power_w is None
        assert row.temperature_c == 61.0
        assert row.nvml_device_bytes == 3 * GIB
    assert len(reader.notes) == 1
    assert reader.notes[0].startswith("power not measured")


def test_unified_memory_is_not_measured_rather_than_zero():
    reader = source(FakeNvml(faults={"nvmlDeviceGetMemoryInfo": 3}))
    assert reader.read(0)[0].nvml_device_bytes is None
    assert reader.lenses == ()
    assert reader.notes == ("NVML device memory not measured: this GPU does not support it",)


def test_a_passing_error_leaves_one_null():
    nvml = FakeNvml()
    reader = source(nvml)
    nvml.faults["nvmlDeviceGetMemoryInfo"] = 10
    assert reader.read(0)[0].nvml_device_bytes is None
    del nvml.faults["nvmlDeviceGetMemoryInfo"]
    assert reader.read(1)[0].nvml_device_bytes == 3 * GIB


def test_a_gpu_that_is_not_there_gives_no_samples_and_a_note():
    reader = NvmlSource(FakeNvml(), "GPU-zzzz", lambda pid: False)
    assert reader.read(0) == []
    assert "GPU-zzzz" in " ".join(reader.notes)


def test_gpus_are_described():
    found = describe_gpus(FakeNvml(processes=[process(99, None)]))
    assert found.note is None
    first = found.gpus[0]
    assert (first.index, first.uuid, first.name) == (0, "GPU-aaaa", "NVIDIA Fake")
    assert (first.driver_version, first.cuda_driver_version) == ("580.65", "13.0")
    assert (first.total_bytes, first.is_mig_enabled) == (80 * GIB, False)
    assert first.processes == (GpuProcess(99, None),)


def test_what_a_gpu_is_set_to_is_described():
    first = describe_gpus(FakeNvml(capability=(7, 5), compute_mode=3, ecc_errors=4)).gpus[0]
    assert (first.compute_capability, first.compute_mode) == ((7, 5), "exclusive process")
    assert (first.is_ecc_enabled, first.ecc_uncorrected) == (True, 4)
    off = describe_gpus(FakeNvml(ecc_errors=None)).gpus[0]
    assert (off.is_ecc_enabled, off.ecc_uncorrected) == (False, None)


def test_used_memory_leaves_the_drivers_own_out_where_it_is_told():
    first = describe_gpus(FakeNvml()).gpus[0]
    assert (first.used_bytes, first.free_bytes) == (3 * GIB, 76 * GIB)
    assert describe_gpus(FakeNvml(faults={"v2": 25})).gpus[0].used_bytes == 4 * GIB


def test_what_an_old_driver_does_not_know_is_not_told():
    names = ("CudaComputeCapability", "ComputeMode", "EccMode", "MigMode", "MemoryInfo")
    first = describe_gpus(FakeNvml(faults={f"nvmlDeviceGet{n}": 13 for n in names})).gpus[0]
    assert (first.uuid, first.total_bytes, first.used_bytes) == ("GPU-aaaa", None, None)
    assert (first.compute_capability, first.compute_mode, first.is_ecc_enabled) == (None,) * 3


def test_a_lost_gpu_does_not_hide_the_others():
    class OneLost(FakeNvml):
        def answer_DeviceGetHandleByIndex(self, index):
            if index == 0:
                raise pynvml.NVMLError(15)
            return self.uuids[index]

    found = describe_gpus(OneLost())
    assert [gpu.index for gpu in found.gpus] == [1]
    assert "lost" in found.note


@pytest.mark.parametrize("code", [9, 12, 18])
def test_without_a_driver_there_is_no_gpu_and_a_reason(code):
    found = describe_gpus(FakeNvml(faults={"nvmlInit": code}))
    assert found.gpus == ()
    assert found.note.startswith("no NVML")
    assert found.nvml_error == code


def test_listing_for_real_never_raises():
    found = list_gpus()
    assert found.gpus or found.note


@pytest.mark.parametrize(
    ("value", "uuids"),
    [
        (None, ["GPU-aaaa", "GPU-abbb"]),
        ("", []),
        ("1", ["GPU-abbb"]),
        ("1,0", ["GPU-abbb", "GPU-aaaa"]),
        ("GPU-ab", ["GPU-abbb"]),
        ("GPU-a", []),  # ambiguous
        ("0,-1,1", ["GPU-aaaa"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("0,0", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(value, uuids):
    assert [gpu.uuid for gpu in visible_gpus(describe_gpus(FakeNvml()).gpus, value)] == uuids


def test_a_mig_slice_is_found_through_its_gpu():
    found = describe_gpus(FakeNvml(uuids=("GPU-aaaa",), mig=("MIG-1111", "MIG-2222")))
    assert found.gpus[0].is_mig_enabled
    assert found.gpus[0].mig_uuids == ("MIG-1111", "MIG-2222")
    assert [s.total_bytes for s in found.gpus[0].mig_slices] == [80 * GIB] * 2


@pytest.mark.parametrize(
    ("value", "uuids"),
    [
        (None, ["MIG-1111"]),
        ("0", ["MIG-1111"]),
        ("GPU-aaaa", ["MIG-1111"]),
        ("MIG-2222", ["MIG-2222"]),
        ("MIG-2", ["MIG-2222"]),
        ("MIG-2222,MIG-1111", ["MIG-2222", "MIG-1111"]),
        ("MIG-1111,0", []),  # the same slice twice
        ("MIG-3", []),
    ],
)
def test_a_mig_id_is_the_slice_and_not_its_gpu(value, uuids):
    found = describe_gpus(FakeNvml(uuids=("GPU-aaaa",), mig=("MIG-1111", "MIG-2222")))
    shown = visible_gpus(found.gpus, value)
    assert [gpu.uuid for gpu in shown] == uuids
    assert {gpu.parent_uuid for gpu in shown} <= {"GPU-aaaa"}
