"""How far the measurement of each arm and each run can be trusted, as tables and as one line on top.

What this leaves out: the rules of grading (`grade`), and that a verdict on memory refuses grade D
(`ratios`, `verdicts.costs`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from harness import text
from harness.claims import Finding
from harness.grade import MeasurementGrade
from harness.grade_bounds import GRADES
from harness.lenses import LENS_NAMES, TRAINING, WHOLE_RUN, Lens, judged_order
from harness.report_tables import Table, arms_of, cell, make_table, runs_of
from harness.series import is_ok
from harness.summary import RunSummary
from harness.view import RunView, StudyView

MOST_REASONS = 4  # of an arm; the table of runs has them all


def grades_tables(view: StudyView) -> tuple[Table, ...]:
    """Give each arm's grades, over its runs that ended ok, with what lowered them; none ungraded."""
    rows = []
    findings = view.findings
    for pair, arm in arms_of(view):
        ok = [r.summary for r in runs_of(view, pair, arm) if is_ok(r) and r.summary]
        graded = [s for s in ok if s.grades]
        if not graded:
            continue
        lenses = judged_lenses(findings, pair, arm) or own_lens(graded)
        counts = [_counts(s.grades[x].grade for s in graded if x in s.grades) for x in lenses]
        rows.append(
            (
                pair,
                arm,
                _counts(s.grades[WHOLE_RUN].grade for s in graded),
                "; ".join(LENS_NAMES[lens] for lens in lenses) or text.MISSING,
                "; ".join(counts),
                _reasons([s.grades[WHOLE_RUN].reasons for s in graded]),
            )
        )
    columns = ("Pair", "Arm", "Runs", "Memory judged by", "That lens", "Why not better")
    return (make_table("Grades of measurement, A to D", columns, rows),) if rows else ()


def measurement_tables(view: StudyView) -> tuple[Table, ...]:
    """Give each run's grades, lens by lens, and what its sampler can have missed."""
    rows = []
    for run in view.runs:
        summary = run.summary
        if summary is None or not summary.grades:
            continue
        lenses = [
            f"{name} {summary.grades[lens].grade}"
            for lens, name in LENS_NAMES.items()
            if lens in summary.grades
        ]
        rows.append(
            (
                cell(run),
                summary.grades[WHOLE_RUN].grade,
                ", ".join(lenses),
                missed_text(summary),
                " ".join(summary.grades[WHOLE_RUN].reasons),
            )
        )
    columns = ("Run", "Grade", "Lenses", "What the sampler can have missed in training", "Reasons")
    caption = "Measurement of every run"
    return (make_table(caption, columns, rows, is_long=True),) if rows else ()


def missed_text(summary: RunSummary) -> str:
    """Say by how much a peak can have been missed, by the first lens in judging order that was sampled."""
    order = judged_order(is_above_idle=summary.is_judged_above_idle)
    lens = next((name for name in order if name in summary.missed), None)
    if lens is None:
        return text.MISSING
    missed = summary.missed[lens]
    if missed.at_most_bytes is not None:
        return (
            f"{LENS_NAMES[lens]}: at most {text.memory(missed.at_most_bytes)}, by torch's reserved "
            "peak and the most that was seen beside it"
        )
    if missed.longest_gap_s is None:
        return text.MISSING
    return (
        f"{LENS_NAMES[lens]}: a rise shorter than {text.duration(missed.longest_gap_s)}, the longest "
        "gap between samples, would not be seen"
    )


