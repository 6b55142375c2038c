"""`harness doctor`: is this machine fit for a matrix? Checks that cost seconds, before hours are spent.

`survey` looks at the machine once; everything after it is values in, findings out. Nothing is
downloaded, no network is touched and no CUDA context made; a token's value is never shown. The parts:
`doctor_host`, `doctor_driver`, `doctor_gpu`, `doctor_disk`, `doctor_hub`, `doctor_engine`,
`doctor_matrix`, over `doctor_needs`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import __version__
from harness.access import is_offline
from harness.caches import cache_dir
from harness.doctor_check import Check
from harness.doctor_disk import (
    Room,
    check_folder,
    check_scratch,
    check_together,
    harness_folder,
    hub_folder,
    look,
    results_folder,
)
from harness.doctor_driver import Torch, check_driver, explain_absence, installed_torch
from harness.doctor_engine import Ask, ask_docker, check_engine
from harness.doctor_gpu import check_gpus, check_pids, check_use
from harness.doctor_host import (
    Shared,
    check_compiler,
    check_cores,
    check_memory,
    check_packages,
    check_place,
    check_shared,
    compiler_lack,
    read_shared,
)
from harness.doctor_hub import check_repositories, check_token
from harness.doctor_matrix import check_extras, check_fit, check_needs, line
from harness.doctor_needs import Needs, needs_of
from harness.downloads import CacheSize, hub_cache
from harness.errors import ConfigError
from harness.hub_token import HubToken, find_token
from harness.mapping import unread_maps
from harness.matrix import shipped_matrices
from harness.measure.container import Limits, Ram, container_signs, read_limits
from harness.measure.gpus import Gpu, GpuList, list_gpus, visible_gpus
from harness.measure.nvml import has_host_pids
from harness.outlook import Ground
from harness.plan import Request
from harness.planning import look_around
from harness.rates import load_rates
from harness.sources import needs as read_by


@dataclass(frozen=True)
class Asked:
    """What `harness doctor` was asked."""

    matrix: str
    output_dir: Path | None = None
    filters: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    budget: str | None = None
    maps: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None  # whose labels count instead of what is installed here
    lists_all: bool = False  # every shipped matrix, a line each: all of its runs

    @property
    def request(self) -> Request:
        """What `harness bench` would be asked."""
        return Request(
            self.matrix,
            filters=self.filters,
            seeds=self.seeds,
            budget=self.budget,
            maps=dict(self.maps),
        )


@dataclass(frozen=True)
class Machine:
    """What is here, whatever matrix is asked about."""

    environ: Mapping[str, str]
    signs: tuple[str, ...]  # that this is a container
    uid: int
    gid: int
    cores: int
    limits: Limits
    ram: Ram
    shared: Shared | None
    gpus: GpuList
    visible: tuple[Gpu, ...]
    has_device_files: bool
    has_host_pids: bool
    torch: Torch | None
    ground: Ground
    token: HubToken
    is_offline: bool
    cached_bytes: CacheSize
    hub_cache: Room
    harness_cache: Room
    scratch: Room
    compiler_lack: str | None = None  # what Triton would lack to compile with
    look: Callable[[Path], Room] = look  # at the folder of a study

    @property
    def is_container(self) -> bool:
        """Whether anything tells of one."""
        return bool(self.signs)


@dataclass(frozen=True)
class Installation:
    """What would train: the packages here, or those of an image."""

    torch: Torch | None  # None: not installed, or an image does not tell
    is_here: bool = True

    def check(self, *found: Check) -> list[Check]:
        """Keep what was found of the packages here; where an image trains, lacks are notes."""
        if self.is_here:
            return list(found)
        return [replace(c, word="note") if c.word == "problem" else c for c in found]


def survey() -> Machine:
    """Look at this machine, with this process's eyes."""
    from huggingface_hub import constants

    environ = os.environ
    found, devices = list_gpus(), environ.get("CUDA_VISIBLE_DEVICES")
    ground, _ = look_around(load_rates(), None, found, devices)
    return Machine(
        environ=environ,
        signs=container_signs(environ),
        uid=os.geteuid(),
        gid=os.getegid(),
        cores=len(os.sched_getaffinity(0)),
        limits=read_limits(),
        ram=Ram.here(),
        shared=read_shared(),
        gpus=found,
        visible=visible_gpus(found.gpus, devices),
        has_device_files=any(Path("/dev").glob("nvidia[0-9]*")),
        has_host_pids=has_host_pids(),
        torch=installed_torch(),
        ground=ground,
        token=find_token(environ),
        is_offline=is_offline(),
        cached_bytes=hub_cache(),
        hub_cache=look(Path(constants.HF_HUB_CACHE)),
        harness_cache=look(cache_dir()),
        scratch=look(Path(environ.get("TMPDIR") or "/tmp")),  # noqa: S108 - where Python looks
        compiler_lack=compiler_lack(environ),
    )


