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
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from harness.caches import WRITTEN_BY_RUNS, cache_dir
from harness.engines import image_problems
from harness.errors import MachineError
from harness.files import disk_errors
from harness.launch import Handle, Launch
from harness.launch.contained import ContainerHandle
from harness.launch.docker_engine import connect
from harness.launch.engine import Engine, EngineRefused, LogError, Order, explain, reached
from harness.launch.images import Looked, is_local, look, owner_of, remove
from harness.launch.local import worker_variables
from harness.launch.parallel import MODULE as PARALLEL_MODULE
from harness.launch.reaper import reaping
from harness.measure.environment import VARIABLES
from harness.record import Container
from harness.spec import RunSpec

COMMAND = ("python", "-m", "harness.worker")
PARALLEL_COMMAND = ("python", "-m", PARALLEL_MODULE)
SUPERVISOR_LABEL = "io.lora-harness.supervisor"
STUDY_LABEL = "io.lora-harness.study"


class DockerLauncher:
    """Starts workers in containers of `image`, which has to hold the release `trl` if one is named.

    `command` takes the worker's place (the attempt's folder is appended).
    """

    name = "docker"
    python: str | None = None
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
        self._reaping = ExitStack()

    def __enter__(self) -> Self:
        self._sweep()
        self._reaping.enter_context(reaping(SUPERVISOR_LABEL, self._token))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.close()
        self._reaping.close()

    def check(self, specs: Sequence[RunSpec], study: Path | None = None) -> None:
        """Look whether engine and image are fit for these runs, and see the study's folder.

        Raises: MachineError.
        """
        self._study = study
        labels = self._labels if study is None else {**self._labels, **_study_label(study)}
        with reaping(SUPERVISOR_LABEL, self._token):
            self._looked = look(self._connect, self._image, self._trl, study, labels)
        problems = image_problems(
            specs, {k for k, v in self._looked.packages.items() if v}, self._image
        )
        problems += [
            f"model {name} is a folder without its full path, which a container does not have: write "
            f"{Path(name).resolve()}"
            for name in dict.fromkeys(s.model.source for s in specs)
            if not Path(name).is_absolute() and Path(name).is_dir()
        ]
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
        changes = {
            "container": container,
            "memory_limit_bytes": None,
            "waits_for_sampler": launch.waits_for_sampler and looked.pids_are_local,
            # A container has these folders and none of the links and turns on the way to them.
            "places": {name: str(Path(place).resolve()) for name, place in launch.places.items()},
        }
        return launch.model_copy(update=changes)

    def start(self, attempt: Path, launch: Launch) -> Handle:
        """Start a container on an attempt's folder. Raises: MachineError."""
        if launch.container is None:
            raise ValueError("expected the conditions that prepare() returned")
        container = launch.container
        command = PARALLEL_COMMAND if launch.parallel else self._command
        folder = attempt.resolve()
        spec = json.loads((folder.parent / "spec.json").read_text(encoding="utf-8"))
        order = Order(
            name=container.name,
            image=container.image_id,
            command=[*command, str(folder)],
            user=container.user,
            environment=_variables(launch),
            labels={
                **self._labels,
                **_study_label(folder.parents[2]),
                "io.lora-harness.run": attempt.parent.name,
                "io.lora-harness.attempt": attempt.name,
            },
            writable=_writable(folder, spec),
            readable=_readable(spec, launch),
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
            [(label, value)] = _study_label(self._study).items()
            for name in engine.labelled(label, value):
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
                engine.signal(container.name, signal.SIGKILL)
                copy_logs(engine, container.name, attempt, follows=False)
                engine.remove(container.name)
    except (MachineError, LogError):
        return


def _study_label(study: Path) -> dict[str, str]:
    return {STUDY_LABEL: str(study.resolve())}


def _container_name(attempt: Path) -> str:
    run = re.sub(r"[^A-Za-z0-9_.-]", "-", attempt.parent.name)
    return f"harness-{run}-{attempt.name.removeprefix('attempt-')}-{secrets.token_hex(4)}"


def _variables(launch: Launch) -> dict[str, str]:
    """What changes training passes from here to the container; who and where we are does not."""
    kept = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    trackio = _trackio_dir()
    return {
        **kept,
        **({"TRACKIO_DIR": str(trackio)} if trackio else {}),
        **worker_variables(launch),
        "HF_HUB_OFFLINE": "1",
        "HARNESS_CACHE": str(cache_dir().resolve()),
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def _trackio_dir() -> Path | None:
    named = os.environ.get("TRACKIO_DIR")
    return Path(named).resolve() if named else None


def _writable(attempt: Path, spec: Mapping[str, Any]) -> list[Path]:
    """List the folders that a run writes: its own, and what all runs of this machine share."""
    shared = [cache_dir().resolve() / name for name in WRITTEN_BY_RUNS]
    trackio = _trackio_dir()
    if trackio and "trackio" in (spec["trainer"].get("report_to") or ()):
        shared.append(trackio)
    for folder in shared:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return [attempt.parent, *shared]


def _readable(spec: Mapping[str, Any], launch: Launch) -> list[Path]:
    """List the folders that a run reads; the Hub's snapshots are links into the folder above them."""
    named = [Path(place) for place in launch.places.values()]
    local = Path(str(spec["model"]["source"]))
    named += [local] if local.is_absolute() else []
    named += [cache_dir().resolve()]
    return list(dict.fromkeys(_with_blobs(p) for p in named if p.exists()))


def _with_blobs(folder: Path) -> Path:
    parents: Iterable[Path] = (folder, *folder.parents)
    return next((p.parent for p in parents if p.name == "snapshots"), folder)
