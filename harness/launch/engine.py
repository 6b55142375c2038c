"""What the `docker` launcher asks of a container engine.

The protocol is small on purpose: start a container, look at it, signal it, read what it prints, remove
it. What this leaves out: Docker's answers (`docker_engine`), building and pulling images, networks, and
every policy (`docker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from harness.errors import MachineError

_NO_GPU = "could not select device driver"


class EngineGone(Exception):  # noqa: N818 - a state of the engine
    """The engine does not answer; what it was asked may or may not have happened."""


class LogError(Exception):
    """What a container prints could not be written here."""


class EngineRefused(Exception):  # noqa: N818 - its own words
    """The engine answered, and would not do it. The message is the engine's own."""


@dataclass(frozen=True)
class Image:
    """An image as the engine has it."""

    id: str  # sha256:…
    digest: str | None  # repository@sha256:…, None if it was never pushed or pulled


@dataclass(frozen=True)
class State:
    """A container at an instant."""

    id: str
    is_running: bool
    was_started: bool
    exit_code: int | None  # None while it runs, or if it never started
    was_oom_killed: bool
    error: str | None  # the engine's words where it could not start the program
    pid: int | None  # of its first process, as the engine's machine counts; None if it does not run


@dataclass(frozen=True)
class Order:
    """A container to start."""

    name: str
    image: str
    command: Sequence[str]  # takes the place of the image's entrypoint
    user: str
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    writable: Sequence[Path] = ()  # folders, at the same path inside
    readable: Sequence[Path] = ()
    network: str = "none"
    memory_limit_bytes: int | None = None
    cores: Sequence[int] = ()
    gpus: Sequence[str] = ()  # UUIDs


class Engine(Protocol):
    """A container engine. Raises (all): EngineGone, EngineRefused."""

    name: str

    def image(self, name: str) -> Image | None:
        """Look an image up, None if the engine has none of that name."""

    def start(self, order: Order) -> None:
        """Make and start a container."""

    def state(self, container: str) -> State | None:
        """Look at a container, None if there is none."""

    def signal(self, container: str, number: int) -> None:
        """Signal a container's first process; one that does not run ignores it."""

    def read(self, container: str, out: BinaryIO, error: BinaryIO, *, follows: bool = True) -> None:
        """Copy what a container has printed; with `follows` wait for more, until it ends."""

    def remove(self, container: str) -> None:
        """Kill and remove a container; one that is gone already is fine."""

    def labelled(self, label: str, value: str) -> list[str]:
        """List the names of containers, running or not, with a label."""

    def close(self) -> None:
        """Close what is open. Safe to call twice."""


@contextmanager
def opened(connect: Callable[[], Engine]) -> Iterator[Engine]:
    """A connection of one's own, closed at the end: none is for several threads."""
    engine = connect()
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def reached(connect: Callable[[], Engine]) -> Iterator[Engine]:
    """A connection for a question that can't go without an answer.

    Raises: MachineError too, where the engine goes away or refuses.
    """
    try:
        with opened(connect) as engine:
            yield engine
    except EngineRefused as error:
        raise MachineError(f"the container engine refused: {error}") from None
    except EngineGone as error:
        raise MachineError(
            f"the container engine stopped answering ({error}); start it again, then run the same "
            "command: what is finished is kept"
        ) from None


def explain(said: str, image: str) -> str:
    """Say what an engine's refusal to start a container means."""
    if _NO_GPU in said:
        return (
            f"the engine can't give a container a GPU ({said}): install the NVIDIA Container Toolkit on "
            "this machine and restart the engine; `harness doctor --matrix NAME` says what is missing"
        )
    return f"the engine would not start a container of {image}: {said}"
