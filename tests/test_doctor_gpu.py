"""GPUs: listed with what matters, and what would spoil a measurement is found."""

from __future__ import annotations

from dataclasses import replace

import psutil

from harness.doctor_gpu import check_gpus, check_pids, check_use, process_name
from harness.measure.gpus import GpuList, GpuProcess, MigSlice, describe_gpus
from tests.doctor_cases import GIB, H100, gpus, needs
from tests.fake_nvml import FakeNvml, process

NO_DRIVER = ("no NVIDIA driver is installed", "install one")


def used(gpu, matrix: str = "blog", **options):
    options = {"has_host_pids": True, "name_of": {77: "python", 78: "vllm"}.get, **options}
    return check_use(needs(matrix), gpu, **options)


def test_each_gpu_is_a_line_with_its_uuid_memory_and_modes():
    checks = check_gpus(needs("blog"), GpuList(gpus(2)), gpus(2), NO_DRIVER)
    assert [c.word for c in checks] == ["ok", "ok"]
    assert checks[1].text == (
        "1: NVIDIA H100 80GB HBM3, GPU-1, 79.65 GiB, 79.65 GiB free, capability 9.0, ECC on"
    )
    assert checks[1].value["uuid"] == "GPU-1"
    assert "processes" not in checks[1].value


def test_what_is_not_told_is_left_out():
    gpu = describe_gpus(
        FakeNvml(
            faults={
                f"nvmlDeviceGet{n}": 3 for n in ("MemoryInfo", "EccMode", "CudaComputeCapability")
            }
        )
    ).gpus[0]
    (check,) = check_gpus(needs("blog"), GpuList((gpu,)), (gpu,), NO_DRIVER)
    assert check.text == "0: NVIDIA Fake, GPU-aaaa, memory not told"


def test_a_gpu_that_was_lost_is_told_beside_the_others():
    found = GpuList(gpus(1), "GPU readings end: the GPU was lost (NVML error 15, at GPU 1)")
    checks = check_gpus(needs("blog", 1), found, found.gpus, NO_DRIVER)
    assert [c.word for c in checks] == ["ok", "note"]
    assert "the GPU was lost" in checks[1].text


def test_no_gpu_is_a_problem_only_for_a_matrix_that_needs_one():
    (check,) = check_gpus(needs("blog", 0), GpuList(()), (), NO_DRIVER)
    assert (check.word, check.exit_code) == ("problem", 7)
    assert check.text == "matrix 'blog' needs a CUDA GPU: no NVIDIA driver is installed"
    assert check.advice.startswith("install one; ")
    assert "harness bench --matrix blog --rehearse" in check.advice
    (check,) = check_gpus(needs("cpu", 0), GpuList(()), (), NO_DRIVER)
    assert (check.word, check.sentence) == (
        "note",
        "none: no NVIDIA driver is installed; matrix 'cpu' runs on the CPU",
    )


def test_hidden_gpus_are_not_a_missing_driver():
    (check,) = check_gpus(needs("blog", 0), GpuList(gpus(2)), (), NO_DRIVER, "7")
    assert check.text == (
        "matrix 'blog' needs a CUDA GPU: CUDA_VISIBLE_DEVICES hides the 2 GPUs of this machine: it says "
        "'7', and they are numbered 0, 1"
    )
    assert check.advice.startswith("unset it, or name one in it: 0 (GPU-0), 1 (GPU-1); ")


def test_a_rehearsal_is_advised_by_the_matrix_as_it_was_given():
    asked = replace(needs("blog", 0), named="'my matrices/blog.yaml'")
    (check,) = check_gpus(asked, GpuList(()), (), NO_DRIVER)
    assert "`harness bench --matrix 'my matrices/blog.yaml' --rehearse`" in check.advice


def test_an_idle_gpu_has_nothing_to_say():
    assert used(H100) == []
    assert used(describe_gpus(FakeNvml(used=GIB)).gpus[0]) == []


