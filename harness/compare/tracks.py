"""A run as tracks: every number and hash that is compared step by step, with its kind and its scale.

A number near zero has the scale of what it is made of: GRPO's on-policy loss is a sum of advantages around
1 that cancel to 1e-8, so 3e-8 of it is rounding although it is more than the number itself.
What this leaves out: comparing (`exact`, `trajectory`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.compare.logged import is_counted, is_timelike, kind_of_log
from harness.compare.model import Kind
from harness.compare.numbers import Number
from harness.compare.side import RunSide
from harness.probe import Probe, ProbeStep
from harness.spec import Task

# What numbers near zero are compared with.
LOSS_SCALE: dict[Task, float] = {"sft": 0.01, "grpo": 0.1}
# A probe's numbers by the first word of their names; advantages and log-probabilities are what the loss is
# made of.
_NUMBERS: tuple[tuple[str, Kind], ...] = (("reward", "reward"), ("lr/", "configuration"))
# A probe's hashes of what a step's micro-batches hold, likewise.
_HASHES: tuple[tuple[str, Kind], ...] = (("reward", "reward"), ("completions", "sampling"))
FORWARDS = "count/forwards"
ACCURACY = "mean_token_accuracy"  # a share of few tokens: one that rounding flips is 1 % and more
UNIT_SCALE = 0.1  # rewards, advantages, kl, shares: made of numbers around 1
PART_OF_LARGEST = 0.01  # a gradient or an update, beside the largest of the run, of any group


@dataclass(frozen=True)
class Track:
    """One number, or a row of numbers, for each step from step 1."""

    what: str
    kind: Kind
    rows: tuple[tuple[Number, ...], ...]
    scales: tuple[float, ...]  # the least scale of each row
    is_counted: bool = False  # whole numbers: any difference is one


@dataclass(frozen=True)
class Hashes:
    """A hash, or a row of hashes, for each step from step 1."""

    what: str
    kind: Kind
    rows: tuple[tuple[str, ...], ...]


def tracks_of(run: RunSide) -> dict[str, Track]:
    """Return a run's numbers by name: what TRL logged, what the harness counted, the probe's."""
    tracks = [_logged(run.task, key, series) for key, series in run.series.items()]
    if run.tokens:
        tracks.append(_single("tokens", _amount_kind(run.task), run.tokens, 0.0, is_counted=True))
    if run.probe is not None:
        tracks += _probed(run.task, run.probe)
    return {t.what: t for t in tracks if not is_timelike(t.what.removeprefix("log/"))}


def hashes_of(run: RunSide) -> dict[str, Hashes]:
    """Return a run's hashes by name; none without a probe."""
    if run.probe is None:
        return {}
    steps = run.probe.steps
    batches: Kind = "data" if run.task == "sft" else "sampling"
    found = {
        "batch": Hashes("batch", batches, tuple(step.batches for step in steps)),
        "parameters": Hashes("parameters", "weights", tuple((step.sha256,) for step in steps)),
    }
    for name in _names(step.hashes for step in steps):
        kind: Kind = next((k for word, k in _HASHES if name.startswith(word)), "data")
        rows = tuple((step.hashes.get(name, ""),) for step in steps)
        found[f"hash/{name}"] = Hashes(f"hash/{name}", kind, rows)
    return found


def _logged(task: Task, key: str, series: tuple[float | None, ...]) -> Track:
    kind = kind_of_log(key)
    scale = {"loss": LOSS_SCALE[task], "gradient": 0.0, "configuration": 0.0}.get(kind, UNIT_SCALE)
    if key == ACCURACY:
        scale = 1.0
    return _single(f"log/{key}", kind, series, scale, is_counted=is_counted(key))


def _single(
    what: str, kind: Kind, series: Iterable[Number], scale: float, *, is_counted: bool = False
) -> Track:
    rows = tuple((value,) for value in series)
    if kind == "gradient":  # a step that has hardly any is no place to look at digits
        scale = PART_OF_LARGEST * _largest(value for (value,) in rows)
    return Track(what, kind, rows, (scale,) * len(rows), is_counted)


def _probed(task: Task, probe: Probe) -> Iterator[Track]:
    steps = probe.steps
    losses = tuple(step.losses for step in steps)
    yield Track("loss/micro-batches", "loss", losses, (LOSS_SCALE[task],) * len(steps))
    for name in _names(step.counts for step in steps):
        amounts = [step.counts.get(name) for step in steps]
        yield _single(f"count/{name}", _count_kind(task, name), amounts, 0.0, is_counted=True)
    for name in _names(step.numbers for step in steps):
        numbers = [step.numbers.get(name) for step in steps]
        kind: Kind = next((k for word, k in _NUMBERS if name.startswith(word)), "loss")
        scale = 0.0 if kind == "configuration" else UNIT_SCALE
        yield _single(f"number/{name}", kind, numbers, scale)
    yield from _groups("gradient", "gradient", steps)
    yield from _groups("update", "weights", steps)


def _groups(field: str, kind: Kind, steps: tuple[ProbeStep, ...]) -> Iterator[Track]:
    norms: list[dict[str, float | None]] = [getattr(step, field) for step in steps]
    scale = PART_OF_LARGEST * _largest(v for each in norms for v in each.values())
    scales = (scale,) * len(norms)
    for name in _names(norms):
        yield Track(f"{field}/{name}", kind, tuple((n.get(name),) for n in norms), scales)


def _largest(values: Iterable[Number]) -> float:
    return max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)


def _count_kind(task: Task, name: str) -> Kind:
    if name == "forwards":  # passes through the model: what a step costs
        return "speed"
    if name.startswith("reward"):
        return "reward"
    return "data" if name == "trained_tokens" else _amount_kind(task)


def _amount_kind(task: Task) -> Kind:
    """What an amount of tokens tells about: GRPO trains on what it sampled."""
    return "data" if task == "sft" else "sampling"


def _names(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
