"""Everything that the container tests need, from nothing: packages, a daemon, a base, the image.

    python -m tests.containers.prepare           prepare, and say what each step took
    python -m tests.containers.prepare --stop    stop the daemon, if it was started here

The second time takes seconds. DOCKER_HOST names another daemon, BASE_IMAGE_CPU a base to use instead of
one made here, and TORCH_CPU_INDEX where torch's CPU wheel is, unless pip finds it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.containers.base import PYTHON, ensure_base
from tests.containers.engine import CannotPrepare, Engine, call, connect, stop_daemon

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20
IMAGE = "lora-harness:cpu"  # what `make image-cpu` builds


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
    return Ready(engine, build(engine, base, log), base, log)


def build(engine: Engine, base: str, log: Log, trl: str | None = None) -> str:
    """Build the CPU image as the README says, of another TRL if one is named; returns its name."""
    name = f"{IMAGE}-trl-{trl}" if trl else IMAGE
    asked = {"DOCKER": engine.client, "BASE_IMAGE_CPU": base, "BASE_PYTHON_CPU": PYTHON}
    # A daemon without a bridge has no other network.
    asked |= {"HARNESS_BUILD_NETWORK": "host", **({"TRL": trl} if trl else {})}
    command = ["make", "--no-print-directory", "image-cpu", *(f"{k}={v}" for k, v in asked.items())]
    with log.step(f"image {name}") as sizes:
        call(command, engine.variables, what=f"building {name}", cwd=ROOT)
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