def test_processes_on_a_gpu_are_a_problem_with_their_names():
    nvml = FakeNvml(processes=[process(77, GIB), process(78, 2 * GIB), process(79, None)])
    (check,) = used(describe_gpus(nvml).gpus[0])
    assert (check.name, check.word) == ("busy", "problem")
    assert check.text == (
        "GPU 0 is busy: 3 processes with 3.00 GiB (77 python, 78 vllm, 79 ?); what runs there would be in "
        "every measurement"
    )
    assert "CUDA_VISIBLE_DEVICES" in check.advice
    assert check.value["processes"][0] == {"pid": 77, "used_bytes": GIB}


def test_foreign_process_ids_are_counted_and_not_named():
    gpu = replace(H100, processes=(GpuProcess(77, None),))
    (check,) = used(gpu, has_host_pids=False)
    assert check.text.startswith("GPU 0 is busy: 1 process; ")


def test_many_processes_are_named_in_part():
    gpu = replace(H100, processes=tuple(GpuProcess(n, GIB) for n in range(5)))
    assert "(0 ?, 1 ?, 2 ? and 2 more)" in used(gpu)[0].text


def test_memory_in_use_without_a_process_is_a_busy_gpu():
    (check,) = used(replace(H100, used_bytes=12 * GIB))
    assert (check.word, check.name) == ("problem", "busy")
    assert "12.00 GiB are in use, by processes that NVML does not list here" in check.text
    assert used(replace(H100, used_bytes=GIB // 2)) == []


def test_a_busy_gpu_is_a_note_for_a_matrix_on_the_cpu():
    assert [c.word for c in used(replace(H100, used_bytes=12 * GIB), "cpu")] == ["note"]


def test_compute_modes():
    (check,) = used(replace(H100, compute_mode="prohibited"))
    assert check.word == "problem"
    assert check.text == "GPU 0 is in compute mode 'prohibited': no program may use it"
    assert check.advice == "`nvidia-smi -i 0 -c DEFAULT` as root"
    (check,) = used(replace(H100, compute_mode="exclusive process"))
    assert (check.word, check.name) == ("note", "compute mode")
    assert "one program at a time" in check.text


def test_uncorrected_errors_are_a_problem():
    (check,) = used(replace(H100, ecc_uncorrected=2))
    assert (check.name, check.word) == ("ecc", "problem")
    assert check.text == (
        "GPU 0 had 2 uncorrected ECC errors since its driver loaded: results on it can't be trusted"
    )


def mig(*sizes: int | None):
    slices = tuple(MigSlice(f"MIG-{i}", f"MIG {i}g", s) for i, s in enumerate(sizes))
    return replace(H100, is_mig_enabled=True, mig_slices=slices, used_bytes=9 * GIB).as_shown


def test_a_slice_is_measured_against_the_largest_arm():
    (check,) = used(mig(40 * GIB, 20 * GIB))
    assert (check.name, check.word) == ("mig", "problem")
    assert "MIG slices, MIG 0g (40.00 GiB), MIG 1g (20.00 GiB); runs get MIG 0g" in check.text
    assert "the largest arm takes 72.78 GiB" in check.text
    assert "nvidia-smi -i 0 -mig 0" in check.advice
    assert used(mig(79 * GIB))[0].word == "note"
    assert used(mig(10 * GIB), "cpu")[0].word == "note"
    assert used(mig(None))[0].word == "problem"


def test_mig_without_a_slice_is_no_gpu():
    (check,) = used(mig())
    assert (check.word, check.text) == (
        "problem",
        "GPU 0 is in MIG mode and has no slice: no program can use it",
    )


def test_turing_emulates_bfloat16():
    (check,) = used(replace(H100, compute_capability=(7, 5)))
    assert (check.name, check.word) == ("bfloat16", "note")
    assert "compute capability 7.5: below 8.0 bfloat16" in check.text
    assert used(replace(H100, compute_capability=(7, 5)), "cpu") == []


def test_the_process_lens_is_off_where_ids_are_foreign():
    (check,) = check_pids(needs("blog"), gpus(1), has_host_pids=False)
    assert check.word == "note"
    assert "NVML's memory per process is not measured" in check.text
    assert check_pids(needs("blog"), gpus(1), has_host_pids=True) == []
    assert check_pids(needs("blog", 0), (), has_host_pids=False) == []
    assert check_pids(needs("cpu"), gpus(1), has_host_pids=False) == []


def test_a_process_of_this_machine_has_a_name():
    assert process_name(psutil.Process().pid)
    assert process_name(2**22 + 1) is None
