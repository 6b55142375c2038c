"""Processor time: of optimizer steps, and of building the trainer.

The time of the processor and not of the clock, so that a machine that does something else in between adds
little. A step is held against the same step of the base, which trained on the same rows.
What this leaves out: tokens a second by the clock (`statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
FIRM_TIMES = 2.0  # so many times the least seconds, where a pair's few arms have to do as evidence
EXPLAINED_SHARE = (
    0.5  # of what a time is more, as much more of the evaluation before training explains it
)
NOISE_TIMES = 2.0  # a limit allows the square of what reruns were apart


@dataclass(frozen=True)
class Timing:
    """What a cell took of the processor, in seconds."""

    cell: CellRuns
    base: float
    candidate: float
    ratio: float
    is_whole: bool  # slower in nearly every step, not in a few


@dataclass(frozen=True)
class Rule:
    """What a time may be."""

    what: str
    text: str
    allowed: float  # candidate over base
    least_s: float
    alone: float
    heavy_s: float = math.inf  # so many seconds more, in all arms of a pair, are that pair's own


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
    """Return how far apart reruns are, either way: step times at most, building as a rule.

    Building takes tenths of a second, which one pause doubles; it is judged by many cells alike, or by far.
    """
    pairs = [pair for cell in cells for pair in cell.ok_pairs.values()]
    steps = [r for b, c in pairs if (r := step_ratio(b, c, warmup_steps)) is not None]
    builds = [r for b, c in pairs if (r := _build_ratio(b, c)) is not None]
    return _widest(steps), _typical(builds)


def step_ratio(base: RunSide, candidate: RunSide, warmup_steps: int) -> float | None:
    """Return the median ratio of the same steps' times; None with too few."""
    ratios = [c / b for b, c in _step_times(base, candidate, warmup_steps)]
    return median(ratios) if len(ratios) >= LEAST_STEPS else None


def _slow_steps(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    timings = []
    for cell in cells:
        seeds = [
            (ratio, _step_times(b, c, limits.warmup_steps))
            for b, c in cell.ok_pairs.values()
            if (ratio := step_ratio(b, c, limits.warmup_steps)) is not None
        ]
        if not seeds:
            continue
        times = [pair for _, each in seeds for pair in each]
        is_whole = sum(c > b for b, c in times) >= SLOWER_SHARE * len(times)
        ours, theirs = _middle([b for b, _ in times]), _middle([c for _, c in times])
        ratio = _middle([ratio for ratio, _ in seeds])
        timings.append(Timing(cell, ours, theirs, ratio, is_whole))
    allowed = max(limits.step_ratio, spread.step_ratio**NOISE_TIMES)
    rule = Rule(STEPS, "processor time of a step", allowed, limits.step_s, limits.alone)
    return _settle(timings, rule)


def _slow_builds(
    cells: Sequence[CellRuns], limits: Limits, spread: Spread
) -> dict[str, list[Difference]]:
    timings = []
    for cell in cells:
        pairs = [
            (b.probe.construct_cpu_s, c.probe.construct_cpu_s)
            for b, c in cell.ok_pairs.values()
            if b.probe and c.probe and b.probe.construct_cpu_s > 0
        ]
        if pairs:
            ours, theirs = _middle([b for b, _ in pairs]), _middle([c for _, c in pairs])
            timings.append(Timing(cell, ours, theirs, theirs / ours, True))
    allowed = max(limits.construct_ratio, spread.construct_ratio**NOISE_TIMES)
    what = "processor time of building the trainer"
    rule = Rule(
        CONSTRUCT, what, allowed, limits.construct_s, limits.alone, limits.construct_heavy_s
    )
    return _settle(timings, rule)


def _settle(timings: Sequence[Timing], rule: Rule) -> dict[str, list[Difference]]:
    """Say which cells are slower; they have to stand out from what slows every cell alike.

    What every cell shares is undecided, unless it is large: one run of the machine makes no such thing.
    """
    drift = shared_drift([(each.cell, each.ratio) for each in timings])
    shared = 1.0 if drift >= rule.alone else drift
    half_way = 1 + (rule.allowed - 1) / 2
    suspects = [
        _suspect(each, rule, each.ratio / shared)
        for each in timings
        if each.ratio / shared > half_way and each.is_whole
    ]
    found = settle(suspects, [each.cell for each in timings], "speed", rule.alone)
    found = _leave_busy(found, timings)
    if shared <= rule.allowed:
        return found
    why = "; every cell is slower alike: a busy machine, or what all share. Run both sides again"
    for each in timings:
        if each.ratio > rule.allowed and each.cell.name not in found:
            suspect = _suspect(each, rule, each.ratio)
            (one,) = settle([suspect], [each.cell], "speed", 0.0)[each.cell.name]
            update = {"word": "undecided", "sentence": one.sentence + why}
            found[each.cell.name] = [one.model_copy(update=update)]
    return found


def _leave_busy(
    found: dict[str, list[Difference]], timings: Sequence[Timing]
) -> dict[str, list[Difference]]:
    """Leave undecided what slows the evaluation of the untrained model too.

    That evaluation is the harness's own and comes before training in the same process. A machine that was
    busy while some pairs trained slows it with them; code of a trainer does not.
    """
    settled = {}
    for name, each in found.items():
        own = next(t for t in timings if t.cell.name == name)
        like = [
            t
            for t in timings
            if (t.cell.task, t.cell.method) == (own.cell.task, own.cell.method)
            and any(d.word == "changed" for d in found.get(t.cell.name, ()))
        ]
        busy = median([r for t in like if (r := evaluation_ratio(t.cell)) is not None])
        slower = _middle([t.ratio for t in like])
        is_explained = busy is not None and busy - 1 >= EXPLAINED_SHARE * (slower - 1)
        settled[name] = [_busy(d, busy) for d in each] if is_explained and busy else each
    return settled


def evaluation_ratio(cell: CellRuns) -> float | None:
    """Return how many times as long the untrained model's evaluation took, by the clock."""
    ratios = []
    for pair in cell.ok_pairs.values():
        before, after = (sum(p.wall_s for p in run.evaluations if p.step == 0) for run in pair)
        if before > 0 and after > 0:
            ratios.append(after / before)
    return median(ratios)


def _busy(found: Difference, ratio: float) -> Difference:
    if found.word != "changed":
        return found
    why = (
        f"; evaluating the untrained model took {ratio:.2f} times as long there too: a busy machine, "
        "or what both go through. Run both sides again"
    )
    return found.model_copy(update={"word": "undecided", "sentence": found.sentence + why})


def _suspect(timing: Timing, rule: Rule, ratio: float) -> Suspect:
    more = timing.candidate - timing.base
    is_strong = ratio > rule.allowed and more >= rule.least_s
    text = (
        f"{rule.text}: {duration(timing.base)} became {duration(timing.candidate)} "
        f"({timing.ratio:.2f} times)"
    )
    return Suspect(
        timing.cell,
        rule.what,
        ratio / rule.allowed if is_strong else 0.0,
        is_strong,
        timing.base,
        timing.candidate,
        timing.ratio - 1,
        text,
        is_firm=more >= FIRM_TIMES * rule.least_s,
        is_heavy=is_strong and more >= rule.heavy_s,
    )


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


def _typical(ratios: Iterable[float]) -> float:
    return math.exp(median([abs(math.log(r)) for r in ratios if r > 0]) or 0.0)


def _widest(ratios: Iterable[float]) -> float:
    return math.exp(max((abs(math.log(r)) for r in ratios if r > 0), default=0.0))
