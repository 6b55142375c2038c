"""The A/A comparison: what a side trained twice, held against itself through the same layers.

Whatever is called changed there is a false alarm, and is counted. Where the machine's own reruns differ,
the same kind of difference between the sides proves nothing. One exception: if the base repeats to the bit
and the candidate does not, not repeating is what changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.burden import Spread
from harness.compare.exact import Stacks
from harness.compare.grouping import CellRuns, repeated
from harness.compare.limits import Limits
from harness.compare.machine import MEASURED
from harness.compare.memory import compare_memory, memory_spread
from harness.compare.model import Control, Difference, Kind
from harness.compare.runs import compare_runs
from harness.compare.side import Side
from harness.compare.speed import compare_speed, speed_spread


@dataclass(frozen=True)
class Noise:
    """What the reruns of both sides say of the machine."""

    kinds: frozenset[Kind]  # differences of these kinds prove nothing
    spread: Spread
    unrepeatable: bool  # the candidate alone does not repeat


def control_of(side: Side, limits: Limits) -> Control:
    """Compare what a side trained twice with itself, and count the alarms."""
    cells = repeated(side)
    found = [(cell.name, d) for cell in cells for d in _differences(cell, side, limits)]
    for layer in (compare_memory(cells, limits, Spread()), compare_speed(cells, limits, Spread())):
        found += [(name, d) for name, each in layer.items() for d in each]
    alarms = [(name, d) for name, d in found if d.word == "changed"]
    return Control(
        compared=sum(len(cell.ok_pairs) for cell in cells),
        alarms=len(alarms),
        sentences=tuple(f"{name}: {d.sentence}" for name, d in alarms[:20]),
        side=side.label,
        kinds=tuple(dict.fromkeys(d.kind for _, d in alarms)),
    )


def noise_of(base: Side, candidate: Side, controls: Sequence[Control], limits: Limits) -> Noise:
    """Return what may not be believed between two sides, by the controls of each."""
    ours, theirs = controls
    exact = frozenset(theirs.kinds) - frozenset(MEASURED)
    unrepeatable = bool(exact) and ours.compared > 0 and not (exact & frozenset(ours.kinds))
    kinds = frozenset(ours.kinds) | (frozenset(theirs.kinds) - (exact if unrepeatable else set()))
    cells = [*repeated(base), *repeated(candidate)]
    steps, builds = speed_spread(cells, limits.warmup_steps)
    slopes, peaks = memory_spread(cells, limits.warmup_memory_steps)
    return Noise(kinds, Spread(steps, builds, slopes, peaks), unrepeatable)


def demote_noise(found: Sequence[Difference], noise: Noise) -> list[Difference]:
    """Leave undecided what the machine's own reruns differ in."""
    why = "; the machine's own reruns differ"
    more = "; the candidate's own reruns differ too, the base's do not"
    shown = []
    for each in found:
        if each.word == "changed" and each.kind in noise.kinds:
            update = {"word": "undecided", "sentence": each.sentence + why}
            shown.append(each.model_copy(update=update))
        elif (
            each.word == "changed" and noise.unrepeatable and each.layer in ("exact", "trajectory")
        ):
            shown.append(each.model_copy(update={"sentence": each.sentence + more}))
        else:
            shown.append(each)
    return shown


def _differences(cell: CellRuns, side: Side, limits: Limits) -> list[Difference]:
    stacks = Stacks(side.packages, side.packages)
    found = []
    for base, candidate in cell.ok_pairs.values():
        # Reruns are identical in any precision, so that no coarser tolerance is due here.
        found += compare_runs(base, candidate, stacks, limits, limits.tolerance)
    return found
