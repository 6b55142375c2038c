"""May a study become a baseline, and what may be acknowledged of one? Answers, all of them at once.

A baseline decides what counts as a change from then on, so it has to come from a tree that can be
checked out again, from runs that all ended ok, and from the machine and matrix of the one it replaces.
What this leaves out: reading and writing (`baselines`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import get_args

from harness.baseline_card import Baseline, Provenance
from harness.compare.machine import fingerprint_differences
from harness.compare.model import Acknowledged, Kind
from harness.compare.side import Side
from harness.errors import did_you_mean
from harness.record import Status
from harness.releases import numbers

KINDS: tuple[str, ...] = get_args(Kind)
MOST_NAMED = 5
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]* \d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)*")


def refusals(
    baseline: Baseline, side: Side, provenance: Provenance, *, across_machines: bool = False
) -> list[str]:
    """List why a study can't replace a baseline, each with what to do; empty if it can."""
    problems = [*tree_problems(provenance), *unfit_runs(side)]
    if side.matrix_hash != baseline.matrix_hash:
        problems.append(
            f"matrix {side.matrix_name!r} has the hash {side.matrix_hash[:12]}, the baseline's "
            f"{baseline.matrix_name!r} {baseline.matrix_hash[:12]}: they asked for different things; run "
            "the baseline's matrix, or keep this study under a name of its own with `harness baseline save`"
        )
    differing = fingerprint_differences(baseline.platform, side.platform)
    if differing and not across_machines:
        problems.append(
            f"another machine than the baseline's: {'; '.join(differing)}. Record it there, or add "
            "--across-machines if memory and speed may start anew"
        )
    return problems


def unfit_runs(side: Side) -> list[str]:
    """List what of a side's runs can't be relied on."""
    problems = [f"{what}: mend or make the study again" for what in side.unreadable]
    failed = [
        f"{run.cell} ({run.status.value if run.status else 'not run'})"
        for run in side.runs
        if run.status is not Status.OK
    ]
    if failed:
        more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
        problems.append(
            f"{len(failed)} of {len(side.runs)} runs did not end ok: {', '.join(failed[:MOST_NAMED])}"
            f"{more}; run the same `harness bench` again, with --retry-failed where training itself failed"
        )
    if not side.runs:
        problems.append("the study has no runs; run `harness bench` first")
    return problems


def acknowledgement_problems(entry: Acknowledged, cells: Iterable[str]) -> list[str]:
    """List what is wrong with an acknowledgement of a baseline that has these cells (pair.arm.sSEED)."""
    problems = []
    pattern, _, kind = entry.what.rpartition(":")
    names = sorted({cell.rpartition(".")[0] for cell in cells})
    if not pattern or kind not in (*KINDS, "*"):
        problems.append(
            f"found {entry.what!r}{did_you_mean(kind, KINDS)}, expected a selector over pair.arm and a "
            f"kind, e.g. 'sft-*:loss'; kinds: {', '.join(KINDS)}, or * for all"
        )
    elif not any(_matches(name, pattern) for name in names):
        problems.append(
            f"{pattern!r} matches no cell of the baseline{did_you_mean(pattern, names)}; expected a "
            f"selector over {', '.join(names[:MOST_NAMED])}"
            + (" …" if len(names) > MOST_NAMED else "")
        )
    if not entry.reason.strip():
        problems.append(
            "--reason is empty; expected why the change is right, for whoever reads it later"
        )
    if not _VERSION.fullmatch(entry.version):
        problems.append(
            f"found --version {entry.version!r}, expected a package and the release that brought the "
            "change, e.g. 'trl 1.16.0'"
        )
    return problems


def is_taken_in(entry: Acknowledged, side: Side) -> bool:
    """Whether a side has the release that brought an accepted change, or a later one."""
    package, _, release = entry.version.partition(" ")
    found = side.packages.get(package.lower())
    return found is not None and numbers(found) >= numbers(release)


def tree_problems(provenance: Provenance) -> list[str]:
    """List what keeps a tree from being checked out again as it was."""
    problems = []
    if provenance.is_dirty:
        problems.append(
            "the harness's tree had uncommitted changes when runs were recorded: nobody could make this "
            "baseline again; commit them, and record the study anew in a new folder"
        )
    elif provenance.commits and provenance.is_dirty is None:
        problems.append(
            "the records name a commit and not whether the tree was clean; record the study anew where "
            "`git status` answers"
        )
    if len(provenance.commits) > 1:
        short = ", ".join(commit[:12] for commit in provenance.commits)
        problems.append(
            f"its runs were recorded at {len(provenance.commits)} commits ({short}); record the study "
            "anew at one"
        )
    return problems


def _matches(name: str, pattern: str) -> bool:
    """Whether a selector takes a cell, by its pair.arm or by its pair alone."""
    pair = name.partition(".")[0]
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(pair, pattern)
