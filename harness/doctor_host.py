"""The machine, or what a container leaves of it: packages, a compiler, cores, memory, shared memory."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.doctor_check import Check, word_if
from harness.doctor_needs import Needs
from harness.measure.container import VARIANT, Limits, Ram
from harness.slots import MEMORY_PER_WORKER
from harness.text import memory, number, plural

NEEDED = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "math-verify")
REASONING_GYM = ("gsm_symbolic", "chain_sum")  # datasets that the package generates
EMBEDDED_BYTES = 2**30  # a worker with an embedded model; measured: up to 0.55 GiB
# What NCCL's guide asks containers to set (troubleshooting, shared memory): --shm-size=1g.
SHARED_BYTES = 2**30
SHARED_FOLDER = Path("/dev/shm")  # noqa: S108 - only looked at


@dataclass(frozen=True)
class Shared:
    """The file system in which processes share memory."""

    free_bytes: int
    total_bytes: int


def read_shared(folder: Path = SHARED_FOLDER) -> Shared | None:
    """Look at the shared memory's file system; None if there is none."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Shared(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def check_packages(
    needs: Needs, *, is_container: bool = False, find_version: Callable[[str], str] = version
) -> Check:
    """Look for every package that the matrix needs; `gguf` only builds the cache of SmolLM2."""
    wanted = list(NEEDED)
    if any(spec.dataset.name in REASONING_GYM for spec in needs.specs):
        wanted.append("reasoning-gym")
    if any(r.name == "smollm2" for r in needs.from_hub):
        wanted.append("gguf")
    found, missing = dict[str, str](), list[str]()
    for name in wanted:
        try:
            found[name] = find_version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        text = f"missing {', '.join(missing)}"
        advice = "build the image again" if is_container else "run `make setup`"
        return Check("software", "packages", "problem", text, advice, found)
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    return Check("software", "packages", "ok", listed, value=found)


def compiler_lack(
    environ: Mapping[str, str],
    which: Callable[[str], str | None] = shutil.which,
    headers: Path | None = None,
) -> str | None:
    """Say what Triton would lack to compile its launcher; None if nothing. It looks where Triton does."""
    named = environ.get("CC")
    if named and which(named) is None:
        return f"CC names {named!r}, and there is no such compiler"
    if not named and which("gcc") is None and which("clang") is None:
        return "there is no C compiler (gcc or clang)"
    headers = headers or Path(sysconfig.get_paths()["include"])
    return None if (headers / "Python.h").is_file() else "Python's headers (Python.h) are missing"


def check_compiler(needs: Needs, lack: str | None, *, has_tiles: bool) -> list[Check]:
    """Report a lack where runs on a GPU would end at it: TRL scores tokens with a Triton kernel."""
    if lack is None or not (needs.uses_gpu and has_tiles):
        return []
    text = f"{lack}: Triton compiles with it when a kernel first runs, in a run's first step"
    advice = "install a compiler and the headers (Debian, Ubuntu: gcc libc6-dev python3-dev)"
    return [Check("software", "compiler", "problem", text, advice)]


def check_place(
    needs: Needs, signs: Sequence[str], environ: Mapping[str, str], uid: int, gid: int
) -> Check:
    """Say whether this is a container, whose image it is, and as which user it runs."""
    variant = environ.get(VARIANT)
    value = {"container": list(signs), "variant": variant, "uid": uid, "gid": gid}
    who = f"user {uid}:{gid}"
    if not signs:
        text = f"a host, as far as can be seen; {who}"
        return Check("machine", "place", "ok", text, value=value)
    if variant == "cpu" and needs.matrix.device == "gpu":
        text = (
            f"a container of the harness's CPU image, and matrix {needs.matrix.name!r} needs a GPU"
        )
        advice = "use the CUDA image: service `harness` instead of `harness-cpu`"
        return Check("machine", "place", "problem", text, advice, value)
    image = (
        f"of the harness's image, variant {variant}" if variant else "not of the harness's image"
    )
    text = f"a container, {image} (seen by {', '.join(signs)}); {who}"
    return Check("machine", "place", "ok", text, value=value)


def check_cores(cores: int, limits: Limits) -> Check:
    """Count the cores that workers may use; a quota below them throttles pinned workers."""
    value = {"cores": cores, "quota_cpus": limits.cpus}
    text = f"{plural(cores, 'usable core')}, one worker each unless --jobs says otherwise"
    if limits.cpus is None or limits.cpus >= cores:
        return Check("machine", "cpu", "ok", text, value=value)
    text = (
        f"{plural(cores, 'usable core')}, and a cgroup quota of {number(limits.cpus, 2)} CPUs: workers "
        "that have a core each would be throttled, and their times with them"
    )
    advice = (
        f"pass --jobs {max(1, int(limits.cpus))}, or pin cores (--cpuset-cpus) instead of a quota"
    )
    return Check("machine", "cpu", "note", text, advice, value)


def check_memory(needs: Needs, ram: Ram) -> Check:
    """Compare free memory with what a worker takes, and with loading the largest model."""
    value = {"available_bytes": ram.available_bytes, "total_bytes": ram.total_bytes}
    text = f"{memory(ram.available_bytes)} of {memory(ram.total_bytes)} free"
    advice = "close other programs"
    if ram.total_bytes < ram.machine_bytes:
        text += f", by the limit of a cgroup (the machine has {memory(ram.machine_bytes)})"
        advice = "raise the container's limit (--memory, mem_limit)"
    needed = EMBEDDED_BYTES if needs.matrix.scale == "embedded" else MEMORY_PER_WORKER
    if ram.available_bytes < needed:
        text += f"; a worker needs up to {memory(needed)}"
        return Check("machine", "memory", "problem", text, advice, value)
    if ram.available_bytes < needs.host_bytes:
        text += f"; the largest model's weights take {memory(needs.host_bytes)} while they load"
        return Check("machine", "memory", "note", text, value=value)
    return Check("machine", "memory", "ok", text, value=value)


def check_shared(needs: Needs, shared: Shared | None, *, is_container: bool) -> Check:
    """Look for room in /dev/shm: NCCL, vLLM and data loaders fail without, hours into a study."""
    is_needed = needs.uses_gpu or needs.processes > 1
    value = {"free_bytes": shared.free_bytes, "total_bytes": shared.total_bytes} if shared else {}
    text = (
        f"{SHARED_FOLDER} has {memory(shared.free_bytes)} of {memory(shared.total_bytes)} free"
        if shared
        else f"there is no {SHARED_FOLDER}"
    )
    if shared and shared.free_bytes >= SHARED_BYTES:
        return Check("machine", "shared memory", "ok", text, value=value)
    text += f"; NCCL, vLLM and data loaders share memory there, and want {memory(SHARED_BYTES)}"
    advice = f"`mount -o remount,size=8g {SHARED_FOLDER}` as root"
    if is_container:
        advice = (
            "start the container with --shm-size=8g, or by docker-compose.yml, which asks for it"
        )
    shown = advice if is_needed else ""
    return Check("machine", "shared memory", word_if(is_needed), text, shown, value)
