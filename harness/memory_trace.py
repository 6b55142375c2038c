"""Which storages a training step allocates and frees, in order: the trace that an allocator replays.

A trace has a setup (what stands before the first step), the first step (which makes an optimizer's
moments), and a step that repeats from then on, at two lengths of a row. Inside a step an allocation goes
by its place among the step's allocations, so that a repeating step can free what the one before it made.

Layers of a model are alike. A log is taken of a model of three *units* (a layer, or as many as make a
period), and the events of the middle one are repeated to the model's full depth: the allocator then sees
the whole step, at a tenth of the time that running it takes.

Where steps of two lengths differ in bytes alone, each allocation's bytes are a straight line in the
length, or those of a token are where they go with the length's square (a mask), and `sizes_at` gives the
step of any length. Otherwise every length counts as the first, and `has_lengths` and `notes` say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.frozen import Count, Frozen

MARK, ALLOCATE, FREE = "mark", "allocate", "free"
# Owner of a freed storage: this step, the step before, the setup, or the first step.
OWN, BEFORE, SETUP, FIRST = 0, 1, 2, 3
NEW = -1
FIRST_UNIT, MIDDLE_UNIT, LAST_UNIT = 0, 1, 2


@dataclass(frozen=True)
class Event:
    """One line of a log. `unit` is where the step was, or None outside of the layers."""

    what: str
    storage: int = 0
    bytes: int = 0
    unit: int | None = None
    name: str = ""  # of a mark


class Step(Frozen):
    """One step's events: (-1, place) allocates `sizes[place]`; (owner, place) frees."""

    sizes: tuple[Count, ...]
    kinds: tuple[str, ...]
    events: tuple[tuple[int, int], ...]


