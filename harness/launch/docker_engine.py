"""Docker's answers to what the launcher asks, through its own SDK.

The SDK is an extra: it is imported where it is used. What this leaves out: what is asked, and why
(`engine`, `docker`).
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from harness.errors import MachineError
from harness.launch.engine import (
    Engine,
    EngineGone,
    EngineRefused,
    Image,
    LogError,
    Order,
    State,
)
from harness.text import clean

ANSWER_S = 30.0  # an engine under load takes seconds to start a container
STARTED = ("running", "paused", "restarting", "removing", "exited", "dead")


def connect() -> Engine:
    """Reach the Docker engine that DOCKER_HOST names, or this machine's.

    Raises: MachineError if the SDK is not installed, or no engine answers.
    """
    try:
        from docker import errors
    except ImportError:
        raise MachineError(
            "--launcher docker needs Docker's Python SDK, which is not installed: "
            "`pip install 'docker>=7'`, or `make setup`"
        ) from None
    try:
        return DockerEngine()
    except errors.DockerException as error:
        where = f" at {os.environ['DOCKER_HOST']}" if "DOCKER_HOST" in os.environ else ""
        raise MachineError(
            f"no Docker engine answers{where} ({clean(error, 200)}); start it (`systemctl start docker`), "
            "see that this user may use it (group docker), or leave --launcher docker out"
        ) from None


class DockerEngine:
    """Docker through its SDK's low-level client."""

    def __init__(self, version: str = "auto") -> None:
        from docker import APIClient, utils

        self._api: Any = APIClient(version=version, timeout=ANSWER_S, **utils.kwargs_from_env())
        with _errors():
            self.name = f"docker {self._api.version()['Version']}"

    def image(self, name: str) -> Image | None:
        """Look an image up."""
        with _errors(missing_is_fine=True):
            found = self._api.inspect_image(name)
            return Image(found["Id"], next(iter(found.get("RepoDigests") or ()), None))
        return None

    def start(self, order: Order) -> None:
        """Make and start a container."""
        with _errors():
            self._api.create_container(
                order.image,
                name=order.name,
                entrypoint=list(order.command),
                command=[],
                user=order.user,
                environment=dict(order.environment),
                labels=dict(order.labels),
                host_config=self._api.create_host_config(**_host_config(order)),
            )
            self._api.start(order.name)

    def state(self, container: str) -> State | None:
        """Look at a container."""
        with _errors(missing_is_fine=True):
            found = self._api.inspect_container(container)
            state = found["State"]
            is_running = bool(state["Running"])
            was_started = state["Status"] in STARTED
            return State(
                id=found["Id"],
                is_running=is_running,
                was_started=was_started,
                exit_code=state["ExitCode"] if was_started and not is_running else None,
                was_oom_killed=bool(state["OOMKilled"]),
                error=clean(state["Error"], 300) or None,
                pid=state["Pid"] or None,
            )
        return None

    def signal(self, container: str, number: int) -> None:
        """Signal a container's first process."""
        try:
            with _errors(missing_is_fine=True):
                self._api.kill(container, signal=int(number))
        except EngineRefused:
            return  # it does not run any more

    def read(self, container: str, out: BinaryIO, error: BinaryIO, *, follows: bool = True) -> None:
        """Copy what a container has printed, or prints until it ends.

        By its logs: attaching to a container that has ended already would wait for ever. In threads
        that nobody joins at exit: a container that does not end must not keep the harness from it.
        """
        failures = list[Exception]()

        def copy(file: BinaryIO, **streams: bool) -> None:
            try:
                with _errors(missing_is_fine=True):
                    for text in self._api.logs(container, stream=True, follow=follows, **streams):
                        _write(file, text)
            except (EngineGone, EngineRefused, LogError) as failure:
                failures.append(failure)

        threads = [
            threading.Thread(
                target=copy, args=(file,), kwargs={"stdout": is_out, "stderr": not is_out},
                daemon=True,
            )
            for file, is_out in ((out, True), (error, False))
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def remove(self, container: str) -> None:
        """Kill and remove a container."""
        with _errors(missing_is_fine=True):
            self._api.remove_container(container, force=True, v=True)

    def labelled(self, label: str, value: str) -> list[str]:
        """List the names of containers with a label."""
        with _errors():
            found = self._api.containers(all=True, filters={"label": f"{label}={value}"})
        return [name.lstrip("/") for each in found for name in each["Names"][:1]]

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


def _write(file: BinaryIO, text: bytes) -> None:
    try:
        file.write(text)
        file.flush()
    except OSError as error:
        raise LogError(clean(error, 200)) from None


def _host_config(order: Order) -> dict[str, Any]:
    from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

    mounts = [Mount(str(p), str(p), type="bind", read_only=False) for p in order.writable]
    mounts += [Mount(str(p), str(p), type="bind", read_only=True) for p in order.readable]
    config: dict[str, Any] = {
        "mounts": mounts,
        "network_mode": order.network,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "init": True,
        # Triton and Inductor load what they compile, hence exec.
        "tmpfs": {"/tmp": "exec,mode=1777", "/cache": "exec,mode=1777"},  # noqa: S108 - in the container
        "shm_size": "16g" if order.gpus else "2g",  # a ceiling; NCCL and vLLM want more than 64 MiB
        "pids_limit": 8192,
        "log_config": LogConfig(type=LogConfig.types.JSON),  # one that can be read again
    }
    if order.memory_limit_bytes is not None:
        # No swap beyond it, which would turn a refusal into hours of thrashing.
        config |= {"mem_limit": order.memory_limit_bytes, "memswap_limit": order.memory_limit_bytes}
    if order.cores:
        config["cpuset_cpus"] = ",".join(map(str, order.cores))
    if order.gpus:
        config["device_requests"] = [
            DeviceRequest(device_ids=list(order.gpus), capabilities=[["gpu"]])
        ]
        config["ulimits"] = [Ulimit(name="memlock", soft=-1, hard=-1)]
    return config


@contextmanager
def _errors(*, missing_is_fine: bool = False) -> Iterator[None]:
    """Turn the SDK's errors into ours; with `missing_is_fine`, no such thing ends the block quietly."""
    from docker import errors
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except errors.NotFound as error:
        if not missing_is_fine:
            raise EngineRefused(clean(error.explanation, 400)) from None
    except errors.APIError as error:
        raise EngineRefused(clean(error.explanation or error, 400)) from None
    except (
        errors.DockerException,
        RequestException,
        HTTPError,
        OSError,
        ValueError,
        struct.error,
    ) as error:
        # ValueError: a socket that another thread closed under a stream; struct.error: a torn frame.
        raise EngineGone(clean(error, 200)) from None
