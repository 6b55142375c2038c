"""One pair by every lens and statistic: how a ratio of memory depends on what was read, and how.

A ratio is the geometric mean of paired ratios over the seeds that both arms finished. A seed in which
either arm was measured with grade D is left out, unless there is no other (`trust`). What this leaves
out: intervals and verdicts (`ratios`), bytes (`memory_tables`).
"""

from __future__ import annotations

from collections.abc import Mapping

from harness import text
from harness.lenses import ABOVE_IDLE, COUNTED, DEVICE, LENS_NAMES, RSS, Lens
from harness.report_tables import NOT_APPLICABLE, Table, arms_of, make_table, runs_of
from harness.series import is_ok
from harness.stats import paired_ratio
from harness.summary import RunSummary
from harness.trust import trusted_seeds
from harness.view import StudyView

STATISTICS = {"peak": "peak", "p99": "99th percentile", "mean": "time-weighted mean"}

Runs = Mapping[int, RunSummary]  # by seed


def same_pair_table(view: StudyView) -> Table:
    """Show how the ratio of an arm to its baseline depends on the lens and on the statistic."""
    rows: list[tuple[str, ...]] = []
    for pair, arm in arms_of(view):
        baseline = view.matrix.pairs[pair].baseline
        if arm == baseline:
            continue
        ours, theirs = (_by_seed(view, pair, name) for name in (arm, baseline))
        found = {lens: row for lens in LENS_NAMES if (row := _lens_row(ours, theirs, lens))}
        # On a GPU that held nothing before the run, above idle is the same figure again.
        if found.get(ABOVE_IDLE) == found.get(DEVICE):
            found.pop(ABOVE_IDLE, None)
        for lens, (note, *shown) in found.items():
            name = f"growth of {LENS_NAMES[lens]}" if lens == RSS else LENS_NAMES[lens]
            rows.append((pair, arm, baseline, name + note, *shown))
    columns = ("Pair", "Arm", "Baseline", "Lens", "Peak", "99th percentile", "Time-weighted mean")
    return make_table(
        "The same pair, by lens and statistic: memory in training, arm over baseline",
        columns,
        rows,
        numeric={4, 5, 6},
    )


def _by_seed(view: StudyView, pair: str, arm: str) -> Runs:
    return {r.planned.seed: r.summary for r in runs_of(view, pair, arm) if is_ok(r) and r.summary}


def _lens_row(ours: Runs, theirs: Runs, lens: Lens) -> tuple[str, ...] | None:
    """Give what to say of a lens, then its ratios, a statistic each; None if it has none."""
    # Whatever else a lens gives in training, it gives a peak.
    arm_read, baseline_read = (
        {seed: run for seed, run in runs.items() if run.in_training(lens, "peak") is not None}
        for runs in (ours, theirs)
    )
    seeds, note = trusted_seeds(arm_read, baseline_read, lens)
    ratios = []
    for statistic in STATISTICS:
        arm, baseline = (
            {
                seed: float(value)
                for seed in seeds
                if (value := runs[seed].in_training(lens, statistic)) is not None
            }
            for runs in (ours, theirs)
        )
        estimate = paired_ratio(arm, baseline)
        ratios.append(estimate.mean if estimate else None)
    if all(ratio is None for ratio in ratios):
        return None
    return note, *(
        NOT_APPLICABLE if lens in COUNTED and ratio is None else text.percent(ratio)
        for ratio in ratios
    )
