"""The NVML path through the unmodified pynvml and a real library, which plays a script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.measure.nvml import has_host_pids
from harness.measure.sampler import Sampler
from harness.measure.sealing import read_samples
from tests.scripted_nvml import GPU, OTHER_UUID, TRACES, UUID, check_trace, variables, without_pace
from tests.waiting import wait_until

MIB = 2**20
LIST = "from harness.measure.gpus import list_gpus; found = list_gpus()"
READ = """
from harness.measure.device import NvmlSource
from harness.measure.nvml import load_nvml
nvml, note = load_nvml()
source = NvmlSource(nvml, {uuid!r}, lambda pid: pid == 10, is_pid_trusted=True)
found = source.read(5)[0]._asdict(), source.notes, source.lenses
"""


@pytest.fixture
def ask(nvml_library, tmp_path):
    """A function that plays a script to a program and returns the program's `found`."""

    def play(script: str, program: str) -> Any:
        (tmp_path / "script").write_text(script)
        ending = "; import json; print(json.dumps(found, default=vars))"
        command = [sys.executable, "-c", program.strip() + ending]
        environment = variables(nvml_library, tmp_path / "script")
        return json.loads(
            subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        )

    return play


def reading(ask, script: str, uuid: str = UUID) -> tuple[dict[str, Any], list[str], list[str]]:
    sample, notes, lenses = ask(script, READ.format(uuid=uuid))
    return sample, notes, lenses


def test_the_environment_of_a_run_names_the_gpu(nvml_library, tmp_path):
    (tmp_path / "script").write_text(GPU + "process.77 400\n")
    command = [sys.executable, "-m", "harness.cli", "env"]
    done = subprocess.run(
        command, env=variables(nvml_library, tmp_path / "script"), capture_output=True, check=True
    )
    told = json.loads(done.stdout)
    [gpu] = told["gpus"]
    expected = {
        "index": 0,
        "uuid": UUID,
        "name": "NVIDIA Scripted 80GB",
        "total_bytes": 81559 * MIB,
        "driver_version": "580.65.06",
        "cuda_driver_version": "13.0",
        "is_mig_enabled": False,
        "mig_uuids": [],
    }
    assert {key: gpu[key] for key in expected} == expected
    assert "processes" not in gpu, "what else runs there is nobody's business"
    assert told["gpu_note"] is None


def test_every_reading_arrives_in_its_unit(ask):
    sample, notes, lenses = reading(
        ask, GPU + "process.10 3000\nprocess.2147480001 500\nused_mib 3600\n"
    )
    assert sample == {
        "t_ns": 5,
        "device": UUID,
        "rss_bytes": None,
        "processes": None,
        "nvml_device_bytes": 3600 * MIB,
        "nvml_process_bytes": 3000 * MIB,
        "utilization_percent": 37.0,
        "power_w": 250.5,
        "energy_j": 5.0,
        "temperature_c": 61.0,
        "sm_clock_mhz": 1410.0,
        "memory_clock_mhz": 2619.0,
        "throttle_reasons": 0,
        "foreign_bytes": 0,
    }
    assert notes == []
    assert lenses == ["nvml-device", "nvml-process"]


def test_a_driver_without_memory_version_2_counts_its_own_reservation_and_that_is_noted(ask):
    sample, notes, _ = reading(ask, GPU + "fault.nvmlDeviceGetMemoryInfo_v2 13\n")
    assert sample["nvml_device_bytes"] == (8 + 912) * MIB
    assert "version 1" in notes[0]


def test_a_driver_that_lacks_newer_functions_is_asked_by_their_older_names_or_not_at_all(ask):
    script = GPU + "throttle 4\nfault.nvmlDeviceGetCurrentClocksEventReasons 13\n"
    script += "fault.nvmlDeviceGetComputeRunningProcesses 13\n"
    sample, notes, _ = reading(ask, script)
    assert sample["throttle_reasons"] == 4
    assert sample["nvml_process_bytes"] is sample["foreign_bytes"] is None
    assert notes == ["NVML process memory not measured: this driver does not know it"]


