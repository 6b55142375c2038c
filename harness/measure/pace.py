"""How often the sampler reads: a rate, a share of a core that it keeps to, and what it came to.

A sampler that costs too much disturbs what it watches. So the whole loop has a budget, one percent of a
core for every 50 samples a second: over it the rate goes down, and up again when there is room. Readings
that are dear of themselves (a list of processes, an energy counter) have turns of their own, the rarer
the longer they take. What this leaves out: what is read (`sources`, `device`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

HZ = 50.0
SHARE = 0.01  # of a core, for up to 50 samples a second
LEAST_HZ = 2.0
# Short at first, so that a machine on which 50 Hz is dear does not pay for it long.
WINDOW_S, FIRST_WINDOW_S = 2.0, 0.9
# The first moments hold what happens once: libraries' first calls, cold caches.
SETTLING_S = 0.4
# What was taken over the share is given back over so long.
REPAY_S = 3.0
# The rate is set for this part of the budget, so that noise does not lower it again at once.
AIM = 0.95
URGENCY = 4
NOW = float("-inf")


def share_for(hz: float) -> float:
    """Return the share of a core that a rate may take: who asks for more samples asks for their cost."""
    return SHARE * max(1.0, hz / HZ)


def next_deadline(start_ns: int, period_ns: int, now_ns: int) -> int:
    """Return the first deadline of the grid after now: missed ones are skipped, never made up."""
    return start_ns + ((now_ns - start_ns) // period_ns + 1) * period_ns


@dataclass
class Pace:
    """Instants at which samples were taken, and how far apart."""

    samples: int = 0
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_ns: int = 0

    def mark(self, t_ns: int) -> None:
        """Count a sample."""
        if self.samples:
            self.longest_gap_ns = max(self.longest_gap_ns, t_ns - self.last_ns)
        else:
            self.first_ns = t_ns
        self.last_ns = t_ns
        self.samples += 1

    @property
    def achieved_hz(self) -> float | None:
        """Intervals per second; None with fewer than two samples."""
        if self.samples < 2 or self.last_ns == self.first_ns:
            return None
        return (self.samples - 1) * 1e9 / (self.last_ns - self.first_ns)


class Pacer:
    """Sets the rate so that the sampler's CPU time stays within its share of a core."""

    def __init__(self, hz: float, share: float) -> None:
        self._asked_hz, self.share = hz, share
        self.hz = hz
        self.lowest_hz: float | None = None  # None: never lowered
        self._due_s = SETTLING_S
        self._since: tuple[float, float] | None = None

    def is_due(self, wall_s: float) -> bool:
        """Whether adjust() has something to look at; seconds since sampling began."""
        return wall_s >= self._due_s

    def adjust(self, wall_s: float, cpu_s: float) -> bool:
        """Take in how much time has passed and CPU time was used; return whether the rate changed."""
        before, self._since = self._since, (wall_s, cpu_s)
        self._due_s = wall_s + (FIRST_WINDOW_S if before is None else WINDOW_S)
        if before is None:
            return False
        used = max((cpu_s - before[1]) / (wall_s - before[0]), 1e-9)
        debt = max(0.0, cpu_s - self.share * wall_s) / REPAY_S
        fitting_hz = self.hz * max(AIM * self.share - debt, self.share / 4) / used
        if used > self.share or (debt and fitting_hz < self.hz):
            least_hz = min(LEAST_HZ, self._asked_hz)
            hz = max(least_hz, self.hz / 2, fitting_hz)
            self.lowest_hz = min(hz, self.lowest_hz or hz)
        elif fitting_hz > 1.05 * self.hz:
            hz = min(self._asked_hz, 2 * self.hz, fitting_hz)
        else:
            return False
        is_changed, self.hz = hz != self.hz, hz
        return is_changed


class Turn:
    """When a dear reading is due again: not before `least_s`, and so rarely that it stays in its share.

    The cheapest of its last three costs counts: one dear reading alone can be the scheduler's doing. Where
    there is news it may come sooner than `least_s`, and take URGENCY times its share.
    """

    def __init__(self, least_s: float, share: float) -> None:
        self._least_s, self._share = least_s, share
        self._costs_s: deque[float] = deque(maxlen=3)
        self.due_s = self.urgent_s = NOW

    @property
    def cost_s(self) -> float:
        """What a reading takes."""
        return min(self._costs_s, default=0.0)

    @property
    def every_s(self) -> float:
        """How far apart readings are at least, without news."""
        return max(self._least_s, self.cost_s / self._share)

    @property
    def is_slowed(self) -> bool:
        """Whether three readings in a row were so dear that it is read more rarely than it might be."""
        return len(self._costs_s) == 3 and self.every_s > self._least_s

    def took(self, began_s: float, ended_s: float) -> None:
        """Count a reading."""
        self._costs_s.append(ended_s - began_s)
        self.due_s = began_s + self.every_s
        self.urgent_s = began_s + self.cost_s / self._share / URGENCY
