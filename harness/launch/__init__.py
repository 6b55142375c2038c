"""Where a run executes, behind one small Protocol.

The hand-over between supervisor and worker is files in the attempt's folder, the same for every
launcher: the supervisor writes `../spec.json` and `launch.json`, the worker writes the rest. So a
launcher only has to start a process on a folder, say whether it still runs, pass it signals and
leave nothing behind. `local` is a process of this machine; a container, a cluster engine and a
hosted-jobs launcher can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import Field

from harness.frozen import Count, Frozen, PositiveInt, absent
from harness.measure.pace import HZ
from harness.record import Container, Exit, Source
from harness.settings import Parallel
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.launch.ending import Stop

# Set by whoever starts a worker that shall not outlive it: the starter's process id. The worker's
# own getppid() would come too late to see a starter that died at once.
PARENT_VARIABLE = "HARNESS_PARENT_PID"


class Launch(Frozen):
    """`launch.json`: the conditions a worker runs under, beside what it trains (`../spec.json`)."""

    format: int = 1
    threads: PositiveInt = 1  # OMP and torch intra-op threads
    parallel: Parallel | None = None  # several processes; null is one
    cores: tuple[Count, ...] = ()  # the CPU core each process is pinned to; empty is unpinned
    gpus: tuple[str, ...] = ()  # UUIDs of the GPUs that the worker may see; empty is CPU only
    memory_limit_bytes: PositiveInt | None = None  # limit on each process's private memory
    waits_for_sampler: bool = True  # start only when the sampler has taken its first sample
    sampler_hz: float = HZ
    # Repository → the folder that holds it here; absent for what ships with the harness.
    places: dict[str, str] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()  # the same repositories, at which commits
    container: Container | None = Field(None, exclude_if=absent(None))  # null: no container

    @property
    def gpu(self) -> str | None:
        """The first process's GPU, None on the CPU."""
        return self.gpus[0] if self.gpus else None

    @property
    def device(self) -> str:
        """Where it trains, in one word: 'cpu', or the GPUs' UUIDs with commas between."""
        return ",".join(self.gpus) or "cpu"


class Handle(Protocol):
    """A started worker."""

    @property
    def pid(self) -> int | None:
        """The worker's process id on this host, or None where it has none."""

    def poll(self) -> Exit | None:
        """Return how the worker ended, or None while it runs. Never blocks."""

    def signal(self, number: int) -> None:
        """Send a signal to the worker and everything it started; an ended worker ignores it."""

    def oom_kills(self) -> int | None:
        """Count the kernel's memory kills that could have been this worker's; None if unknown.

        Only a rise between two calls means anything.
        """

    def verdict(self) -> Stop | None:
        """Say of an ended worker what the launcher knows and its exit does not tell, if anything."""

    def close(self) -> None:
        """End and reap whatever is left of the worker's process group. Safe to call twice."""


class Launcher(Protocol):
    """Starts workers. A context manager: leaving it ends everything that it started."""

    name: str
    python: str | None
    """The interpreter that workers run in on this machine; None where they run elsewhere."""

    @property
    def is_ready(self) -> bool:
        """Whether start() would start a worker at once; false while it still prepares."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def check(self, specs: Sequence[RunSpec], study: Path | None = None) -> None:
        """Look whether these runs could start, before anything is downloaded or trained.

        `study` is their folder, once it is there. Raises: ConfigError or MachineError saying what is
        missing and what to do.
        """

    def prepare(self, attempt: Path, launch: Launch) -> Launch:
        """Return the conditions as this launcher will apply them; they become `launch.json`."""

    def start(self, attempt: Path, launch: Launch) -> Handle:
        """Start a worker on an attempt's folder, which holds `launch.json`.

        `launch` is what prepare() returned. Raises: MachineError.
        """