def test_memory_of_every_sample_is_what_pynvml_reads_in_either_version_and_fails_as_it_does(ask):
    program = """
import pynvml as nvml; nvml.nvmlInit(); gpu = nvml.nvmlDeviceGetHandleByIndex(0)
from harness.measure.nvml import memory_reader
def told(read):
    try: return read()
    except nvml.NVMLError as error: return type(error).__name__
def own(version):
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version)
    return memory.used, memory.total
versions = (nvml.nvmlMemory_v2, None)
found = [[told(memory_reader(nvml, gpu, v)), told(lambda: own(v))] for v in versions]
""".strip()
    total = 81559 * MIB
    assert ask(GPU, program) == [[[8 * MIB, total]] * 2, [[920 * MIB, total]] * 2]
    fault = "fault.nvmlDeviceGetMemoryInfo 15\nfault.nvmlDeviceGetMemoryInfo_v2 4\n"
    refused = [["NVMLError_NoPermission"] * 2, ["NVMLError_GpuIsLost"] * 2]
    assert ask(GPU + fault, program) == refused


def test_what_the_script_leaves_out_is_not_supported_and_null(ask):
    bare = f"device {UUID}\ntotal_mib 100\nused_mib 10\n"
    sample, notes, _ = reading(ask, bare)
    assert sample["nvml_device_bytes"] == 10 * MIB
    assert sample["power_w"] is sample["utilization_percent"] is sample["energy_j"] is None
    assert "power not measured: this GPU does not support it" in notes


def test_a_process_without_a_figure_is_null(ask):
    assert reading(ask, GPU + "process.10 ?\n")[0]["nvml_process_bytes"] is None


def test_several_gpus_stand_in_the_script_s_order_and_a_lost_one_hides_no_other(ask):
    script = GPU + f"fault.nvmlDeviceGetUUID 15\ndevice {OTHER_UUID}\nname Another\nmig 1\n"
    script += "slice MIG-1111\ntotal_mib 10240\nslice MIG-2222\n"
    found = ask(script, LIST)
    [gpu] = found["gpus"]
    assert (gpu["index"], gpu["uuid"], gpu["name"]) == (1, OTHER_UUID, "Another")
    assert (gpu["is_mig_enabled"], gpu["mig_uuids"]) == (True, ["MIG-1111", "MIG-2222"])
    assert "lost" in found["note"]


def test_a_slice_is_read_by_its_own_uuid(ask):
    script = GPU + "slice MIG-1111\ntotal_mib 10240\nused_mib 33\n"
    assert reading(ask, script, "MIG-1111")[0]["nvml_device_bytes"] == 33 * MIB


def test_compute_capability_ecc_and_a_clock_that_nobody_scripted(ask):
    program = """
import pynvml as nvml; nvml.nvmlInit(); gpu = nvml.nvmlDeviceGetHandleByIndex(0)
def error(call, *arguments):
    try: call(gpu, *arguments)
    except nvml.NVMLError as error: return error.value
found = [nvml.nvmlDeviceGetCudaComputeCapability(gpu), nvml.nvmlDeviceGetEccMode(gpu)]
found += [nvml.nvmlDeviceGetTotalEccErrors(gpu, 1, 0), error(nvml.nvmlDeviceGetClockInfo, 3)]
found += [error(nvml.nvmlDeviceGetFanSpeed)]
""".strip()
    assert ask(GPU, program) == [[9, 0], [1, 1], 0, 3, 13]


@pytest.mark.slow
def test_a_driver_that_hangs_is_given_up_and_said(ask):
    """Where a call hangs whoever made it can't go on: it is not the one who asks for the list."""
    program = LIST.replace("list_gpus()", "list_gpus(answer_s=3)")
    found = ask(GPU + "slow.nvmlDeviceGetMemoryInfo_v2 600000\n", program)
    assert found["gpus"] == []
    assert found["note"].startswith("no NVML: the GPU's driver gave no answer within 3 s")


