"""NVML and the driver: why there is no GPU, and whether torch's CUDA runs on the one there is."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from harness.doctor_driver import Torch, check_driver, explain_absence, installed_torch
from harness.measure.gpus import GpuList, describe_gpus
from tests.doctor_cases import H100, needs
from tests.fake_nvml import FakeNvml

CUDA_13 = Torch("the installed torch", "2.13.0+cu130", "13.0")


def absence(code: int, *, is_container: bool = False, has_device_files: bool = False):
    found = describe_gpus(FakeNvml(faults={"nvmlInit": code}))
    return explain_absence(found, is_container=is_container, has_device_files=has_device_files)


def test_a_missing_library_is_a_missing_driver_on_a_host():
    text, advice = absence(12)
    assert text == "no NVIDIA driver is installed (libnvidia-ml.so.1 not found)"
    assert "branch R580 or newer" in advice


def test_a_missing_library_in_a_container_without_devices_is_a_missing_gpu():
    text, advice = absence(12, is_container=True)
    assert text.startswith("this container was given no GPU")
    assert "--gpus all" in advice
    assert "service `harness`" in advice


def test_a_missing_library_beside_device_files_is_a_missing_capability():
    text, advice = absence(12, is_container=True, has_device_files=True)
    assert "NVIDIA_DRIVER_CAPABILITIES lack `utility`" in text
    assert advice == "set NVIDIA_DRIVER_CAPABILITIES=compute,utility"


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        (4, "may not talk to the driver", "/dev/nvidia*"),
        (9, "kernel module is not loaded", "modprobe nvidia"),
        (18, "of two versions, as after an upgrade", "reboot the host"),
        (999, "unknown error", "restart the container"),
    ],
)
def test_each_refusal_of_nvml_has_a_sentence_and_a_way_out(code, text, advice):
    found = absence(code)
    assert text in found[0]
    assert advice in found[1]


def test_other_refusals_keep_nvmls_words():
    text, advice = absence(17)
    assert text.startswith("no NVML: ")
    assert "nvidia-smi" in advice


def test_a_missing_package_and_an_empty_list_are_explained():
    package = GpuList((), "no NVML: the package nvidia-ml-py is not installed")
    none = describe_gpus(FakeNvml(uuids=()))
    assert explain_absence(package, is_container=False, has_device_files=False) == (
        "the package nvidia-ml-py is not installed",
        "run `make setup`",
    )
    assert explain_absence(none, is_container=False, has_device_files=False) == (
        "the driver runs and lists no GPU",
        "look for it with `lspci`",
    )


def driver(version: str | None, cuda: str | None, torch: Torch = CUDA_13, matrix: str = "blog"):
    gpu = replace(H100, driver_version=version, cuda_driver_version=cuda)
    (check,) = check_driver(needs(matrix), [gpu], torch)
    assert check.name == "driver"
    return check


def test_a_driver_of_the_same_cuda_or_a_newer_one_is_fine():
    assert driver("580.65.06", "13.0").word == "ok"
    check = driver("590.1", "13.1")
    assert (check.word, check.sentence) == (
        "ok",
        "driver 590.1 (CUDA 13.1) runs the installed torch, built for CUDA 13.0",
    )


def test_an_older_cuda_is_a_problem_that_names_the_branch():
    check = driver("575.57.08", "12.9")
    assert (check.word, check.exit_code) == ("problem", 7)
    assert check.sentence == (
        "driver 575.57.08 (CUDA 12.9) is too old for the installed torch, built for CUDA 13.0; update it "
        "to branch R580 or newer"
    )
    assert check.value == {"driver": "575.57.08", "driver_cuda": "12.9", "cuda": "13.0"}
    assert driver("575.57.08", "12.9", matrix="cpu").word == "note"


def test_an_older_minor_version_runs_with_a_note():
    torch = Torch("the image's torch", None, "12.8")
    check = driver("535.104", "12.2", torch)
    assert check.word == "note"
    assert "the image's torch, built for CUDA 12.8, which is a newer minor version" in check.text
    assert driver("470.1", "11.4", torch).advice == "update it to branch R525 or newer"


def test_a_forward_compatibility_package_counts():
    """Its libcuda is the CUDA version that NVML tells, whatever the driver's branch."""
    assert driver("570.86", "13.0").word == "ok"


def test_without_a_cuda_version_the_branch_decides():
    assert driver("580.65.06", None).word == "ok"
    assert driver("550.54", None).word == "problem"
    check = driver(None, None)
    assert (check.word, check.text) == (
        "note",
        "whether driver of unknown version runs the installed torch, built for CUDA 13.0 is unknown",
    )


@pytest.mark.parametrize(("capability", "is_old"), [((7, 0), True), ((7, 5), False), (None, False)])
def test_cuda_13_starts_at_turing(capability, is_old):
    gpu = replace(H100, name="Tesla V100", compute_capability=capability)
    checks = check_driver(needs("blog"), [H100, gpu], CUDA_13)
    assert [c.name for c in checks] == ["driver", *["capability"] * is_old]
    if is_old:
        assert checks[1].sentence == (
            "GPU 0, Tesla V100, has compute capability 7.0, and CUDA 13.0 starts at 7.5; use another GPU, "
            "or a torch built for an older CUDA"
        )
        assert checks[1].word == "problem"


def test_a_torch_for_the_cpu_is_a_problem_for_a_gpu_matrix_even_without_a_gpu():
    torch = Torch("the installed torch", "2.13.0+cpu", None)
    (check,) = check_driver(needs("blog", 0), [], torch)
    assert (check.word, check.text) == (
        "problem",
        "the installed torch 2.13.0+cpu is built for the CPU alone",
    )
    driver, with_gpu = check_driver(needs("blog"), [H100], torch)
    assert (driver.word, driver.text) == ("ok", "driver 580.65.06 (CUDA 13.0)")
    assert with_gpu.word == "problem"
    assert check_driver(needs("cpu", 0), [], torch) == []
    assert [c.word for c in check_driver(needs("cpu"), [H100], torch)] == ["ok", "note"]


def test_without_torch_or_gpu_the_driver_is_not_judged():
    assert check_driver(needs("blog"), [H100], None) == []
    assert check_driver(needs("blog", 0), [], CUDA_13) == []


def test_torch_is_read_from_its_file(tmp_path):
    file = tmp_path / "version.py"
    lines = ["__version__ = '2.13.0+cu130'", "debug = False", "cuda: Optional[str] = '13.0'"]
    file.write_text("\n".join(lines))
    assert installed_torch(file) == CUDA_13
    file.write_text("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    assert installed_torch(file) == Torch("the installed torch", "2.13.0+cpu", None)
    assert installed_torch(tmp_path / "none.py") is None


def test_the_installed_torch_is_found():
    found = installed_torch()
    assert found is not None
    assert found.version == version("torch")
