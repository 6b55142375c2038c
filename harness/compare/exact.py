"""The first steps of two runs of one seed, number by number and hash by hash.

A release that changed nothing gives the same numbers up to rounding, so there is no statistics here: a
relative difference above the tolerance is a change. A hash can't be nearly equal; where it differs and
every number agrees, it saw rounding (or how rows are padded). Completions are sampled, and a rounding
difference can flip a token: a flip that follows rounding is undecided. What this leaves out: later steps
(`trajectory`), and what is no step (`checks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.compare.limits import Limits
from harness.compare.logged import Redefinition, redefinition
from harness.compare.model import Difference, Word
from harness.compare.numbers import became, is_rounding_of_log, row_gap
from harness.compare.side import RunSide
from harness.compare.tracks import FORWARDS, Track, hashes_of, tracks_of

Versions = Mapping[str, str | None]


@dataclass(frozen=True)
class Stacks:
    """The packages of both sides, by which it is known what a release defined anew."""

    base: Versions
    candidate: Versions

    @property
    def is_same_software(self) -> bool:
        """Whether TRL and what it trains with are the same releases on both sides."""
        names = ("trl", "transformers", "peft", "accelerate", "torch")
        return all(self.base.get(name) == self.candidate.get(name) for name in names)


@dataclass(frozen=True)
class Allowed:
    """The relative difference of a number that is rounding, by step.

    An optimizer that divides by the size of a gradient makes much of little: what was rounding at one step
    is more at the next.
    """

    tolerance: float
    onset: int = 0  # the step, counted from 0, at which rounding begins
    growth: float = 1.0  # times as much may be rounding a step later
    most: float = 0.0  # and never more than that, or than the tolerance

    def at(self, index: int) -> float:
        """Return what is rounding at a step, counted from 0."""
        grown = self.tolerance * self.growth ** max(0, index - self.onset)
        return min(grown, max(self.most, self.tolerance))


def compare_exact(
    base: RunSide, candidate: RunSide, stacks: Stacks, limits: Limits, tolerance: float
) -> list[Difference]:
    """Compare the first steps; nothing where they are identical."""
    pairs = track_pairs(base, candidate)
    strict = Allowed(tolerance)
    found = _compare_tracks(base, pairs, stacks, limits.steps, strict)
    noted = {d.what for d in found if d.word == "same"}
    gaps = [row_gaps(b, c) for b, c in pairs if b.what not in noted]
    onset = min((i for each in gaps for i, g in enumerate(each) if g), default=0)
    if max((each[onset] for each in gaps if onset < len(each)), default=0.0) <= tolerance:
        # Rounding where the runs first differ; from there on it grows.
        growth, most = (
            (limits.coarse_growth, limits.coarse_grown)
            if _is_coarse(tolerance, limits)
            else (limits.growth, limits.grown)
        )
        found = _compare_tracks(
            base, pairs, stacks, limits.steps, Allowed(tolerance, onset, growth, most)
        )
    found += _compare_hashes(base, candidate, limits.steps, found)
    return _flips_explained(base, found, onset + 1, is_coarse=_is_coarse(tolerance, limits))


def _compare_tracks(
    run: RunSide,
    pairs: Sequence[tuple[Track, Track]],
    stacks: Stacks,
    steps: int,
    allowed: Allowed,
) -> list[Difference]:
    return [
        _unless_redefined(difference, run, stacks)
        for ours, theirs in pairs
        if (difference := _compare_track(ours, theirs, steps, allowed))
    ]


def _is_coarse(tolerance: float, limits: Limits) -> bool:
    return tolerance > limits.tolerance


def track_pairs(base: RunSide, candidate: RunSide) -> list[tuple[Track, Track]]:
    """Return the tracks that both runs have."""
    ours, theirs = tracks_of(base), tracks_of(candidate)
    return [(ours[name], theirs[name]) for name in ours if name in theirs]


def row_gaps(base: Track, candidate: Track) -> list[float]:
    """Return the gap of each step that both sides have; infinity for any difference of a count."""
    gaps = [
        row_gap(b, c, scale)[0]
        for b, c, scale in zip(base.rows, candidate.rows, base.scales, strict=False)
    ]
    if base.what == "log/loss":
        rows = zip(gaps, base.rows, candidate.rows, strict=False)
        return [0.0 if is_rounding_of_log(b[0], c[0]) else g for g, b, c in rows]
    return [math.inf if g else 0.0 for g in gaps] if base.is_counted else gaps


def difference_at(
    base: Track, candidate: Track, index: int, word: Word, largest: float | None, **more: object
) -> Difference:
    """Make the difference of a track at one step, with both values there."""
    scale = base.scales[index]
    _, place = row_gap(base.rows[index], candidate.rows[index], scale)
    b, c = _value(base.rows[index], place), _value(candidate.rows[index], place)
    text = f"{base.what}: {became(b, c)} at step {index + 1}"
    fields: dict[str, object] = {
        "layer": "exact",
        "kind": base.kind,
        "what": base.what,
        "word": word,
        "step": index + 1,
        "base": b,
        "candidate": c,
        "relative": largest if largest is not None and math.isfinite(largest) else None,
        "sentence": text,
        **more,
    }
    return Difference.model_validate(fields)


def _compare_track(
    base: Track, candidate: Track, steps: int, allowed: Allowed
) -> Difference | None:
    gaps = row_gaps(base, candidate)[:steps]
    if not any(gaps):
        return None
    above = [i for i, g in enumerate(gaps) if g > allowed.at(i)]
    index = above[0] if above else next(i for i, g in enumerate(gaps) if g)
    word: Word = "changed" if above else "rounding"
    # Of a count the share is not infinite, it only is a change however small.
    sizes = gaps
    if base.is_counted:
        rows = zip(base.rows, candidate.rows, base.scales, strict=False)
        sizes = [row_gap(b, c, scale)[0] for b, c, scale in rows]
    return difference_at(base, candidate, index, word, max(sizes[:steps]))


def _value(row: Sequence[object], place: int) -> object:
    return row[place] if place < len(row) else None


def _unless_redefined(found: Difference, run: RunSide, stacks: Stacks) -> Difference:
    """A key that a release between the two defined anew says nothing about training.

    Nor does a release that passes more or less often through the model: what it costs, time says.
    """
    if found.what == FORWARDS and not stacks.is_same_software:
        text = f"{found.sentence}; passes through the model, no change of training"
        return found.model_copy(update={"word": "same", "sentence": text})
    key = found.what.removeprefix("log/")
    if key == found.what or found.word == "rounding":
        return found
    new = redefinition(key, run.task, stacks.base, stacks.candidate)
    if new is None:
        return found
    return found.model_copy(update={"word": "same", "sentence": _redefined(found, new)})


def _redefined(found: Difference, new: Redefinition) -> str:
    return f"{found.sentence}; TRL {new.release} defined it anew ({new.how}), no change of training"


def _compare_hashes(
    base: RunSide, candidate: RunSide, steps: int, numbers: Sequence[Difference]
) -> list[Difference]:
    """Compare hashes; they changed if a number did, up to the step where they part."""
    first = min((d.step for d in numbers if d.word == "changed" and d.step), default=None)
    found = []
    theirs = hashes_of(candidate)
    for name, ours in hashes_of(base).items():
        if name not in theirs:
            continue
        rows = list(zip(ours.rows, theirs[name].rows, strict=False))[:steps]
        parted = [i + 1 for i, (b, c) in enumerate(rows) if b != c]
        if not parted:
            continue
        at_change = [step for step in parted if first is not None and step >= first]
        word: Word = "changed" if at_change else "rounding"
        step = at_change[0] if at_change else parted[0]
        more = "" if at_change else ", while every number agrees"
        found.append(
            Difference(
                layer="exact",
                kind=ours.kind,
                what=name,
                word=word,
                step=step,
                base=_short(rows[step - 1][0]),
                candidate=_short(rows[step - 1][1]),
                sentence=f"the hash of {_hashed(name)} differs from step {step} on{more}",
            )
        )
    return found


def _hashed(name: str) -> str:
    known = {"batch": "the micro-batches", "parameters": "the trained parameters"}
    return known.get(name, name.removeprefix("hash/"))


def _short(row: Sequence[str]) -> str:
    return ", ".join(text[:12] for text in row[:4])


def _flips_explained(
    run: RunSide, found: list[Difference], rounds_from: int, *, is_coarse: bool
) -> list[Difference]:
    """After rounding alone, a GRPO run whose completions part may only have had a token flipped.

    `rounds_from` is the first step at which any number differs at all. In bfloat16 tokens flip in many
    runs, so that it is rounding; in float32 hardly ever, so that it is undecided.
    """
    changed = [d for d in found if d.word == "changed"]
    first = min((d.step for d in changed if d.step), default=0)
    parted = any(d.kind == "sampling" and d.step == first for d in changed)
    if run.task != "grpo" or not parted or rounds_from >= first:
        return found
    why = "; rounding came before, and can flip a sampled token"
    word: Word = "rounding" if is_coarse else "undecided"
    return [
        d.model_copy(update={"word": word, "sentence": d.sentence + why})
        if d.word == "changed"
        else d
        for d in found
    ]