def energy_tables(view: StudyView) -> tuple[Table, ...]:
    """Give each run's energy in training, and what it was read from; nothing without a GPU's."""
    rows = []
    for run in view.runs:
        summary = run.summary
        if summary is None or summary.energy_j is None:
            continue
        rows.append(
            (
                cell(run),
                text.scaled(summary.energy_j, "J"),
                {"power": "power, integrated"}.get(
                    str(summary.energy_source), str(summary.energy_source)
                ),
                text.percent(summary.energy_coverage),
                text.scaled(summary.joules_per_token, "J"),
                text.scaled(summary.power_w_mean, "W"),
            )
        )
    columns = (
        "Run", "Energy in training", "Read from", "Share of training read", "Per trained token",
        "Power (mean)",
    )  # fmt: skip
    return (make_table("GPU energy", columns, rows, {1, 3, 4, 5}, is_long=True),) if rows else ()


def refusal_notice(view: StudyView) -> str:
    """Say in a line how many runs' memory is graded D, and why; empty if none."""
    findings = view.findings
    refused = [
        (run, grade)
        for run in view.runs
        if is_ok(run) and (grade := _judged_grade(run, findings)) is not None and grade.grade == "D"
    ]
    if not refused:
        return ""
    first, grade = refused[0]
    many = text.plural(len(refused), "run")
    why = grade.reasons[0] if grade.reasons else ""
    return (
        f"The memory of {many} is graded D, so no verdict on memory rests on "
        f"{'it' if len(refused) == 1 else 'them'}. {cell(first)}: {why}"
    )


def judged_lenses(
    findings: Sequence[Finding], pair: str, arm: str, seed: int | None = None
) -> tuple[Lens, ...]:
    """Return the lenses that an arm's comparisons are judged by, or those that one seed is part of.

    Both arms of a comparison have one, whatever else one of them may have been read by; a baseline has
    several where its comparisons have different ones.
    """
    judged = {
        found.memory[0].lens
        for found in findings
        if found.pair == pair
        and arm in (found.arm, found.baseline)
        and found.memory
        and (seed is None or seed in found.seeds)
    }
    return tuple(lens for lens in judged_order(is_above_idle=True) if lens in judged)


def own_lens(summaries: Sequence[RunSummary]) -> tuple[Lens, ...]:
    """Return what runs that nothing is compared with would be judged by; empty if nothing was read."""

    def is_read(lens: Lens) -> bool:
        return all(s.peak(lens, TRAINING) is not None for s in summaries)

    order = judged_order(is_above_idle=any(s.is_judged_above_idle for s in summaries))
    return tuple(lens for lens in order if is_read(lens))[:1]


def _judged_grade(run: RunView, findings: Sequence[Finding]) -> MeasurementGrade | None:
    """Return the lowest grade that a run has by the lenses it is judged by."""
    if run.summary is None:
        return None
    planned, grades = run.planned, run.summary.grades
    lenses = judged_lenses(findings, planned.pair, planned.arm, planned.seed)
    found = [grades[lens] for lens in lenses or own_lens([run.summary]) if lens in grades]
    return max(found, key=lambda each: GRADES.index(each.grade), default=None)


def _counts(grades: Iterable[str]) -> str:
    """Write how many runs have which grade: 'A (3 runs)' of one kind, else 'A 3, D 1'."""
    found = Counter(grades)
    if len(found) == 1:
        return f"{next(iter(found))} ({text.plural(sum(found.values()), 'run')})"
    return ", ".join(f"{grade} {found[grade]}" for grade in GRADES if found[grade])


def _reasons(reasons: Sequence[tuple[str, ...]]) -> str:
    """Join the runs' reasons, the commonest first; the numbers in them differ from run to run."""
    kinds = Counter(_kind(reason) for each in reasons for reason in each)
    first = {_kind(reason): reason for each in reversed(reasons) for reason in each}
    said = [
        first[kind] + (f" (so in {n} of {len(reasons)} runs)" if len(reasons) > 1 else "")
        for kind, n in kinds.most_common(MOST_REASONS)
    ]
    more = len(kinds) - len(said)
    return " ".join(said) + (f" And {more} more." if more > 0 else "")


def _kind(reason: str) -> str:
    """A reason without its numbers."""
    return re.sub(r"[\d.,\u202f]+", "#", reason)
