"""The launcher `docker`: every run in a container of its own, made from one image.

A container gets the run's folder and, read-only, the folders it reads, at the paths they have here;
no network, no token, no capability, a read-only root. Its first process is the engine's init, which
starts the worker (the tree that is sampled from outside counts it too: about a megabyte). Workers
start cold. What this leaves out: building images, and engines on other machines: the study's folder
must be one that the engine sees.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from harness.caches import cache_dir
from harness.engines import image_problems
from harness.errors import MachineError
from harness.launch import Handle, Launch
from harness.launch.contained import ContainerHandle
from harness.launch.engine import Engine, EngineRefused, Order, connect, explain, reached
from harness.launch.images import Looked, is_local, look, owner_of, remove
from harness.launch.local import worker_variables
from harness.launch.reaper import ORDERLY
from harness.measure.environment import VARIABLES
from harness.record import Container
from harness.spec import RunSpec

COMMAND = ("python", "-m", "harness.worker")
PARALLEL_COMMAND = ("python", "-m", "harness.worker.distributed")
SUPERVISOR_LABEL = "io.lora-harness.supervisor"
STUDY_LABEL = "io.lora-harness.study"


class DockerLauncher:
    """Starts workers in containers of `image`, which has to hold the release `trl` if one is named.

    `command` takes the worker's place (the attempt's folder is appended).
    """

    name = "docker"
    is_ready = True

    def __init__(
        self,
        image: str,
        *,
        trl: str | None = None,
        command: Sequence[str] = COMMAND,
        connect: Callable[[], Engine] = connect,
    ) -> None:
        self._image, self._trl = image, trl
        self._command, self._connect = command, connect
        self._token = secrets.token_hex(8)
        self._labels = {SUPERVISOR_LABEL: self._token}
        self._handles: list[Handle] = []
        self._looked: Looked | None = None
        self._study: Path | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "harness.launch.reaper", SUPERVISOR_LABEL, self._token]
        # In a session of its own: what ends the supervisor's group must not end it too.
        self._reaper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._sweep()
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.close()
        if self._reaper is not None:
            self._reaper.communicate(ORDERLY)  # it removes what may be left, and ends
            self._reaper = None

    def check(self, specs: Sequence[RunSpec], study: Path | None = None) -> None:
        """Look whether engine and image are fit for these runs, and see the study's folder.

        Raises: MachineError.
        """
        self._study = study
        self._looked = look(self._connect, self._image, self._trl, study, self._labels)
        problems = image_problems(
            specs, {k for k, v in self._looked.packages.items() if v}, self._image
        )
        if problems:
            raise MachineError("\n".join(problems))

    def prepare(self, attempt: Path, launch: Launch) -> Launch:
        """Name the container, and leave the memory limit to its cgroup."""
        looked = self._looked = self._looked or look(
            self._connect, self._image, self._trl, None, self._labels
        )
        container = Container(
            name=_container_name(attempt),
            engine=looked.engine,
            image=self._image,
            image_id=looked.image.id,
            digest=looked.image.digest,
            user=owner_of(attempt),
            memory_limit_bytes=launch.memory_limit_bytes,
        )
        waits = launch.waits_for_sampler and looked.pids_are_local
        changes = {"container": container, "memory_limit_bytes": None, "waits_for_sampler": waits}
        return launch.model_copy(update=changes)

    def start(self, attempt: Path, launch: Launch) -> Handle:
        """Start a container on an attempt's folder. Raises: MachineError."""
        if launch.container is None:
            raise ValueError("expected the conditions that prepare() returned")
        container = launch.container
        command = PARALLEL_COMMAND if launch.parallel else self._command
        attempt = attempt.absolute()
        order = Order(
            name=container.name,
            image=container.image_id,
            command=[*command, str(attempt)],
            user=container.user,
            environment=_variables(launch),
            labels={
                **self._labels,
                STUDY_LABEL: _study_name(attempt.parents[2]),
                "io.lora-harness.run": attempt.parent.name,
                "io.lora-harness.attempt": attempt.name,
            },
            writable=_writable(attempt),
            readable=_readable(attempt, launch),
            memory_limit_bytes=container.memory_limit_bytes,
            cores=launch.cores,
            gpus=launch.gpus,
        )
        with reached(self._connect) as engine:
            try:
                engine.start(order)
                state = engine.state(container.name)
            except EngineRefused as error:
                remove(engine, container.name)
                raise MachineError(explain(str(error), self._image)) from None
        pid = state.pid if state is not None and is_local(state.pid, state.id) else None
        handle = ContainerHandle(container, attempt, self._connect, pid)
        self._handles.append(handle)
        return handle

    def _sweep(self) -> None:
        """Remove what an earlier command could not: its engine was away when it ended.

        The study is locked and its attempts are judged, so nobody needs these containers any more.
        """
        if self._study is None:
            return
        with reached(self._connect) as engine:
            for name in engine.labelled(STUDY_LABEL, _study_name(self._study)):
                remove(engine, name)


def end_left_over(
    container: Container, attempt: Path, connect: Callable[[], Engine] = connect
) -> None:
    """End an attempt's container that outlived its supervisor; what it printed is kept.

    Without an engine there is nothing to end it by.
    """
    from harness.launch.contained import copy_logs

    try:
        with reached(connect) as engine:
            if engine.state(container.name) is not None:
                engine.signal(container.name, 9)
                copy_logs(engine, container.name, attempt)
                engine.remove(container.name)
    except (MachineError, EngineRefused):
        return


def _study_name(study: Path) -> str:
    return str(study.resolve())


def _container_name(attempt: Path) -> str:
    run = re.sub(r"[^A-Za-z0-9_.-]", "-", attempt.parent.name)
    return f"harness-{run}-{attempt.name.removeprefix('attempt-')}-{secrets.token_hex(4)}"


def _variables(launch: Launch) -> dict[str, str]:
    """What changes training passes from here to the container; who and where we are does not."""
    kept = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    trackio = {"TRACKIO_DIR": os.environ["TRACKIO_DIR"]} if "TRACKIO_DIR" in os.environ else {}
    return {
        **kept,
        **trackio,
        **worker_variables(launch),
        "HF_HUB_OFFLINE": "1",
        "HARNESS_CACHE": str(cache_dir().absolute()),
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def _writable(attempt: Path) -> list[Path]:
    trackio = os.environ.get("TRACKIO_DIR")
    folders = [attempt.parent]
    if trackio and Path(trackio).is_dir():
        folders.append(Path(trackio).absolute())
    return folders


def _readable(attempt: Path, launch: Launch) -> list[Path]:
    """List the folders that a run reads; the Hub's snapshots are links into the folder above them."""
    spec = json.loads((attempt.parent / "spec.json").read_text(encoding="utf-8"))
    named = [Path(place) for place in launch.places.values()]
    local = Path(str(spec.get("model", {}).get("source", "")))
    named += [local] if local.is_absolute() else []
    named += [cache_dir().absolute()]
    return list(dict.fromkeys(_with_blobs(p) for p in named if p.exists()))


def _with_blobs(folder: Path) -> Path:
    parents: Iterable[Path] = (folder, *folder.parents)
    return next((p.parent for p in parents if p.name == "snapshots"), folder)
