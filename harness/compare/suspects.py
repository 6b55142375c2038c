"""Likely causes of a change, ranked by how well each goes with where the change was seen.

A cause foretells cells: those whose task, method and settings it touches. It scores by how far these
are the cells that changed (shared over all), and less where what differed first is not what it touches.
A cause that could be anywhere in a package is only asked whether it reaches the cells that changed. No
score is a proof: `harness bisect` finds the release, and running with one thing changed back settles
it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal

from harness.compare.boundaries import BOUNDARIES
from harness.compare.boundary import Boundary, is_crossed
from harness.compare.evidence import CellEvidence, Evidence, arguments_of
from harness.compare.model import Cause
from harness.compare.moved import ABSENT, argument_in, moved_arguments
from harness.compare.reach import Reach, reach_of
from harness.compare.scores import all_cells, as_score, factor_share, key_of, kind_share, overlap

UNSURE = 0.8  # settings that don't say whether the cause can act
KNOWN = 0.4  # a boundary that scores this leaves nothing to say of its package in general
ALONE = 1.3  # nothing else differs
SHOWN = 0.05
LIST_MAX = 4
# How a side's label names a package that came from a folder.
_FOLDER = re.compile(r"\(folder ([\w.-]+)")


def rank_causes(evidence: Evidence) -> tuple[Cause, ...]:
    """List the likely causes of what changed, the likeliest first; none if nothing did."""
    grave = [d for cell in evidence.seen for d in cell.grave]
    if all(d.layer == "missing" and d.word == "undecided" for d in grave):
        return ()  # nothing differs; runs are missing
    releases = list(_releases(evidence))
    known = {boundary.package for boundary, cause in releases if cause.score >= KNOWN}
    found = [cause for _, cause in releases]
    found += [*_arguments(evidence, releases), *_packages(evidence, known), *_machine(evidence)]
    found += _matrix(evidence)
    if not found or not (evidence.comparison.packages or known):
        found += _code(evidence)
    shown = [cause for cause in found if cause.score >= SHOWN]
    return tuple(sorted(shown, key=lambda cause: (-cause.score, cause.what)))


def _releases(evidence: Evidence) -> Iterable[tuple[Boundary, Cause]]:
    """Boundaries that lie between the two sides and touch a cell that changed."""
    for boundary in BOUNDARIES:
        versions = tuple(s.packages.get(boundary.package) for s in _sides(evidence))
        if not is_crossed(boundary, *versions):
            continue
        touched = {key_of(c): _certainty(boundary, c, evidence) for c in evidence.cells}
        cells = frozenset(key for key, certainty in touched.items() if certainty > 0)
        score = overlap(evidence, cells) * max(touched.values(), default=0.0)
        score *= kind_share(evidence, cells, boundary.kinds, boundary.series)
        score *= factor_share(evidence, cells, boundary)
        span = boundary.release + (f" until {boundary.until}" if boundary.until else "")
        yield (
            boundary,
            Cause(
                kind="default" if boundary.arguments else "release",
                what=f"{boundary.package} {span}: {boundary.what}",
                sentence=f"{boundary.sentence} ({boundary.package} {span}; {boundary.source}).",
                score=as_score(score),
            ),
        )


def _certainty(boundary: Boundary, cell: CellEvidence, evidence: Evidence) -> float:
    """Whether a boundary touches a cell: 1, 0, or between where the settings don't say."""
    if cell.cell.task not in boundary.tasks or cell.cell.method not in boundary.methods:
        return 0.0
    if boundary.arguments:
        moved = {m.argument for m in moved_arguments(cell)}
        if moved.isdisjoint(boundary.arguments):
            return 0.0
    if boundary.when is None:
        return 1.0
    answers = [
        boundary.when(
            {**arguments_of(run), **{n: side.packages.get(n) for n in ("trl", "transformers")}}
        )
        for run, side in zip((cell.base, cell.candidate), _sides(evidence), strict=True)
    ]
    return 1.0 if True in answers else UNSURE if None in answers else 0.0


def _arguments(evidence: Evidence, releases: list[tuple[Boundary, Cause]]) -> Iterable[Cause]:
    """Trainer arguments that differ without a known boundary behind them."""
    explained = {
        a for boundary, cause in releases if cause.score >= SHOWN for a in boundary.arguments
    }
    moved = {key_of(c): {m.argument: m for m in moved_arguments(c)} for c in evidence.cells}
    known = {name: None for each in moved.values() for name in each}
    for name in _asked_arguments(evidence, known):
        cells = frozenset(key for key, each in moved.items() if name in each)
        if name in explained or not cells:
            continue
        is_same_matrix = any(
            c.base is not None
            and c.candidate is not None
            and c.base.spec_sha256 == c.candidate.spec_sha256
            for c in evidence.cells
            if key_of(c) in cells
        )
        one = next(each[name] for each in moved.values() if name in each)
        score = overlap(evidence, cells) * (0.5 if ABSENT in (one.base, one.candidate) else 0.8)
        why = (
            "both were asked for the same, so a default moved" if is_same_matrix else "as asked for"
        )
        kind: Literal["default", "configuration", "code"] = (
            "default" if is_same_matrix else "configuration"
        )
        if is_same_matrix and not evidence.comparison.packages:
            why, kind = "request and releases are the same, so code sets it otherwise", "code"
        yield Cause(
            kind=kind,
            what=name,
            sentence=f"{name} is {_value(one.base)} in the base and {_value(one.candidate)} in the "
            f"candidate: {why}.",
            score=as_score(score),
        )


