"""What is no step: dtypes, the parameters before training, the probe's checks, evaluations.

All of it is looked at before or after training. An evaluation of the untrained model that differs is a
change of evaluating, never of training; one after training, of weights that differ, follows from those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.compare.model import Difference, Kind, Word
from harness.compare.numbers import became, row_gap
from harness.compare.side import RunSide

BEFORE = 0  # the step that stands for 'before training'
GROWN = 1e-3  # what rounding grows to over a run
# What a check speaks of, by the first word of its name.
_CHECKS: tuple[tuple[str, Kind], ...] = (
    ("trained", "weights"),
    ("resume", "checkpoint"),
    ("reload", "checkpoint"),
    ("merge", "checkpoint"),
    ("generation", "sampling"),
    ("sampling", "sampling"),
    ("rows", "data"),
    ("first_batch", "data"),
    ("reference", "loss"),
    ("mode", "loss"),
    ("dropout", "loss"),
    ("optimizer", "weights"),
    ("parameters", "weights"),
    ("adapter", "weights"),
    ("built", "weights"),
)
# Looked at after training: what it comes to. The others say by what means training goes.
AFTER = ("trained", "resume", "reload", "merge", "generation")


def compare_checks(
    base: RunSide, candidate: RunSide, tolerance: float, *, means_count: bool
) -> list[Difference]:
    """Compare dtypes, initial parameters and the checks of two runs of one seed.

    `means_count` says that means count although training came to the same, as within one release.
    """
    found = [*_before(base, candidate), *_checks(base, candidate, tolerance)]
    return [d if means_count or not _is_of_means(d) else _noted(d) for d in found]


def _is_of_means(found: Difference) -> bool:
    return found.what.startswith("check/") and found.step == BEFORE


def _noted(found: Difference) -> Difference:
    if found.word != "changed":
        return found
    text = f"{found.sentence}; training here is the same with either"
    return found.model_copy(update={"word": "same", "sentence": text})


def compare_evaluations(
    base: RunSide, candidate: RunSide, tolerance: float, *, trained: Word
) -> list[Difference]:
    """Compare the held-out metric; `trained` is what training itself came to.

    After rounding, what was sampled may differ by a flipped token, and an NLL by what rounding grew to.
    """
    theirs = {(p.split, p.step): p for p in candidate.evaluations}
    found = []
    for point in base.evaluations:
        other = theirs.get((point.split, point.step))
        if other is None:
            continue
        size, _ = row_gap((point.value,), (other.value,), 0.01)
        if not size:
            continue
        kind: Kind = "metric" if point.step and trained == "changed" else "evaluation"
        is_grown = trained == "rounding" and point.step > 0
        is_rounding = is_grown and (point.metric == "reward" or size <= GROWN)
        word: Word = "rounding" if is_rounding or size <= tolerance else "changed"
        when = "before training" if point.step == 0 else f"after step {point.step}"
        found.append(
            Difference(
                layer="exact",
                kind=kind,
                what=f"evaluation/{point.split}-{point.metric}",
                word=word,
                step=point.step,
                base=point.value,
                candidate=other.value,
                relative=_finite(size),
                sentence=f"{point.metric} on {point.split} rows {when}: "
                + became(point.value, other.value),
            )
        )
    return found


def _before(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    if base.probe is None or candidate.probe is None:
        known = [run.config.get("trainable_dtypes") for run in (base, candidate)]
        if None not in known and known[0] != known[1]:
            b, c = (", ".join(map(str, each or ())) for each in known)
            yield _at_start("dtypes", "changed", b, c, f"trained parameters: {b} became {c}")
        return
    if base.probe.dtypes != candidate.probe.dtypes:
        b, c = _dtypes(base.probe.dtypes), _dtypes(candidate.probe.dtypes)
        yield _at_start("dtypes", "changed", b, c, f"trained parameters: {b} became {c}")
    b, c = base.probe.initial_sha256, candidate.probe.initial_sha256
    if b != c:
        # Whether it matters is the first step's to say: a hash sees rounding too.
        text = "the hash of the trained parameters before step 1 differs"
        yield _at_start("initial parameters", "rounding", b[:12], c[:12], text)


def _at_start(what: str, word: Word, base: object, candidate: object, text: str) -> Difference:
    return Difference(
        layer="exact",
        kind="weights",
        what=what,
        word=word,
        step=BEFORE,
        base=base,
        candidate=candidate,
        sentence=text,
    )


def _checks(base: RunSide, candidate: RunSide, tolerance: float) -> Iterator[Difference]:
    if base.probe is None or candidate.probe is None:
        return
    for name, ours in base.probe.checks.items():
        theirs = candidate.probe.checks.get(name)
        if theirs is None or theirs.value == ours.value:
            continue
        size = _check_gap(ours.value, theirs.value)
        is_rounding = not ours.is_exact and size is not None and size <= tolerance
        yield Difference(
            layer="exact",
            kind=_kind(name, _CHECKS, "evaluation"),
            what=f"check/{name}",
            word="rounding" if is_rounding else "changed",
            step=None if name.split("/")[0] in AFTER else BEFORE,
            base=ours.value,
            candidate=theirs.value,
            relative=None if size is None else _finite(size),
            sentence=f"{ours.what.rstrip('.')}: {_values(ours.value, theirs.value)}",
        )


def _check_gap(base: object, candidate: object) -> float | None:
    """Return the largest gap of numbers or rows of them; None of anything else."""
    rows = [each if isinstance(each, tuple) else (each,) for each in (base, candidate)]
    if not all(
        v is None or (isinstance(v, int | float) and not isinstance(v, bool))
        for row in rows
        for v in row
    ):
        return None
    largest = max((abs(v) for v in rows[0] if v is not None), default=0.0)
    return row_gap(rows[0], rows[1], 0.01 * largest)[0]


def _values(base: object, candidate: object) -> str:
    if isinstance(base, tuple) and isinstance(candidate, tuple) and len(base) == len(candidate):
        place = next(i for i, (b, c) in enumerate(zip(base, candidate, strict=True)) if b != c)
        return f"{became(base[place], candidate[place])} (place {place + 1} of {len(base)})"
    return became(*(_abridged(value) for value in (base, candidate)))


def _abridged(value: object) -> object:
    """A digest is told from another by its beginning."""
    is_digest = isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value)
    return str(value)[:12] if is_digest else value


def _kind(name: str, table: tuple[tuple[str, Kind], ...], otherwise: Kind) -> Kind:
    return next((kind for word, kind in table if name.startswith(word)), otherwise)


def _dtypes(counts: dict[str, int]) -> str:
    return " + ".join(f"{n} {name.removeprefix('torch.')}" for name, n in sorted(counts.items()))


def _finite(size: float) -> float | None:
    return size if size < float("inf") else None