def examine(asked: Asked, machine: Machine | None = None, ask: Ask = ask_docker) -> list[Check]:
    """Check the machine against a matrix, or the runs chosen of it.

    Raises: ConfigError if the matrix is unknown or wrong, has none of what is chosen, or reads none of
    what is mapped.
    """
    machine = machine or survey()
    needs = _needs(asked.request, machine)
    if unread := unread_maps(asked.maps, read_by(needs.specs)):
        raise ConfigError(*unread)
    has_hook = shutil.which("nvidia-container-runtime-hook") is not None
    engine, image_torch = check_engine(
        needs, ask, asked.image, machine.environ, __version__, has_hook
    )
    if machine.is_container and not asked.image and engine[0].word != "ok":
        engine = []  # a container seldom reaches its engine, and has no use for it
    trains = Installation(image_torch, False) if asked.image else Installation(machine.torch)
    checks = judge(needs, machine, machine.look(asked.output_dir or needs.output_dir), trains)
    names = shipped_matrices() if asked.lists_all else ()
    return [*checks, *engine, *(_line(name, asked.maps, machine, trains) for name in names)]


def judge(needs: Needs, machine: Machine, results: Room, trains: Installation) -> list[Check]:
    """Compare what a matrix needs with what is here, and with what would train it."""
    is_container = machine.is_container
    absence = explain_absence(
        machine.gpus, is_container=is_container, has_device_files=machine.has_device_files
    )
    folders = (
        results_folder(needs, results),
        hub_folder(needs, machine.hub_cache),
        harness_folder(needs, machine.harness_cache),
    )
    return [
        *trains.check(
            check_packages(needs, is_container=is_container),
            *check_extras(needs),
            *check_compiler(needs, machine.compiler_lack, has_tiles=machine.ground.has_tiles),
        ),
        check_place(needs, machine.signs, machine.environ, machine.uid, machine.gid),
        check_cores(machine.cores, machine.limits),
        check_memory(needs, machine.ram),
        check_shared(needs, machine.shared, is_container=is_container),
        *check_gpus(
            needs,
            machine.gpus,
            machine.visible,
            absence,
            machine.environ.get("CUDA_VISIBLE_DEVICES"),
        ),
        *check_driver(needs, machine.visible, trains.torch),
        *[
            check
            for gpu in machine.visible
            for check in check_use(needs, gpu, has_host_pids=machine.has_host_pids)
        ],
        *check_pids(needs, machine.visible, has_host_pids=machine.has_host_pids),
        *[check_folder(f, machine.uid, is_container=is_container) for f in folders],
        *check_together(folders),
        check_scratch(needs, machine.scratch, machine.environ),
        check_token(needs, machine.token, machine.environ, is_container=is_container),
        *check_repositories(needs, is_offline=machine.is_offline, is_container=is_container),
        check_needs(needs, machine.ground.name),
        *check_fit(needs, machine.gpus),
    ]


def _needs(request: Request, machine: Machine) -> Needs:
    has_token = machine.token.is_found
    return needs_of(request, machine.ground, machine.cached_bytes, has_token=has_token)


def _line(name: str, maps: Mapping[str, str], machine: Machine, trains: Installation) -> Check:
    try:
        needs = _needs(Request(name, maps=dict(maps)), machine)
    except ConfigError as error:
        return Check("matrices", name, "note", f"can't be read: {error.problems[0]}")
    return line(needs, judge(needs, machine, machine.look(needs.output_dir), trains))
