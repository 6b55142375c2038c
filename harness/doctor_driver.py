"""The driver: does NVML answer, and can the CUDA that torch is built for run on it?

torch is never imported and CUDA never started: a version is read from a file, the rest is NVML's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.doctor_check import Check, Word, word_if
from harness.doctor_needs import Needs
from harness.measure.gpus import Gpu, GpuList

# CUDA's major version → the oldest driver branch that runs it, since CUDA 11 any minor version of it.
# Source: docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
OLDEST_DRIVER = {13: 580, 12: 525, 11: 450}
# CUDA's major version → the oldest compute capability that its libraries hold code for. Source: the
# release notes of CUDA 13.0 (Maxwell, Pascal and Volta removed) and 12.0 (Kepler removed).
OLDEST_CAPABILITY = {13: (7, 5), 12: (5, 0), 11: (3, 5)}
# NVML's return code → what keeps it from starting, and what to do (nvml.h, nvmlReturn_t).
_ABSENCES = {
    4: (
        "this user may not talk to the driver",
        "let it open /dev/nvidia* (in a container: through the NVIDIA runtime)",
    ),
    9: (
        "NVIDIA's driver is installed, and its kernel module is not loaded",
        "`modprobe nvidia` on the host; with Secure Boot the module has to be signed",
    ),
    18: (
        "the driver's kernel module and its library are of two versions, as after an upgrade",
        "reboot the host, so that the new module is loaded",
    ),
    999: (
        "NVML answers 'unknown error', as where a container lost its access to the GPU (systemd's "
        "daemon-reload takes it)",
        "restart the container, or on a host look into `dmesg`",
    ),
}
_NO_LIBRARY = 12


def explain_absence(
    found: GpuList, *, is_container: bool, has_device_files: bool
) -> tuple[str, str]:
    """Say why NVML lists no GPU, and what to do; `has_device_files`: /dev/nvidia0 or the like is here."""
    if found.nvml_error == _NO_LIBRARY:
        return _no_library(is_container, has_device_files)
    if found.nvml_error in _ABSENCES:
        return _ABSENCES[found.nvml_error]
    if found.note and "nvidia-ml-py" in found.note:
        return "the package nvidia-ml-py is not installed", "run `make setup`"
    if found.note == "NVML lists no GPU":
        return "the driver runs and lists no GPU", "look for it with `lspci`"
    return found.note or "NVML lists no GPU", "`nvidia-smi` on the host has the driver's words"


def _no_library(is_container: bool, has_device_files: bool) -> tuple[str, str]:
    if not is_container:
        return (
            "no NVIDIA driver is installed (libnvidia-ml.so.1 not found)",
            f"where there is a GPU, install branch R{max(OLDEST_DRIVER.values())} or newer",
        )
    if has_device_files:
        return (
            "this container has a GPU's device files and no NVML library (libnvidia-ml.so.1): its "
            "NVIDIA_DRIVER_CAPABILITIES lack `utility`",
            "set NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    return (
        "this container was given no GPU (no NVML library, no device files)",
        "start it with --gpus all, or as service `harness` of docker-compose.yml; `harness doctor` on the "
        "host says whether its Docker can",
    )


@dataclass(frozen=True)
class Torch:
    """A build of torch; `cuda` None is one for the CPU alone."""

    whose: str  # as a sentence goes on: 'the installed torch'
    version: str | None
    cuda: str | None


def installed_torch(version_file: Path | None = None) -> Torch | None:
    """Read what the installed torch is built for, without importing it; None: not installed."""
    if version_file is None:
        found = find_spec("torch")
        if found is None or not found.submodule_search_locations:
            return None
        version_file = Path(next(iter(found.submodule_search_locations))) / "version.py"
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return None
    return Torch("the installed torch", _assigned(text, "__version__"), _assigned(text, "cuda"))


def check_driver(needs: Needs, visible: Sequence[Gpu], torch: Torch | None) -> list[Check]:
    """Compare driver and GPUs with the CUDA that torch is built for."""
    if torch is None or not (visible or needs.uses_gpu):
        return []  # that torch is missing is said with the packages
    if torch.cuda is None:
        text = f"{torch.whose} {torch.version or ''} is built for the CPU alone".replace("  ", " ")
        advice = "install a torch built for CUDA, or use the CUDA image" if needs.uses_gpu else ""
        value = {"torch": torch.version, "cuda": None}
        only = Check("gpu", "cuda", word_if(needs.uses_gpu), text, advice, value)
        return [Check("gpu", "driver", "ok", _called(visible[0])), only] if visible else [only]
    checks = [_driver(needs, visible[0], torch.whose, torch.cuda)] if visible else []
    return checks + [c for gpu in visible for c in _capability(needs, gpu, torch.cuda)]


def _driver(needs: Needs, gpu: Gpu, whose: str, cuda: str) -> Check:
    driver = _called(gpu)
    word, text, advice = _judge(driver, gpu, f"{whose}, built for CUDA {cuda}", cuda)
    if word == "problem":
        word = word_if(needs.uses_gpu)
    value = {"driver": gpu.driver_version, "driver_cuda": gpu.cuda_driver_version, "cuda": cuda}
    return Check("gpu", "driver", word, text, advice, value)


def _called(gpu: Gpu) -> str:
    driver = f"driver {gpu.driver_version or 'of unknown version'}"
    return f"{driver} (CUDA {gpu.cuda_driver_version})" if gpu.cuda_driver_version else driver


def _judge(driver: str, gpu: Gpu, torch: str, cuda: str) -> tuple[Word, str, str]:
    """Compare by CUDA versions, so that a forward compatibility package counts; else by the branch."""
    needed, has = _version(cuda), _version(gpu.cuda_driver_version)
    oldest = OLDEST_DRIVER.get(needed[0]) if needed else None
    branch = _version(gpu.driver_version)
    if needed and has and has >= needed:
        return "ok", f"{driver} runs {torch}", ""
    if needed and has and has[0] == needed[0]:
        text = (
            f"{driver} runs {torch}, which is a newer minor version: kernels compiled from PTX fail"
        )
        return "note", text, "update the driver if one does"
    if has is None and oldest and branch and branch[0] >= oldest:
        return "ok", f"{driver} runs {torch}", ""
    if has is None and not (oldest and branch):
        return "note", f"whether {driver} runs {torch} is unknown", ""
    wanted = f"branch R{oldest} or newer" if oldest else f"one for CUDA {cuda}"
    return "problem", f"{driver} is too old for {torch}", f"update it to {wanted}"


def _capability(needs: Needs, gpu: Gpu, cuda: str) -> list[Check]:
    needed = _version(cuda)
    oldest = OLDEST_CAPABILITY.get(needed[0]) if needed else None
    if not oldest or not gpu.compute_capability or gpu.compute_capability >= oldest:
        return []
    text = (
        f"GPU {gpu.index}, {gpu.name}, has compute capability {dotted(gpu.compute_capability)}, and CUDA "
        f"{cuda} starts at {dotted(oldest)}"
    )
    advice = "use another GPU, or a torch built for an older CUDA"
    value = {"uuid": gpu.uuid, "compute_capability": gpu.compute_capability, "oldest": oldest}
    return [Check("gpu", "capability", word_if(needs.uses_gpu), text, advice, value)]


def dotted(version: tuple[int, int]) -> str:
    """Write a version."""
    return ".".join(map(str, version))


def _version(text: str | None) -> tuple[int, int] | None:
    numbers = re.match(r"(\d+)(?:\.(\d+))?", text or "")
    return (int(numbers[1]), int(numbers[2] or 0)) if numbers else None


def _assigned(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None