class Trace(Frozen):
    """A subject's setup and first steps. `longer` are the repeated step's sizes at a shorter length."""

    length: int
    longer_length: int
    setup: Step
    first: Step
    repeated: Step
    longer: tuple[Count, ...]
    has_lengths: bool = True  # false: a step of any length counts as one of the first

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of figures made from this has to know."""
        if self.has_lengths:
            return ()
        return (
            f"steps of {self.length:,} and of {self.longer_length:,} tokens differ in more than bytes, so "
            "every row counts as the longest, and the interval knows nothing of shorter ones",
        )

    def sizes_at(self, length: int) -> tuple[int, ...]:
        """Return the bytes of each allocation of the repeated step whose rows are that long."""
        first, second = self.length, self.longer_length
        span, part = second - first, length - first
        # Bytes that grow faster than the length to the power of 1.5 go with its square.
        steep = (first / second) ** 1.5 if second else math.inf

        def at(a: int, b: int) -> int:
            if a == b:
                return a
            if b and a > b * steep:
                return max(0, round(length * (a / first + (b / second - a / first) * part / span)))
            return max(0, a + (b - a) * part // span)

        return tuple(at(a, b) for a, b in zip(self.repeated.sizes, self.longer, strict=True))


def forward_temporaries(step: Step, below: int) -> int:
    """Bytes of smaller storages that a forward pass frees again before the backward pass begins."""
    total = 0
    for owner, place in step.events:
        if owner == OWN and step.kinds[place] == "activations":
            break  # the first of these to go marks the backward pass
        if owner == OWN and step.kinds[place] == "temporaries" and step.sizes[place] < below:
            total += step.sizes[place]
    return total


Key = tuple[int, int, int, int]  # step, part of the step, position of a unit (-1: outside), place


@dataclass
class _Sites:
    """Where each storage of a log was made, before layers are repeated."""

    step: dict[int, int] = field(default_factory=dict)
    part: dict[int, int] = field(default_factory=dict)
    unit: dict[int, int | None] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)


def fold(
    events: Sequence[Event], kinds: Mapping[int, str], units: int, lengths: tuple[int, int]
) -> Trace:
    """Make a trace of a log of three units, for a model of `units` of them.

    The log holds three steps: the first two at the first length, the third at the second.
    """
    sites = _locate(events)
    named = _name(events, kinds)
    steps: list[list[tuple[Key, int | None, str]]] = [[], [], [], []]
    for step, key, size, kind in _expanded(events, sites, named, max(1, units - 2)):
        steps[step].append((key, size, kind))
    repeated, numbers = _numbered(2, steps[2], {})
    longer, others = _numbered(3, steps[3], {})
    has_lengths = repeated.events == longer.events and numbers == others
    if not has_lengths:  # no line to be drawn
        longer = repeated
    return Trace(
        length=lengths[0],
        longer_length=lengths[1],
        setup=_numbered(0, steps[0], {})[0],
        first=_numbered(1, steps[1], numbers)[0],
        repeated=repeated,
        longer=longer.sizes,
        has_lengths=has_lengths,
    )


Site = tuple[int, int, int]  # part of the step, position of a unit, place


def _numbered(
    step: int, events: Sequence[tuple[Key, int | None, str]], like: Mapping[Site, int]
) -> tuple[Step, dict[Site, int]]:
    """Number a step's allocations, those of another step's sites by its numbers; other steps' by site.

    What a repeated step frees of the one before it has the number that it has in itself.
    """
    made = [key[1:] for key, size, _ in events if size is not None]
    numbers = dict(like) or {site: i for i, site in enumerate(made)}
    for site in made:
        numbers.setdefault(site, len(numbers))
    sizes, kinds = [0] * len(numbers), [""] * len(numbers)
    out: list[tuple[int, int]] = []
    for key, size, kind in events:
        owner = _owner(key[0], step)
        if size is not None:
            place = numbers[key[1:]]
            sizes[place], kinds[place] = size, kind
            out.append((NEW, place))
        elif owner in (OWN, BEFORE) and key[1:] in numbers:
            out.append((owner, numbers[key[1:]]))
    return Step(sizes=tuple(sizes), kinds=tuple(kinds), events=tuple(out)), numbers


def _owner(home: int, step: int) -> int:
    if home == step:
        return OWN
    return SETUP if home == 0 else BEFORE if home == step - 1 else FIRST


def _locate(events: Sequence[Event]) -> _Sites:
    """Number every storage by step, part of the step, unit and place in it."""
    sites = _Sites()
    step = part = 0
    counts: dict[tuple[int, int, int | None], int] = {}
    for event in events:
        if event.what == MARK:
            step, part = (step + 1, 0) if event.name == "step" else (step, part + 1)
        elif event.what == ALLOCATE:
            corner = (step, part, event.unit)
            sites.step[event.storage], sites.part[event.storage] = step, part
            sites.unit[event.storage] = event.unit
            sites.place[event.storage] = counts.get(corner, 0)
            counts[corner] = counts.get(corner, 0) + 1
    return sites


def _expanded(
    events: Sequence[Event], sites: _Sites, named: Mapping[int, str], copies: int
) -> Iterator[tuple[int, Key, int | None, str]]:
    """Repeat the middle unit: (step, key of a storage, its bytes or None where it is freed, kind)."""
    last = copies + 1
    step = 0
    is_backward = False
    run: list[Event] = []  # consecutive events of the middle unit

    def position(unit: int) -> int:
        return unit if unit < LAST_UNIT else last

    def emit(event: Event, at: int) -> Iterator[tuple[int, Key, int | None, str]]:
        """One event of a unit at a position; what it frees of another unit lies that far from it."""
        storage = event.storage
        unit = sites.unit[storage]
        size = event.bytes if event.what == ALLOCATE else None
        kind = named[storage]
        where = sites.step[storage], sites.part[storage]
        if unit is None:
            yield step, (*where, -1, sites.place[storage]), size, kind
            return
        if event.unit is None and unit == MIDDLE_UNIT:
            for each in range(1, last):
                yield step, (*where, each, sites.place[storage]), size, kind
            return
        far = unit - event.unit if event.unit is not None else 0
        home = at + far if event.unit is not None else position(unit)
        yield step, (*where, home, sites.place[storage]), size, kind

    def flush() -> Iterator[tuple[int, Key, int | None, str]]:
        order = range(last - 1, 0, -1) if is_backward else range(1, last)
        for at in order:
            for event in run:
                yield from emit(event, at)
        run.clear()

    for event in events:
        if event.what == MARK:
            yield from flush()
            step += event.name == "step"
            is_backward = event.name == "backward"
        elif event.unit == MIDDLE_UNIT:
            run.append(event)
        else:
            yield from flush()
            yield from emit(event, position(event.unit) if event.unit is not None else -1)
    yield from flush()


def _name(events: Sequence[Event], kinds: Mapping[int, str]) -> dict[int, str]:
    """Name every storage: by what it was seen to be, else by the part of the step that it is from."""
    named: dict[int, str] = {}
    phase = "setup"
    forward: set[int] = set()
    for event in events:
        if event.what == MARK:
            if event.name == "backward":  # what the backward pass finds was kept for it
                named.update(dict.fromkeys(forward, "activations"))
            forward = set()
            phase = event.name
        elif event.what == ALLOCATE:
            named[event.storage] = (
                "optimizer temporaries" if phase == "optimizer" else "temporaries"
            )
            if phase == "forward":
                forward.add(event.storage)
        else:
            forward.discard(event.storage)
    return {storage: kinds.get(storage, name) for storage, name in named.items()}
