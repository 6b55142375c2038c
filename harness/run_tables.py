"""The tables with a row per run: its status, how well it was watched, every held-out evaluation.

A run stands here whatever became of it. What this leaves out: figures per arm (`report_tables`).
"""

from __future__ import annotations

from harness import text
from harness.report_tables import NOT_APPLICABLE, Table, cell, make_table
from harness.view import StudyView


def runs_table(view: StudyView) -> Table:
    """List every run with its status, whatever became of it."""
    rows = []
    for run in view.runs:
        record, summary = run.record, run.summary
        rows.append(
            (
                run.planned.run_id,
                record.status.value if record else "not run",
                str(run.planned.seed),
                str(len(record.attempts)) if record else "0",
                text.count(summary.steps) if summary else text.MISSING,
                text.number(summary.final_value if summary else None),
                text.duration(summary.wall_s if summary else None),
                (record.reason if record else None) or "",
            )
        )
    columns = ("Run", "Status", "Seed", "Attempts", "Steps", "Test metric", "Wall time", "Reason")
    return make_table("Every run", columns, rows, numeric={2, 3, 4, 5, 6})


def processes_tables(view: StudyView) -> tuple[Table, ...]:
    """Say of runs of several processes what wrapped the model and what each GPU held; else nothing."""
    rows = []
    for run in view.runs:
        result = run.record.result if run.record else None
        ran = result.distributed if result else None
        peaks = run.summary.peak_bytes_by_device if run.summary else {}
        if ran is None and not peaks:
            continue
        summed = run.summary.peak_bytes.get("nvml-device", {}) if run.summary else {}
        rows.append(
            (
                cell(run),
                text.count(ran.processes if ran else None),
                ran.asked if ran else text.MISSING,
                f"{ran.type}, {ran.wrapper}" if ran else text.MISSING,
                ", ".join(text.memory(peak) for peak in peaks.values()) or text.MISSING,
                text.memory(summed.get("training") if peaks else None),
            )
        )
    columns = (
        "Run", "Processes", "Asked for", "Ran as", "Peak of each GPU while training",
        "Peak of their sum",
    )  # fmt: skip
    caption = (
        "Runs of several processes: NVML device memory; torch's lenses are the first process's"
    )
    return (make_table(caption, columns, rows, numeric={1, 5}),) if rows else ()


def sampler_table(view: StudyView) -> Table:
    """Say how well memory was watched, and what watching cost."""
    rows = []
    for run in view.runs:
        sampler = run.record.sampler if run.record else None
        if sampler is None:
            continue
        cost = sampler.sampling_cpu_s / sampler.wall_s if sampler.wall_s > 0 else None
        rows.append(
            (
                cell(run),
                f"{text.number(sampler.achieved_hz, 3)} of {sampler.requested_hz:g} Hz",
                text.duration(sampler.longest_gap_s),
                text.count(sampler.samples),
                text.percent(cost, 2),
                ", ".join(sampler.lenses),
                "; ".join(sampler.notes),
            )
        )
    columns = (
        "Run", "Rate", "Longest gap of the whole run", "Samples", "CPU cost, share of a core", "Lenses",
        "Notes",
    )  # fmt: skip
    return make_table("The memory sampler", columns, rows, numeric={1, 2, 3, 4}, is_long=True)


def evaluations_table(view: StudyView) -> Table:
    """List every held-out evaluation."""
    rows = [
        (
            cell(run),
            point.split,
            str(point.step),
            point.metric,
            text.number(point.value) if point.value is not None else "not finite, or not scored",
            text.count(point.rows),
            text.count(point.tokens) if point.metric == "nll" else NOT_APPLICABLE,
            str(point.unscored),
            text.duration(point.wall_s),
        )
        for run in view.runs
        if run.record and run.record.result
        for point in run.record.result.evaluations
    ]
    columns = (
        "Run", "Split", "Step", "Metric", "Value", "Rows", "Tokens pooled", "Unscored", "Wall time",
    )  # fmt: skip
    return make_table(
        "Every held-out evaluation", columns, rows, numeric={2, 4, 5, 6, 7, 8}, is_long=True
    )
