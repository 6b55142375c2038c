"""What is done with baselines: a study becomes one or replaces one, a change of one is accepted.

Each is refused with every reason at once. What this leaves out: the reasons (`promotion`), the files
(`baselines`) and the commands (`baselining`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.baseline_card import Acknowledgements, Provenance
from harness.baselines import (
    NAME,
    SUMMARY,
    ReadSide,
    read_acknowledgements,
    read_summary,
    require_baseline,
    write_acknowledgements,
    write_baseline,
)
from harness.compare.model import Acknowledged
from harness.compare.side import Side
from harness.errors import ConfigError
from harness.promotion import (
    acknowledgement_problems,
    is_taken_in,
    refusals,
    tree_problems,
    unfit_runs,
)
from harness.record import Status
from harness.store import Store

Tell = Callable[[str], None]


def save_study(study: Path, name: str | None, home: Path, read: ReadSide, tell: Tell) -> Path:
    """Save a study under a name that is free; what would keep it from being promoted is told.

    Raises: ConfigError if the name can't be one or is taken, or if no run ended ok.
    """
    made_of = provenance_of(Store(study))
    side = read(study)
    named = name or f"{side.matrix_name}-trl-{side.packages.get('trl') or 'unknown'}"
    problems = []
    if not NAME.fullmatch(named):
        problems.append(
            f"found --name {named!r}, expected letters, digits, '.', '_' and '-', at most 80"
        )
    elif (home / named / SUMMARY).exists():
        problems.append(
            f"baseline {named!r} is there already; give another --name, or replace it with `harness "
            f"baseline promote {study} {named}`"
        )
    if not any(run.status is Status.OK for run in side.runs):
        problems.append(f"no run of {str(study)!r} ended ok; see `harness runs ls {study}`")
    if problems:
        raise ConfigError(*problems)
    for doubt in doubts(side, made_of):
        tell(f"note: {doubt}")
    write_baseline(home / named, side, made_of)
    return home / named


def promote_study(
    study: Path, name: str, read: ReadSide, tell: Tell, *, across_machines: bool = False
) -> Path:
    """Replace a baseline by a study; what was acknowledged of its releases retires.

    Raises: ConfigError with every reason against it.
    """
    folder = require_baseline(name)
    before, accepted = read_summary(folder), read_acknowledgements(folder)
    side, made_of = read(study), provenance_of(Store(study))
    problems = refusals(before, side, made_of, across_machines=across_machines)
    if problems:
        raise ConfigError(*problems)
    write_baseline(folder, side, made_of)
    taken_in = tuple(e for e in accepted.acknowledged if is_taken_in(e, side))
    kept = Acknowledgements(
        acknowledged=tuple(e for e in accepted.acknowledged if e not in taken_in),
        retired=(*accepted.retired, *taken_in),
    )
    write_acknowledgements(folder, kept)
    for entry in taken_in:
        tell(f"note: {entry.what!r} ({entry.version}) is part of the baseline now and retires")
    return folder


def add_entry(folder: Path, entry: Acknowledged) -> Acknowledgements:
    """Add an acknowledgement to a baseline, in place of one of the same change and release.

    Raises: ConfigError with everything that is wrong with it.
    """
    problems = acknowledgement_problems(entry, read_summary(folder).runs)
    if problems:
        raise ConfigError(*problems)
    known = read_acknowledgements(folder)
    others = [e for e in known.acknowledged if (e.what, e.version) != (entry.what, entry.version)]
    kept = known.model_copy(update={"acknowledged": (*others, entry)})
    write_acknowledgements(folder, kept)
    return kept


def remove_entry(folder: Path, what: str, version: str = "") -> Acknowledgements:
    """Take back what was acknowledged of a change: of one release, or of all.

    Raises: ConfigError naming what there is.
    """
    known = read_acknowledgements(folder)
    gone = [e for e in known.acknowledged if e.what == what and version in ("", e.version)]
    if not gone:
        there = ", ".join(f"{e.what!r} ({e.version})" for e in known.acknowledged)
        raise ConfigError(
            f"{what!r} {version} is not acknowledged in {folder.name!r}; expected one of "
            f"{there or 'none'}"
        )
    left = tuple(e for e in known.acknowledged if e not in gone)
    kept = known.model_copy(update={"acknowledged": left})
    write_acknowledgements(folder, kept)
    return kept


def provenance_of(store: Store) -> Provenance:
    """Say what a study was made of, by what its runs' environments recorded.

    Raises: ConfigError if there is no study; StudyError if it can't be read.
    """
    commits: set[str] = set()
    states: set[bool | None] = set()
    for planned in store.read_study().planned:
        record = store.read_record(planned.run_id)
        if record is None:
            continue
        attempt = store.run_dir(planned.run_id) / f"attempt-{record.attempt}"
        tree = store.read_plain(attempt, "environment.json").get("harness") or {}
        states.add(tree.get("is_dirty"))
        if tree.get("commit"):
            commits.add(tree["commit"])
    is_dirty = True if True in states else False if states == {False} else None
    return Provenance(
        study=store.root.resolve().name, commits=tuple(sorted(commits)), is_dirty=is_dirty
    )


def doubts(side: Side, made_of: Provenance) -> list[str]:
    """List what a reviewer of a new baseline has to know."""
    found = [*tree_problems(made_of), *unfit_runs(side)]
    if not made_of.commits:
        found.append("the records name no commit of the harness: it was installed, not checked out")
    content = side.model_dump_json()
    places = [f"{place}/" for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    if any(place in content for place in places):
        found.append("values name a folder of this machine; look at side.json before you commit it")
    return found
