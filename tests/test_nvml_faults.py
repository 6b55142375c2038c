"""Every fault that a GPU's driver can have: the run goes on, the user reads one sentence, samples are kept.

The traces of `nvml/traces` play to the unmodified pynvml: here to a source whose clock a test steps, and,
marked slow, to the sampler beside runs of a study.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.measure.nvml import has_host_pids
from harness.measure.sealing import read_samples
from harness.record import Record
from harness.store import Store
from tests.conftest import MATRIX
from tests.scripted_nvml import UUID, find_trace, variables

MIB = 2**20
WORKER = 10
SLICE = "MIG-5c217ed0-0000-4000-8000-00000000000a"
# Plays each trace for two seconds of its own clock, fifty samples a second.
PLAY = """
import json, os, sys
from pathlib import Path
from harness.measure.device import NvmlSource
from harness.measure.nvml import load_nvml
clock, traces, now, found = Path(os.environ["SCRIPTED_NVML_CLOCK"]), json.loads(sys.argv[1]), [0.0], {}
for name, (trace, uuid) in traces.items():
    os.environ["SCRIPTED_NVML"], now[0] = trace, 0.0
    clock.write_text("0")
    nvml, absence = load_nvml()
    if nvml is None:
        found[name] = {"notes": [absence.note], "rows": [], "device": None}
        continue
    source = NvmlSource(nvml, uuid, lambda pid: pid == 10, is_pid_trusted=True, clock=lambda: now[0])
    rows = []
    for tick in range(0, 100):
        now[0] = tick / 50
        clock.write_text(str(now[0]))
        rows += [row._asdict() for row in source.read(tick * 20_000_000)]
    found[name] = {"notes": list(source.notes), "rows": rows, "device": source.device}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Fault:
    """What a trace's user reads, and how many seconds of memory were read before and all along."""

    sentence: str | None
    memory_until_s: float = 2.0


FAULTS = {
    "gpu-lost": Fault(
        "GPU readings ended: the GPU was lost (NVML error 15); the run went on without them", 0.6
    ),
    "unknown-error": Fault(
        "GPU readings ended: unknown NVML error (NVML error 999); the run went on without them", 0.6
    ),
    "no-permission": Fault(
        "NVML device memory ended in mid-run: no permission to read it; what was read until then is kept",
        0.6,
    ),
    "not-supported": Fault("power not measured: this GPU does not support it"),
    "unified-memory": Fault("NVML device memory not measured: this GPU does not support it", 0.0),
    "old-driver": Fault("NVML device memory is version 1: it includes the driver's reservation"),
    "counter-wraps": Fault(None),
    "counter-restarts": Fault(None),
    "foreign-pids": Fault(
        "NVML process memory not measured: NVML lists process 2147480001, which is not here; the GPU's "
        "memory above its idle memory stands for the run"
    ),
    "mig-slice": Fault("power, energy and clocks not measured: a MIG slice has none of its own"),
    "shared-gpu": Fault(
        "process 1 of other programs ran on the GPU and held up to 2.44 GiB: its memory and times are not "
        "the run's alone"
    ),
    "version-mismatch": Fault("no NVML: driver and library versions differ (NVML error 18)", 0.0),
}


