"""What one side has and the other lacks: runs, steps, metrics, parameters, checks. Findings of their own.

A run that can't be trained with what is installed is unsupported, which is no regression. One that failed
where the other side's ended ok is a change if training itself did it, and undecided if an accident around
training may have. What a release merely logs or takes anew is shown and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.compare.exact import Stacks
from harness.compare.grouping import CellRuns, is_ok
from harness.compare.logged import ESSENTIAL, is_timelike
from harness.compare.model import Difference, Kind, Layer, Word
from harness.compare.side import RunSide
from harness.compare.tracks import tracks_of
from harness.record import OUTCOMES, Status
from harness.releases import unfit_pairing

# What the worker says of releases that can't train together, and of an import that fails for them.
_PAIRING_SIGNS = ("unsupported here", "can't train without", "can't be imported under")
_IMPORT_SIGNS = ("ImportError", "ModuleNotFoundError")
_OUTSIDE_SIGNS = ("SIGKILL", "SIGTERM", "killed", "supervisor")


def unsupported_reason(run: RunSide | None, packages: Mapping[str, str | None]) -> str | None:
    """Say why a run can't be trained with what its side has installed, or None."""
    if run is None or run.status not in (Status.UNAVAILABLE, Status.CONFIG, Status.CRASHED):
        return None
    reason = run.reason or ""
    if run.status is Status.CONFIG:
        return reason or "its trainer refuses the arguments"
    has_signs = any(sign in reason for sign in _PAIRING_SIGNS)
    if run.status is Status.UNAVAILABLE and has_signs:
        return reason
    known = unfit_pairing(run.task, packages, has_triton=bool(packages.get("triton")))
    if known is not None:
        return known
    is_import = any(reason.startswith(sign) for sign in _IMPORT_SIGNS)
    return reason if run.status is Status.CRASHED and is_import else None


def compare_statuses(
    cell: CellRuns, base: Mapping[str, str | None], candidate: Mapping[str, str | None]
) -> list[Difference]:
    """Say which runs of a cell can't be compared, and why; `base` and `candidate` are packages."""
    found = []
    for seed in cell.seeds:
        ours, theirs = cell.base.get(seed), cell.candidate.get(seed)
        if is_ok(ours) and is_ok(theirs):
            continue
        word, text = _status_finding(
            ours, theirs, unsupported_reason(ours, base), unsupported_reason(theirs, candidate)
        )
        found.append(
            Difference(
                layer="missing",
                kind="missing",
                what="run",
                word=word,
                base=ours.status.value if ours and ours.status else None,
                candidate=theirs.status.value if theirs and theirs.status else None,
                sentence=text,
                seed=seed,
            )
        )
    return found


def compare_contents(base: RunSide, candidate: RunSide, stacks: Stacks) -> list[Difference]:
    """Say what one of two runs that ended ok lacks."""
    return [
        *_steps(base, candidate),
        *_configs(base, candidate),
        *_metrics(base, candidate, stacks),
        *_probes(base, candidate),
        *_evaluations(base, candidate),
        *_phases(base, candidate),
    ]


def _status_finding(
    ours: RunSide | None, theirs: RunSide | None, our_reason: str | None, their_reason: str | None
) -> tuple[Word, str]:
    """Return the word and the sentence for a seed that is not ok on both sides."""
    if ours is None or theirs is None:
        who = "base" if ours is None else "candidate"
        return "not comparable", (
            f"the {who} has no such run; run the same matrix and seeds on both sides"
        )
    if our_reason or their_reason:
        side, reason = ("candidate", their_reason) if their_reason else ("base", our_reason)
        both = "both sides" if our_reason and their_reason else f"the {side}"
        return "unsupported here", f"{both} can't train this here: {reason}"
    if ours.status is None or theirs.status is None:
        who = "base" if ours.status is None else "candidate"
        return "undecided", f"not run yet in the {who}; run the same `harness bench` again"
    if not is_ok(ours) and not is_ok(theirs):
        return "not comparable", (
            f"no result on either side: {_ended(ours)} in the base, {_ended(theirs)} in the candidate"
        )
    failed, who, other = (
        (theirs, "candidate", "base") if is_ok(ours) else (ours, "base", "candidate")
    )
    text = f"{_ended(failed)} in the {who}, ok in the {other}"
    is_training = failed.status in OUTCOMES or failed.status is Status.CRASHED
    was_outside = any(sign in (failed.reason or "") for sign in _OUTSIDE_SIGNS)
    is_memory = failed.status in (Status.OOM_GPU, Status.OOM_HOST)
    if not is_training or was_outside or is_memory:
        return "undecided", f"{text}; run it again: the machine may have done that"
    return "changed", text