def test_an_environment_is_told_without_a_driver_that_hangs(ask):
    program = "from harness.measure.environment import capture_environment; "
    found = ask(
        "slow.nvmlDeviceGetCount 600000\n" + GPU,
        program + "found = capture_environment(answer_s=2)",
    )
    assert found["gpus"] == []
    assert "gave no answer within 2 s" in found["gpu_note"]
    assert found["packages"]["psutil"]


def test_what_the_driver_tells_another_process_arrives_whole(ask):
    script = GPU + "process.77 400\nmig 1\nslice MIG-1111\ntotal_mib 10240\nprocess.78 30\n"
    here = ask(script, LIST.replace("list_gpus", "describe_gpus"))
    assert ask(script, LIST) == here
    program = "from harness.measure.gpus import describe_gpus, list_gpus; "
    assert ask(script, program + "found = list_gpus() == describe_gpus()") is True
    assert here["gpus"][0]["mig_slices"][0]["processes"] == [{"pid": 78, "used_bytes": 30 * MIB}]


def test_a_figure_rises_evenly_between_two_whole_numbers(ask):
    ramp = "energy_mj 1000000..2000000 from -1e9 to 1e9\nused_mib 100..300 from -1e9 to 1e9\n"
    # The time is how long this machine has run; to a ramp of sixty years all machines are as old.
    sample, _, _ = reading(ask, "start 0\n" + GPU + ramp)
    assert 1500 <= sample["energy_j"] < 1750
    assert 200 * MIB <= sample["nvml_device_bytes"] < 250 * MIB


@pytest.mark.parametrize("trace", sorted(TRACES.glob("*.trace")), ids=lambda path: path.stem)
def test_every_trace_has_keys_that_the_library_knows(trace):
    check_trace(trace)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "gpu 0\nfoo -1\n",
            r"x\.trace:1: 'gpu' is no key of a trace; .*device.* \(and 1 line more\)",
        ),
        (GPU + "# why\nutilisation 3\n", r":21: 'utilisation' .*did you mean 'utilization'"),
        (GPU + "fault.nvmlIni 1\n", r"'fault\.nvmlIni' .*expected fault\. and a function"),
        (GPU + "process.me 1\n", r"'process\.me' .*expected process\. and a process id, or worker"),
        (GPU + "used_mib # 3\n", r"'used_mib' has no value; expected `used_mib VALUE`"),
        ("driver 580.65.06\n", r"x\.trace: no GPU; expected a line `device GPU-UUID`"),
        ("", r"x\.trace: no GPU"),
    ],
)
def test_what_the_library_would_skip_is_refused_by_its_line(tmp_path, text, found):
    (tmp_path / "x.trace").write_text(text)
    with pytest.raises(ValueError, match=found):
        check_trace(tmp_path / "x.trace")