@pytest.fixture(scope="module")
def played(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the source read of every trace: one process plays them all."""
    folder = tmp_path_factory.mktemp("faults")
    names = {name: str(find_trace(name)) for name in FAULTS}
    (folder / "foreign-pids").write_text(
        Path(names["foreign-pids"]).read_text().replace("from 1.0", "from 0.1")
    )
    names["foreign-pids"] = str(folder / "foreign-pids")
    traces = {n: (path, SLICE if n == "mig-slice" else UUID) for n, path in names.items()}
    environment = variables(nvml_library, Path(names["gpu-lost"])) | {
        "SCRIPTED_NVML_CLOCK": str(folder / "clock"),
        "SCRIPTED_NVML_WORKER": str(WORKER),
    }
    command = [sys.executable, "-c", PLAY, json.dumps(traces)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FAULTS)
def test_the_user_reads_one_sentence_and_samples_until_then_are_kept(played, name):
    fault, found = FAULTS[name], played[name]
    told = found["notes"]
    assert (fault.sentence in told) if fault.sentence else (told == [])
    if name != "not-supported":  # four readings are lacking there, and each is named
        assert len(told) == bool(fault.sentence)
    read = [row for row in found["rows"] if row["nvml_device_bytes"] is not None]
    assert len(read) == pytest.approx(50 * fault.memory_until_s, abs=2)
    assert all(row["nvml_device_bytes"] > 0 for row in read)


def test_a_lost_gpu_is_lost_from_that_moment_and_says_why(played):
    device = played["gpu-lost"]["device"]
    assert device["lost_ns"] == pytest.approx(600_000_000, abs=20_000_000)
    assert device["lost_because"] == "the GPU was lost (NVML error 15)"
    assert played["not-supported"]["device"]["lost_ns"] is None


def test_a_device_says_what_it_is_and_what_it_can_tell(played):
    device = played["not-supported"]["device"]
    assert (device["uuid"], device["name"]) == (UUID, "NVIDIA Scripted 80GB")
    assert (device["total_bytes"], device["reserved_bytes"]) == (81559 * MIB, 470 * MIB)
    assert (device["idle_bytes"], device["memory_version"]) == (4 * MIB, 2)
    assert (device["has_trusted_pids"], device["has_energy_counter"]) == (True, False)
    assert played["gpu-lost"]["device"]["has_energy_counter"] is True
    assert played["old-driver"]["device"]["memory_version"] == 1
    unified = played["unified-memory"]["device"]
    assert (unified["total_bytes"], unified["idle_bytes"]) == (None, None)


def test_a_slice_has_its_own_memory_and_no_energy(played):
    device = played["mig-slice"]["device"]
    assert (device["total_bytes"], device["idle_bytes"]) == (40448 * MIB, 38 * MIB)
    assert device["has_energy_counter"] is False
    assert all(row["power_w"] is row["energy_j"] is None for row in played["mig-slice"]["rows"])


@pytest.mark.parametrize("name", ["counter-wraps", "counter-restarts"])
def test_a_counter_that_begins_again_is_kept_raw(played, name):
    energy = [row["energy_j"] for row in played[name]["rows"] if row["energy_j"] is not None]
    assert len(energy) == 2
    assert energy[1] < energy[0]


def test_a_stranger_is_seen_with_its_memory_from_when_it_came(played):
    found = played["shared-gpu"]
    foreign = [(row["t_ns"], row["foreign_bytes"]) for row in found["rows"]]
    listed = [(t_ns, held) for t_ns, held in foreign if held is not None]
    assert {held for t_ns, held in listed if t_ns < 600_000_000} == {0}
    assert {held for t_ns, held in listed if t_ns > 620_000_000} == {2500 * MIB}
    assert found["device"]["foreign_bytes_max"] == 2500 * MIB
    assert found["device"]["foreign_pids"] == [1]
    own = {row["nvml_process_bytes"] for row in found["rows"][11:]} - {None}
    assert own == {4000 * MIB}


def test_foreign_process_ids_leave_no_figure_of_a_process(played):
    found = played["foreign-pids"]
    assert found["device"]["has_trusted_pids"] is False
    assert all(row["nvml_process_bytes"] is None for row in found["rows"])
    assert not any(row["foreign_bytes"] for row in found["rows"])


# ---- beside runs ----


def study(library: Path, folder: Path, trace: Path, *options: str, steps_s: str = "0.6") -> Any:
    """Run the small matrix's fake worker against a trace; return how it ended."""
    (folder / "tiny.yaml").write_text(MATRIX)
    runner = [sys.executable, "-m", "tests.nvml", "--replay", str(trace), "--each", "--"]
    command = ["python", "-m", "tests.nvml.replayed", "--matrix", str(folder / "tiny.yaml")]
    command += ["-o", str(folder / "study"), "--fake", "--no-report", *options]
    environment = {**os.environ, "FAKE_STEP_S": steps_s}
    return subprocess.run(
        [*runner, *command], env=environment, capture_output=True, text=True, check=False
    )


def records(folder: Path) -> dict[str, tuple[Record, Path]]:
    """GPU → the record of its last run, and its attempt's folder."""
    store, found = Store(folder / "study"), {}
    for path in sorted((folder / "study" / "runs").iterdir()):
        record = store.read_record(path.name)
        assert record is not None
        attempt = path / f"attempt-{record.attempt}"
        gpus = record.sampler.devices if record.sampler else ()
        found[gpus[0].uuid if gpus else path.name] = (record, attempt)
    return found


@pytest.mark.slow
def test_a_run_whose_gpu_is_lost_ends_as_it_would_have(nvml_library, tmp_path):
    done = study(nvml_library, tmp_path, find_trace("gpu-lost"), "--filter", "sft-micro.full.s0")
    assert done.returncode == 0, done.stderr
    [(record, attempt)] = records(tmp_path).values()
    assert record.status.value == "ok"
    assert record.sampler.gpus == (UUID,)
    assert FAULTS["gpu-lost"].sentence in record.sampler.notes
    [device] = record.sampler.devices
    assert (device.idle_bytes, device.total_bytes) == (4 * MIB, 81559 * MIB)
    assert device.lost_ns is not None
    samples = read_samples(attempt)
    of_gpu = samples[samples.device == UUID]
    assert of_gpu.nvml_device_bytes.max() == 4004 * MIB
    assert of_gpu[of_gpu.t_ns > device.lost_ns].nvml_device_bytes.isna().all()
    host = samples[samples.device == "host"]
    assert host.t_ns.max() > device.lost_ns, "RSS goes on"


def many(folder: Path, names: dict[str, str]) -> Path:
    """One trace with a GPU for each of these faults; name → UUID."""
    lines = ["driver 580.65.06", "cuda 13000"]
    for name, uuid in names.items():
        text = find_trace(name).read_text()
        if name == "hanging-call":  # later, so that samples are on disk by then
            text = text.replace("from 0.6", "from 1.6")
        lines += [f"device {uuid}", text.partition(f"device {UUID}\n")[2]]
    path = folder / "many.trace"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_no_fault_ends_a_run_or_hangs_the_harness(nvml_library, tmp_path):
    names = ["gpu-lost", "not-supported", "unified-memory", "no-permission", "unknown-error"]
    names += ["slow-calls", "hanging-call", "old-driver"]
    uuids = {name: f"GPU-{index:08d}" for index, name in enumerate(names)}
    done = study(nvml_library, tmp_path, many(tmp_path, uuids), steps_s="1")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)
    assert len(found) == 8
    print()
    for name, uuid in uuids.items():
        record, attempt = found[uuid]
        print(f"{name} | {record.status.value} | {' / '.join(record.sampler.notes)}")
        assert record.status.value == "ok"
        assert record.sampler.samples > 10
        memory = read_samples(attempt).query("device == @uuid").nvml_device_bytes
        assert bool(memory.notna().any()) == (name != "unified-memory")
        if name in FAULTS:
            assert FAULTS[name].sentence in record.sampler.notes
    # The call sleeps for 60 ms; how much later it wakes is the machine's doing.
    slow = " ".join(found[uuids["slow-calls"]][0].sampler.notes)
    said = re.search(r"was read every ([\d.]+) s: a reading took ([\d.]+) ms", slow)
    assert said is not None, slow
    every_s, took_ms = map(float, said.groups())
    assert took_ms >= 60
    assert every_s == pytest.approx(took_ms / 200, abs=0.06)
    hung = found[uuids["hanging-call"]][0].sampler
    assert any("gave no answer" in note for note in hung.notes)
    assert hung.devices[0].total_bytes == 81559 * MIB