def _ended(run: RunSide) -> str:
    word = run.status.value if run.status else "not run"
    return f"{word} ({run.reason[:200]})" if run.reason else word


def _steps(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    ours, theirs = _step_count(base), _step_count(candidate)
    if not (ours or theirs or any(run.probe and run.probe.steps for run in (base, candidate))):
        text = "neither side recorded a step, so nothing of training was compared"
        yield _lack("steps", "missing", "undecided", f"{text}; run both again")
    if ours is not None and theirs is not None and ours != theirs:
        text = f"number of optimizer steps: {ours} became {theirs}"
        yield _lack("steps", "data", "changed", text, ours, theirs, layer="exact")


def _step_count(run: RunSide) -> int | None:
    return max((len(series) for series in run.series.values()), default=None)


def _configs(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    if bool(base.config) != bool(candidate.config):
        who = "base" if not base.config else "candidate"
        text = f"the {who} left no resolved_config.json, so its arguments were not compared"
        yield _lack("arguments", "missing", "undecided", text)


def _metrics(base: RunSide, candidate: RunSide, stacks: Stacks) -> Iterator[Difference]:
    ours, theirs = _keys(base), _keys(candidate)
    for who, keys in (("candidate", ours - theirs), ("base", theirs - ours)):
        needed = sorted(keys & set(ESSENTIAL[base.task])) if not stacks.is_same_software else keys
        for key in sorted(needed):
            yield _lack(f"log/{key}", "missing", "changed", f"the {who} does not log {key}")
        rest = sorted(keys - set(needed))
        if rest:
            text = f"the {who} does not log {', '.join(rest[:8])}" + (" …" if rest[8:] else "")
            yield _lack("logged keys", "missing", "same", text + "; no change of training")


def _keys(run: RunSide) -> set[str]:
    return {
        key
        for key, series in run.series.items()
        if not is_timelike(key) and any(v is not None for v in series)
    }


def _probes(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    if (base.probe is None) != (candidate.probe is None):
        who = "candidate" if candidate.probe is None else "base"
        yield _lack(
            "probe", "missing", "undecided", f"the {who} left no probe.json that can be read"
        )
        return
    if base.probe is None or candidate.probe is None:
        return
    if len(base.probe.steps) != len(candidate.probe.steps):
        ours, theirs = len(base.probe.steps), len(candidate.probe.steps)
        text = f"number of probed steps: {ours} became {theirs}"
        yield _lack("probed steps", "missing", "changed", text, ours, theirs)
        if not (ours and theirs):  # then every number of the probe is missing with them
            return
    for who, lacks in _one_sided(set(base.probe.checks), set(candidate.probe.checks)):
        for name in lacks:
            text = f"the {who} has no check {name!r}"
            yield _lack(f"check/{name}", "missing", "changed", text)
    ours_tracks, theirs_tracks = tracks_of(base), tracks_of(candidate)
    for who, lacks in _one_sided(set(ours_tracks), set(theirs_tracks)):
        for name in lacks:
            if name.startswith("gradient/"):
                group = name.removeprefix("gradient/")
                text = f"the {who} trains no {group}"
                yield _lack(f"trained/{group}", "weights", "changed", text, layer="exact")
            elif not name.startswith(("log/", "update/")):
                yield _lack(name, "missing", "undecided", f"the {who} did not measure {name}")


def _one_sided(ours: set[str], theirs: set[str]) -> Iterator[tuple[str, list[str]]]:
    yield "candidate", sorted(ours - theirs)
    yield "base", sorted(theirs - ours)


def _evaluations(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    ours = {f"{p.split} rows after step {p.step}" for p in base.evaluations}
    theirs = {f"{p.split} rows after step {p.step}" for p in candidate.evaluations}
    for who, lacks in _one_sided(ours, theirs):
        if lacks:
            text = f"the {who} has no evaluation on {', '.join(lacks[:4])}"
            yield _lack("evaluations", "missing", "undecided", text)


def _phases(base: RunSide, candidate: RunSide) -> Iterator[Difference]:
    """Short phases can fall between two samples, so a lens counts and a phase is shown."""
    for who, lacks in _one_sided(set(base.peak_bytes), set(candidate.peak_bytes)):
        if lacks:
            text = f"the {who} has no memory by {', '.join(lacks)}"
            yield _lack("memory", "missing", "same", text)


def _lack(
    what: str,
    kind: Kind,
    word: Word,
    text: str,
    base: object = None,
    candidate: object = None,
    layer: Layer = "missing",
) -> Difference:
    return Difference(
        layer=layer, kind=kind, what=what, word=word, base=base, candidate=candidate, sentence=text
    )