@pytest.mark.parametrize(
    ("trace", "program", "found"),
    [
        (
            "two-gpus",
            "nosuchcommand",
            "'nosuchcommand' can't be started: No such file or directory",
        ),
        (str(Path(__file__)), "true", "test_scripted_nvml.py:1: "),
    ],
)
def test_a_command_or_a_trace_that_is_none_is_refused_in_a_sentence(trace, program, found):
    command = [sys.executable, "-m", "tests.nvml", "--replay", trace, "--", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert found in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_script_there_is_no_driver(nvml_library):
    environment = variables(nvml_library, Path("/nowhere"))
    program = f"{LIST}; print(found.note)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.stdout.decode().strip() == ("no NVML: the driver is not loaded (NVML error 9)")


def sample_beside_a_worker(nvml_library, attempt: Path, script: str, enough, hz: float = 20) -> Any:
    """Let the sampler process run beside a worker until `enough(samples)`; return the samples."""
    path = attempt / "script"  # plays from the sampler's own start
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        path.write_text(script.format(pid=worker.pid))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables(nvml_library, path, attempt / "start").items():
                patch.setenv(name, value)
            with Sampler.start(worker.pid, attempt, hz=hz, gpus=(UUID,)):
                wait_until(
                    lambda: (attempt / "memory.csv").exists() and enough(read_samples(attempt))
                )
        worker.kill()
    samples = read_samples(attempt)
    return samples[samples.device == UUID]


@pytest.mark.slow
def test_the_sampler_follows_the_script_s_time_and_finds_its_worker(nvml_library, tmp_path):
    if not has_host_pids():
        pytest.skip("process ids here are a container's own, and NVML tells the host's")
    script = GPU + "used_mib 700 from 0.6\nused_mib 90 from 1.4\n"
    script += "process.{pid} 600\nprocess.1 50\n"
    readings = sample_beside_a_worker(
        nvml_library,
        tmp_path,
        script,
        lambda samples: (samples.nvml_device_bytes == 90 * MIB).any(),
    )
    seen = readings.nvml_device_bytes.dropna().drop_duplicates().tolist()
    assert seen == [8 * MIB, 700 * MIB, 90 * MIB]
    assert set(readings.nvml_process_bytes.dropna()) == {600 * MIB}
    summary = json.loads((tmp_path / "sampler.json").read_text())
    assert summary["gpus"] == [UUID]
    assert summary["lenses"] == ["rss", "nvml-device", "nvml-process"]
    assert without_pace(summary["notes"]) == [
        "process 1 of other programs ran on the GPU and held up to 0.05 GiB: its memory and times are not "
        "the run's alone"
    ]
    [device] = summary["devices"]
    assert (device["idle_bytes"], device["total_bytes"]) == (8 * MIB, 81559 * MIB)
    assert (device["has_trusted_pids"], device["foreign_pids"]) == (True, [1])


@pytest.mark.slow
def test_a_gpu_lost_in_mid_run_ends_its_readings_and_the_sampler_goes_on(nvml_library, tmp_path):
    script = GPU + "fault.nvmlDeviceGetMemoryInfo_v2 15 from 0.8\n"

    def is_lost(samples) -> bool:
        return (
            len(samples) > 4 and samples[samples.device == UUID].nvml_device_bytes.isna().sum() > 3
        )

    readings = sample_beside_a_worker(nvml_library, tmp_path, script, is_lost)
    assert readings.nvml_device_bytes.iloc[0] == 8 * MIB
    summary = json.loads((tmp_path / "sampler.json").read_text())
    assert [note for note in summary["notes"] if "the GPU was lost" in note]


def test_a_changed_script_is_read_again(ask, tmp_path):
    program = f"""
import os, pathlib, time, pynvml as nvml; nvml.nvmlInit(); gpu = nvml.nvmlDeviceGetHandleByUUID({UUID!r})
found = [nvml.nvmlDeviceGetPowerUsage(gpu)]
path = pathlib.Path(os.environ["SCRIPTED_NVML"])
path.write_text(path.read_text() + "power_mw 70000" + chr(10))
time.sleep(0.3)
found.append(nvml.nvmlDeviceGetPowerUsage(gpu))
""".strip()
    assert ask(GPU, program) == [250500, 70000]


def test_spikes_of_30_ms_are_met_at_fifty_samples_a_second(nvml_library, tmp_path):
    """Thirty peaks, each some GiB higher than the last: a sample taken in one has it to the byte."""
    begins_s = {2000 + 500 * n: 0.5 + n / 10 for n in range(30)}
    peaks = [f"used_mib {mib} from {s:.2f} to {s + 0.03:.2f}\n" for mib, s in begins_s.items()]
    script = GPU + "used_mib 1000 from 0.2\n" + "".join(peaks) + "used_mib 1 from 3.6\n"

    def is_over(samples) -> bool:
        return (samples.nvml_device_bytes == MIB).any()

    readings = sample_beside_a_worker(nvml_library, tmp_path, script, is_over, hz=50)
    seen = set(readings.nvml_device_bytes.dropna() / MIB)
    times_s = readings.t_ns / 1e9 - float((tmp_path / "start").read_text())
    # At fifty a second one falls into the first 25 ms of each, which leaves 5 ms for the reading itself.
    due = {mib for mib, s in begins_s.items() if times_s.between(s, s + 0.025).any()}
    if len(due) < 10:
        pytest.skip(f"a machine so busy that {len(due)} of 30 spikes had a sample")
    assert len(due - seen) <= 2, "more than a sampler that was put off in the middle of a sample"
