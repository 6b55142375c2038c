"""Everything that the container tests need, from nothing: packages, daemon, base, wheel, image.

    python -m tests.containers.prepare           prepare, and say what each step took
    python -m tests.containers.prepare --stop    stop the daemon, if it was started here

The second time takes seconds. Docker's and compose's own variables count, and those of
docker-compose.yml: HARNESS_IMAGE_CPU names the image, BASE_IMAGE_CPU a base to use instead of one made
here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.containers.base import ensure_base
from tests.containers.engine import CannotPrepare, Engine, call, connect, stop_daemon
from tests.containers.wheel import ROOT, ensure_wheel

MIB = 2**20


@dataclass(frozen=True)
class Step:
    """Something that was done, how long it took, and how large its result is."""

    name: str
    seconds: float
    size_bytes: int | None = None

    def __str__(self) -> str:
        size = "" if self.size_bytes is None else f"{self.size_bytes / MIB:8.0f} MiB"
        return f"{self.seconds:7.1f} s {size:>12}  {self.name}"


@dataclass
class Log:
    """The steps so far; each is printed as it ends."""

    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[int]]:
        """Time a step; its size, if any, is appended to the list that this yields."""
        sizes = list[int]()
        began = time.monotonic()
        yield sizes
        self.add(Step(name, time.monotonic() - began, sizes[0] if sizes else None))

    def add(self, step: Step) -> None:
        """Take a step in and print it."""
        self.steps.append(step)
        print(step, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Ready:
    """An engine and the image of the harness for the CPU in it."""

    engine: Engine
    image: str
    base: str
    log: Log


def image_name(trl: str | None = None) -> str:
    """The name of the CPU image, as docker-compose.yml has it; of another TRL if one is named."""
    name = os.environ.get("HARNESS_IMAGE_CPU", "lora-harness:cpu")
    return f"{name}-trl-{trl}" if trl else name


def prepare(log: Log | None = None) -> Ready:
    """Prepare what is not there yet. Raises: CannotPrepare."""
    log = log or Log()
    with log.step("engine"):
        engine, done = connect()
    for words in done:
        print(f"          {words}", file=sys.stderr)
    with log.step("base image") as sizes:
        base = ensure_base(engine)
        sizes += [size for size in [engine.size_of(base)] if size is not None]
    with log.step("torch wheel") as sizes:
        sizes.append(ensure_wheel().stat().st_size)
    image = build(engine, base, log)
    return Ready(engine, image, base, log)


def build(engine: Engine, base: str, log: Log, trl: str | None = None) -> str:
    """Build the CPU image from the shipped Dockerfile, as the README says; returns its name."""
    name = image_name(trl)
    command = [*engine.compose, "build", "harness-cpu"]
    variables = {
        **engine.variables,
        "BASE_IMAGE_CPU": base,
        "HARNESS_IMAGE_CPU": name,
        "TRL": trl or "",
    }
    variables["HARNESS_BUILD_NETWORK"] = "host"  # a daemon without a bridge has no other
    with log.step(f"image {name}") as sizes:
        call(command, variables, what=f"building {name}", cwd=ROOT)
        size = engine.size_of(name)
        if size is None:
            raise CannotPrepare(f"the build ended well and {name} is not there")
        sizes.append(size)
    return name


def main(arguments: list[str]) -> int:
    """Prepare, or stop the daemon."""
    if arguments == ["--stop"]:
        print("stopped the daemon" if stop_daemon() else "no daemon was started here")
        return 0
    try:
        ready = prepare()
    except CannotPrepare as error:
        print(f"container tests can't run here: {error}", file=sys.stderr)
        return 1
    print(
        f"{ready.image} is there; client {ready.engine.client}, compose {' '.join(ready.engine.compose)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
