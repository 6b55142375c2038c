"""What a container, or a cgroup of any kind, leaves of the machine to this process.

psutil and /proc tell of the whole machine; the kernel kills and throttles by the cgroup. Reads the
files of cgroup v1 and v2. What this leaves out: pinned cores, which `os.sched_getaffinity` knows, and
the count of memory kills (`launch.ending`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

VARIANT = "HARNESS_IMAGE_VARIANT"  # set in the harness's own images: cpu or cuda
# What engines leave in a container: Docker, Podman, Kubernetes; systemd-nspawn and Podman set `container`.
_FILES = ("/.dockerenv", "/run/.containerenv")
_VARIABLES = (VARIANT, "KUBERNETES_SERVICE_HOST", "container")
_CGROUP_WORDS = ("/docker", "/kubepods", "/libpod", "/containerd", "/lxc", ".scope/container")
# cgroup v1 says 'no limit' with the largest number of whole pages.
_NO_LIMIT_BYTES = 2**62


@dataclass(frozen=True)
class Limits:
    """What this process's cgroup allows; None is no limit, or none that can be seen."""

    memory_bytes: int | None = None
    memory_used_bytes: int | None = None  # of the cgroup, file cache that can be dropped left out
    cpus: float | None = None  # processor time a second, however many cores there are


@dataclass(frozen=True)
class Ram:
    """Memory that workers can have: the machine's, or less where a cgroup limits it."""

    available_bytes: int
    total_bytes: int
    machine_bytes: int

    @classmethod
    def here(cls) -> Ram:
        """Look at this machine."""
        machine = psutil.virtual_memory()
        return cls.of(machine.available, machine.total, read_limits())

    @classmethod
    def of(cls, available_bytes: int, machine_bytes: int, limits: Limits) -> Ram:
        """Take the tighter of the machine and its cgroup."""
        limit = limits.memory_bytes
        if limit is None or limit >= machine_bytes:
            return cls(available_bytes, machine_bytes, machine_bytes)
        left = limit - (limits.memory_used_bytes or 0)
        return cls(max(0, min(available_bytes, left)), limit, machine_bytes)


def container_signs(
    environ: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    cgroups: Path = Path("/proc/self/cgroup"),
) -> tuple[str, ...]:
    """Return what tells that this is a container; nothing on a host, as far as can be seen."""
    environ = os.environ if environ is None else environ
    files = [name for name in _FILES if (root / name.lstrip("/")).exists()]
    variables = [name for name in _VARIABLES if environ.get(name)]
    paths = [path for _, path in _memberships(cgroups)]
    named = any(word in path for path in paths for word in _CGROUP_WORDS)
    return (*files, *variables, *([str(cgroups)] if named else []))


def read_limits(
    cgroups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Limits:
    """Read the tightest limits of this process's cgroup and of those around it."""
    memory, cpus, used = list[int](), list[float](), None
    for folder in _folders(cgroups, root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT_BYTES:
            memory.append(limit)
            used = _used(folder) if limit == min(memory) else used
    for folder in _folders(cgroups, root, "cpu"):
        share = _share(folder)
        cpus += [share] if share is not None else []
    return Limits(min(memory, default=None), used, min(cpus, default=None))


def _memberships(cgroups: Path) -> list[tuple[str, str]]:
    """(controllers, path) of every hierarchy; v2's controllers are empty."""
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    parts = [line.split(":", 2) for line in lines]
    return [(p[1], p[2]) for p in parts if len(p) == 3]


def _folders(cgroups: Path, root: Path, controller: str) -> Iterator[Path]:
    """Every folder whose limit of a controller holds for this process, innermost first.

    In a container the path is often the host's, and the container's own group is the mount itself.
    """
    for controllers, path in _memberships(cgroups):
        if controllers == "":
            mount = root
        elif controller in controllers.split(","):
            mount = root / controller
        else:
            continue
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder == root.parent or (controllers and folder == root):
                break
            yield folder


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # v2 writes 'max' for no limit
        return None


def _used(folder: Path) -> int | None:
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
    if used is None:
        return None
    try:
        rows = [
            r.split() for r in (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        ]
    except OSError:
        rows = []
    stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
    return max(0, used - stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _share(folder: Path) -> float | None:
    """CPUs that a quota comes to."""
    try:
        quota_text, period_text = (folder / "cpu.max").read_text(encoding="utf-8").split()
        quota, period = int(quota_text), int(period_text)
    except (OSError, ValueError):
        quota = _number(folder / "cpu.cfs_quota_us") or 0
        period = _number(folder / "cpu.cfs_period_us") or 0
    return quota / period if quota > 0 and period > 0 else None
