"""Processor time: of optimizer steps, and of building the trainer.

The time of the processor and not of the clock, so that a machine that does something else in between adds
little. A step is held against the same step of the base, which trained on the same rows.
What this leaves out: tokens a second by the clock (`statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.compare.burden import Spread, Suspect, settle, shared_drift
from harness.compare.grouping import CellRuns
from harness.compare.limits import Limits
from harness.compare.model import Difference
from harness.compare.side import RunSide
from harness.stats import median
from harness.text import duration

STEPS, CONSTRUCT = "cpu/step", "cpu/construct"
LEAST_STEPS = 3
SLOWER_SHARE = 0.9  # of the steps, for a difference to be the run's and not a few steps'
NOISE_TIMES = 2.0  # a limit allows the square of what reruns were apart


def compare_speed(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    """Return by cell what takes more processor time; less of it is no difference."""
    found: dict[str, list[Difference]] = {}
    for suspects in (_slow_steps(cells, limits, spread), _slow_builds(cells, limits, spread)):
        for name, each in suspects.items():
            found.setdefault(name, []).extend(each)
    return found


def speed_spread(cells: Iterable[CellRuns], warmup_steps: int) -> tuple[float, float]:
    """Return how far apart reruns are: largest ratio of step times and of building, either way."""
    pairs = [pair for cell in cells for pair in cell.ok_pairs.values()]
    steps = [r for b, c in pairs if (r := step_ratio(b, c, warmup_steps)) is not None]
    builds = [r for b, c in pairs if (r := _build_ratio(b, c)) is not None]
    return _widest(steps), _widest(builds)


def step_ratio(base: RunSide, candidate: RunSide, warmup_steps: int) -> float | None:
    """Return the median ratio of the same steps' times; None with too few."""
    ratios = [c / b for b, c in _step_times(base, candidate, warmup_steps)]
    return median(ratios) if len(ratios) >= LEAST_STEPS else None


def _slow_steps(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    measured = []
    for cell in cells:
        seeds = [
            (ratio, b, c)
            for b, c in cell.ok_pairs.values()
            if (ratio := step_ratio(b, c, limits.warmup_steps)) is not None
        ]
        if seeds:
            measured.append((cell, _middle([ratio for ratio, _, _ in seeds]), seeds))
    allowed = max(limits.step_ratio, spread.step_ratio**NOISE_TIMES)
    drift = shared_drift([(cell, ratio) for cell, ratio, _ in measured])
    suspects = []
    for cell, ratio, seeds in measured:
        times = [t for _, b, c in seeds for t in _step_times(b, c, limits.warmup_steps)]
        ours, theirs = _middle([b for b, _ in times]), _middle([c for _, c in times])
        is_whole = sum(c > b for b, c in times) >= SLOWER_SHARE * len(times)
        if ratio > allowed and is_whole and theirs - ours >= limits.step_s:
            text = (
                f"processor time of a step: {duration(ours)} became {duration(theirs)} "
                f"({ratio:.2f} times)"
            )
            excess = ratio / allowed
            suspects.append(Suspect(cell, STEPS, excess, ours, theirs, ratio - 1, text))
    return _apart_from_drift(suspects, drift, allowed, limits)


def _slow_builds(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    measured = []
    for cell in cells:
        pairs = [
            (b.probe.construct_cpu_s, c.probe.construct_cpu_s)
            for b, c in cell.ok_pairs.values()
            if b.probe and c.probe and b.probe.construct_cpu_s > 0
        ]
        if pairs:
            ours, theirs = _middle([b for b, _ in pairs]), _middle([c for _, c in pairs])
            measured.append((cell, ours, theirs))
    allowed = max(limits.construct_ratio, spread.construct_ratio**NOISE_TIMES)
    drift = shared_drift([(cell, theirs / ours) for cell, ours, theirs in measured])
    suspects = [
        Suspect(
            cell,
            CONSTRUCT,
            theirs / ours / allowed,
            ours,
            theirs,
            theirs / ours - 1,
            f"processor time of building the trainer: {duration(ours)} became {duration(theirs)} "
            f"({theirs / ours:.2f} times)",
        )
        for cell, ours, theirs in measured
        if theirs / ours > allowed and theirs - ours >= limits.construct_s
    ]
    return _apart_from_drift(suspects, drift, allowed, limits)


def _apart_from_drift(
    suspects: Sequence[Suspect], drift: float, allowed: float, limits: Limits
) -> dict[str, list[Difference]]:
    """Leave undecided what every cell shares, unless it is large; the rest has to stand out from it."""
    if drift >= limits.alone:
        return settle(suspects, "speed", "speed", limits.alone)
    outstanding = [s for s in suspects if s.excess > drift]
    found = settle(outstanding, "speed", "speed", limits.alone)
    if drift <= allowed:
        return found
    why = "; every cell is slower alike: a busier machine, or what all share. Run both sides again"
    for each in suspects:
        if each not in outstanding:
            for d in settle([each], "speed", "speed", 0.0)[each.cell.name]:
                changed = d.model_copy(update={"word": "undecided", "sentence": d.sentence + why})
                found.setdefault(each.cell.name, []).append(changed)
    return found


def _step_times(base: RunSide, candidate: RunSide, warmup_steps: int) -> list[tuple[float, float]]:
    if base.probe is None or candidate.probe is None:
        return []
    theirs = {step.step: step.cpu_s for step in candidate.probe.steps}
    return [
        (step.cpu_s, theirs[step.step])
        for step in base.probe.steps
        if step.step > warmup_steps and step.cpu_s > 0 and theirs.get(step.step, 0) > 0
    ]


def _build_ratio(base: RunSide, candidate: RunSide) -> float | None:
    if base.probe is None or candidate.probe is None:
        return None
    ours, theirs = base.probe.construct_cpu_s, candidate.probe.construct_cpu_s
    return theirs / ours if ours > 0 and theirs > 0 else None


def _middle(values: Sequence[float]) -> float:
    return median(values) or 0.0


def _widest(ratios: Iterable[float]) -> float:
    return math.exp(max((abs(math.log(r)) for r in ratios if r > 0), default=0.0))
