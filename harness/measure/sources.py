"""What can be read about a run's memory at one instant: the source protocol, and process-tree RSS.

RSS counts a page once for each process that maps it, so a tree whose processes share pages (a
forked data loader, a worker forked from the fork server) reads higher than the machine's own use.
What this leaves out: proportional set size, which would settle that, costs milliseconds a read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from harness.measure.tree import ProcessTree

HOST = "host"
# A run on GPUs is judged by theirs; what reading RSS costs there would be taken from their rate.
REST_S = 0.09  # so that it is read about ten times a second, on the grid of any rate from 11 on
_REST_NS = int(REST_S * 1e9)


class Sample(NamedTuple):
    """One device at one instant, in the order of `samples.MEMORY_COLUMNS`; None: no answer."""

    t_ns: int
    device: str
    rss_bytes: int | None = None
    processes: int | None = None
    nvml_device_bytes: int | None = None
    nvml_process_bytes: int | None = None
    utilization_percent: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: int | None = None
    foreign_bytes: int | None = None


class Source(Protocol):
    """Something that can be read again and again and never raises for a missing value."""

    name: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the samples must know, one sentence each."""

    @property
    def lenses(self) -> tuple[str, ...]:
        """The lenses that have given at least one value so far."""

    @property
    def longest_gap_ns(self) -> int:
        """Between two values of its first lens; 0 if it has one whenever it is read."""

    @property
    def strangers(self) -> Collection[int]:
        """Process ids of other programs that were seen on it."""

    @property
    def device(self) -> Mapping[str, object] | None:
        """What was learned about a GPU (samples.DeviceSummary); None for what is none."""

    def read(self, t_ns: int) -> list[Sample]:
        """Return one sample per device for the instant `t_ns`."""


class RssSource:
    """RSS of a worker's process tree: at every sample, or every REST_S beside GPUs whose memory is read."""

    name = "rss"
    longest_gap_ns = 0
    strangers: Collection[int] = ()
    device = None

    def __init__(
        self, tree: ProcessTree, is_beside_gpus: Callable[[], bool] = lambda: False
    ) -> None:
        self._tree, self._is_beside_gpus = tree, is_beside_gpus
        self._due_ns = 0
        self._has_answered = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing to say: RSS is there or the target is gone."""
        return ()

    @property
    def lenses(self) -> tuple[str, ...]:
        """`rss` once it was read."""
        return ("rss",) if self._has_answered else ()

    def read(self, t_ns: int) -> list[Sample]:
        """Return the tree's RSS, or nothing while it rests. Raises: TargetGone."""
        if t_ns < self._due_ns:
            return []
        sample = Sample(t_ns, HOST, *self._tree.rss())
        self._has_answered = True
        if self._is_beside_gpus():
            self._due_ns = t_ns + _REST_NS
        return [sample]
