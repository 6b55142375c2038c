"""A container engine in memory: containers are what a test says they are, and it may go away."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from harness import __version__
from harness.errors import MachineError
from harness.launch.engine import EngineGone, EngineRefused, Image, Order, State

RUNNING = State(
    id="0f", is_running=True, was_started=True, exit_code=None, was_oom_killed=False,
    error=None, pid=None,
)  # fmt: skip
TELLS = json.dumps({"harness": {"version": __version__}, "packages": {"trl": "1.16.0"}})


def ended(exit_code: int, **changes: object) -> State:
    """A container that ran and ended so."""
    return replace(RUNNING, is_running=False, exit_code=exit_code, **changes)  # type: ignore[arg-type]


@dataclass
class FakeEngine:
    """Every connection is this one object. A container starts in `starts_as`, prints, and stays so."""

    name: str = "docker 0.0"
    images: dict[str, Image] = field(
        default_factory=lambda: {"lora-harness:cpu": Image("sha256:aa", "me/harness@sha256:bb")}
    )
    starts_as: State = RUNNING
    prints: bytes = b""
    complains: bytes = b""
    stuck: set[str] = field(default_factory=set)  # containers that can't be removed
    refuses: str | None = None  # what it says to every start
    is_away: bool = False
    on_start: Callable[[Order], None] = lambda order: None
    orders: list[Order] = field(default_factory=list)
    containers: dict[str, State] = field(default_factory=dict)
    signals: list[tuple[str, int]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    followed: list[bool] = field(default_factory=list)  # for each read, whether it would wait

    def connect(self) -> FakeEngine:
        """Reach it, as `engine.connect` reaches Docker."""
        if self.is_away:
            raise MachineError("no Docker engine answers")
        return self

    def image(self, name: str) -> Image | None:
        self._answer()
        if name != name.lower():
            raise EngineRefused("invalid reference format: repository name must be lowercase")
        return self.images.get(name)

    def start(self, order: Order) -> None:
        self._answer()
        self.orders.append(order)
        self.containers[order.name] = self.starts_as
        if self.refuses:
            raise EngineRefused(self.refuses)
        self.on_start(order)

    def state(self, container: str) -> State | None:
        self._answer()
        return self.containers.get(container)

    def signal(self, container: str, number: int) -> None:
        self._answer()
        self.signals.append((container, number))

    def read(self, container: str, out: BinaryIO, error: BinaryIO, *, follows: bool = True) -> None:
        self._answer()
        self.followed.append(follows)
        out.write(self.prints)
        error.write(self.complains)

    def remove(self, container: str) -> None:
        self._answer()
        if container in self.stuck:
            raise EngineRefused("cannot kill container")
        self.containers.pop(container, None)
        self.removed.append(container)

    def labelled(self, label: str, value: str) -> list[str]:
        self._answer()
        labels = {order.name: order.labels for order in self.orders}
        return [name for name in self.containers if labels[name].get(label) == value]

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self) -> None:
        if self.is_away:
            raise EngineGone("connection refused")