def _asked_arguments(evidence: Evidence, known: dict[str, None]) -> list[str]:
    """The arguments that the comparison found to differ; all that differ if it names none."""
    asked = [d.what for d in evidence.comparison.asked if d.kind == "configuration"]
    named = [argument_in(what, known) for what in asked]
    return list(dict.fromkeys(name for name in named if name in known)) if asked else [*known]


def _packages(evidence: Evidence, known: Collection[str]) -> Iterable[Cause]:
    changed = evidence.comparison.packages
    is_alone = len(changed) == 1
    for name, base, candidate in changed:
        is_edited = (
            base is not None and candidate is not None and _number(base) == _number(candidate)
        )
        if name in known and not is_edited:
            continue
        reach = reach_of(name)
        score = _reached(evidence, reach) * (0.95 if is_edited else reach.weight)
        versions = f"{base or 'not installed'} → {candidate or 'not installed'}"
        does = f"it has to do with {reach.does}"
        if is_edited:
            text = f"The release of {name} is the same, its code is not ({versions}); {does}."
        elif name == "trl":
            text = (
                f"TRL changed ({versions}) and no known boundary explains all of it; bisect its "
                "releases."
            )
        else:
            text = f"{name} changed ({versions}); {does}."
        yield Cause(
            kind="code" if is_edited else "release" if name == "trl" else "dependency",
            what=f"{name} {versions}",
            sentence=text,
            score=as_score(score * (ALONE if is_alone else 1)),
        )


def _reached(evidence: Evidence, reach: Reach) -> float:
    """How much of what changed a package reaches; a little more if it reaches nothing else."""
    cells = frozenset(
        key_of(c)
        for c in evidence.cells
        if c.cell.task in reach.tasks
        and c.cell.method in reach.methods
        and (reach.when is None or reach.when(c.settings) is not False)
    )
    seen = frozenset(key_of(c) for c in evidence.seen)
    if not cells & seen:
        return 0.0
    narrow = len(cells & seen) / len(cells)
    return (
        len(cells & seen)
        / len(seen)
        * (0.8 + 0.2 * narrow)
        * kind_share(evidence, cells, reach.kinds)
    )


def _machine(evidence: Evidence) -> Iterable[Cause]:
    found = [d.sentence for d in evidence.comparison.asked if d.kind == "machine"]
    if found:
        more = f"; and {len(found) - LIST_MAX} more" if len(found) > LIST_MAX else ""
        share = kind_share(evidence, all_cells(evidence), ("memory", "speed"))
        yield Cause(
            kind="machine",
            what="the machine",
            sentence="The two sides ran on machines that differ "
            f"({'; '.join(found[:LIST_MAX])}{more}), so costs "
            "can't be compared and rounding may differ.",
            score=as_score(0.8 * share),
        )


def _matrix(evidence: Evidence) -> Iterable[Cause]:
    if evidence.base.matrix_hash == evidence.candidate.matrix_hash:
        return
    cells = frozenset(
        key_of(c)
        for c in evidence.cells
        if c.base and c.candidate and c.base.spec_sha256 != c.candidate.spec_sha256
    )
    yield Cause(
        kind="configuration",
        what="the matrix",
        sentence="The two sides were made from matrices that differ, so not every run was asked "
        "for the same.",
        score=as_score(0.9 * overlap(evidence, cells)),
    )


def _code(evidence: Evidence) -> Iterable[Cause]:
    """What is left when no recorded version differs."""
    one, other = evidence.base.installed_sha256, evidence.candidate.installed_sha256
    labels = evidence.base.label, evidence.candidate.label
    if labels[0] != labels[1]:
        guess, score = f"the code of {labels[1]} differs from that of {labels[0]}", 0.8
    elif one is not None and other is not None and one != other:
        guess, score = "the list of installed distributions is another one", 0.6
    else:
        guess, score = (
            "a file of an installed package was edited, or something not recorded differs",
            0.4,
        )
    edited = sorted({name for label in labels for name in _FOLDER.findall(label)})
    names = " and ".join(edited)
    yield Cause(
        kind="code",
        what=f"the edited {names}" if edited else "an edited package",
        sentence=f"Both sides have the same releases, yet training differs: {guess}. "
        + (f"Look into the folder of {names} first." if edited else _where_to_look(evidence)),
        score=score,
    )


def _where_to_look(evidence: Evidence) -> str:
    """Name the package that is alone in what changed, by what did not."""
    calm = [c for c in evidence.cells if not c.is_seen]
    methods, tasks = ({getattr(c.cell, name) for c in evidence.seen} for name in ("method", "task"))
    if methods == {"lora"} and any(c.cell.method == "full" for c in calm):
        return "Only LoRA changed: look into PEFT first, then into what TRL does with it."
    if len(tasks) == 1 and any(c.cell.task not in tasks for c in calm):
        return f"Only {next(iter(tasks)).upper()} changed: look into TRL's trainer of it first."
    return "All kinds of runs changed: look into transformers, accelerate and torch too."


def _sides(evidence: Evidence) -> tuple[Any, Any]:
    return evidence.base, evidence.candidate


def _number(version: str) -> str:
    """A version without what marks a build of one's own: 1.16.0+edited is 1.16.0."""
    return re.split(r"[+\s(@]", version, maxsplit=1)[0]


def _value(value: Any) -> str:
    return "absent" if value is ABSENT else "null" if value is None else str(value)