@pytest.mark.slow
def test_a_library_of_another_version_is_said_before_anything_trains(nvml_library, tmp_path):
    done = study(
        nvml_library, tmp_path, find_trace("version-mismatch"), "--filter", "sft-micro.full.s0"
    )
    assert done.returncode == 7
    assert "driver and library versions differ" in done.stderr


@pytest.mark.slow
def test_under_exclusive_a_stranger_that_stays_ends_the_command_with_nothing_lost(
    nvml_library, tmp_path
):
    trace = tmp_path / "trace"
    trace.write_text(find_trace("not-supported").read_text() + "process.1 2500\n")
    done = study(nvml_library, tmp_path, trace, "--exclusive", "4", "--filter", "sft-micro.full.s0")
    assert done.returncode == 7
    assert f"{UUID} is used by process 1: waiting up to 4 s for it to end" in done.stderr
    assert "what finished is kept" in done.stderr
    assert not list((tmp_path / "study/runs").glob("*/attempt-*"))


@pytest.mark.slow
@pytest.mark.skipif(not has_host_pids(), reason="process ids here are not the host's")
def test_under_exclusive_a_run_that_a_stranger_comes_to_is_contaminated_and_tried_again(
    nvml_library, tmp_path
):
    trace = tmp_path / "trace"
    base = find_trace("gpu-lost").read_text().replace("fault.* 15 from 0.6", "")
    trace.write_text(base + "process.1 2500 from 0.8 to 4\n")
    one = ("--exclusive", "30", "--filter", "sft-micro.full.s0")
    done = study(nvml_library, tmp_path, trace, *one, steps_s="2")
    assert done.returncode == 3, done.stderr
    [(record, _)] = records(tmp_path).values()
    assert record.status.value == "contaminated"
    assert record.reason == (
        f"process 1 of another program came to {UUID} and held 2.44 GiB, and the run was exclusive"
    )
    trace.write_text(base)
    assert study(nvml_library, tmp_path, trace, *one).returncode == 0
    [(record, _)] = records(tmp_path).values()
    assert [attempt.status.value for attempt in record.attempts] == ["contaminated", "ok"]
