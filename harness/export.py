"""The report's numbers for other programs: data.json and runs.csv.

Every number that the page shows, under names with units; missing is null in JSON and empty in CSV.
Raw step logs and memory samples stay in the study's folder. What this leaves out: rendering.

Format history of data.json:
  1  first format
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness import text
from harness.claim_sentence import has_claims
from harness.claims import Finding
from harness.findings import banners, finding_cautions, headline, pair_label, scale_of
from harness.forecasts import Forecasts
from harness.integrity import RewardIntegrity
from harness.lenses import TRAINING, WHOLE_RUN
from harness.provenance import commands, environment_of, environments, shareable
from harness.record import Attempt
from harness.report_tables import arm_parameters, arms_of, cell
from harness.reward_tables import integrity_data
from harness.scorecard import by_lens
from harness.scorecard_tables import compared, scores
from harness.series import Curves
from harness.summary import RunSummary
from harness.traces import MemoryTrace
from harness.view import RunView, StudyView
from harness.waterfall import waterfall_of

FORMAT = 1
Figures = Mapping[str, tuple[Curves, MemoryTrace | None]]  # pair → what its two figures show


def data_json(view: StudyView, figures: Figures, generated_utc: str) -> bytes:
    """Write the report's data as JSON.

    Raises: ValueError if a number is not finite; a record can't hold one.
    """
    known = environments(view)
    data = {
        "format": FORMAT,
        "generated_utc": generated_utc,
        "study": {
            "name": view.name,
            "matrix": view.study.matrix_name,
            "title": view.matrix.title,
            "scale": scale_of(view),
            "created_utc": view.study.created_utc,
            "harness_version": view.study.harness_version,
            "matrix_hash": view.study.matrix_hash,
            "margins_hash": view.study.margins_hash,
            "is_post_hoc": view.post_hoc,
            "overrides": view.study.overrides,
            "commands": dict(commands(view)),
        },
        "sentence": headline(view),
        "banners": [asdict(b) for b in banners(view)],
        "findings": [_finding(view, f) for f in view.findings],
        "pairs": {name: p.model_dump(mode="json") for name, p in view.matrix.pairs.items()},
        "parameters": _parameters(view),
        "reward_integrity": integrity_data(view),
        "forecast": _forecast(view),
        "environments": known,
        "runs": [
            {**_run(r, view.forecasts), "environment_index": _place(r, known)}
            for r in view.every_run
        ],
        "figures": {
            pair: {"curves": asdict(curves), "memory": asdict(trace) if trace else None}
            for pair, (curves, trace) in figures.items()
        },
        "undeclared_differences": list(view.undeclared),
        "problems": list(view.problems),
    }
    if has_claims(view) or view.grid:
        data |= _claims(view)
    clean = shareable(data)
    return (json.dumps(clean, allow_nan=False, ensure_ascii=True, indent=1) + "\n").encode()


def runs_csv(view: StudyView) -> bytes:
    """Write one row per planned run; units stand in the column names."""
    rows = [_csv_row(run) for run in view.every_run]
    lenses = sorted({k for row in rows for k in row if k.endswith("_training_bytes")})
    columns = [*(k for k in (rows[0] if rows else {}) if k not in lenses), *lenses]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _finding(view: StudyView, finding: Finding) -> dict[str, Any]:
    return {
        "pair_label": pair_label(view, finding.pair),
        **finding.model_dump(mode="json"),
        "cautions": list(finding_cautions(view, finding)),
    }


def _claims(view: StudyView) -> dict[str, Any]:
    """Give each claim with its verdict, what the rates of grids came to, and which were chosen."""
    specs = view.matrix.claims
    return {
        "claims": [
            {"spec": specs[v.claim].model_dump(mode="json"), "verdict": v.model_dump(mode="json")}
            for v in view.verdicts
            if v.claim in specs
        ],
        "grid": [asdict(point) for point in view.points],
        "choices": [
            {"pair": pair, "arm": arm, "learning_rate": rate}
            for (pair, arm), rate in view.choices.items()
        ],
        "flops": [ratio.model_dump(mode="json") for ratio in view.flops],
    }


def _forecast(view: StudyView) -> dict[str, Any] | None:
    """Give what was forecast, arm by arm, and how far each run lay from it; null if nothing was kept."""
    kept = view.forecasts
    if kept is None:
        return None
    rows = scores(view)
    return {
        **kept.model_dump(mode="json"),
        "compared": compared(view).model_dump(mode="json"),
        "scorecard": [
            {
                **row.model_dump(mode="json"),
                "ratio": row.forecast_bytes / row.measured_bytes,
                "is_inside": row.is_inside,
            }
            for row in rows
        ],
        "by_lens": [each.model_dump(mode="json") for each in by_lens(rows)],
    }


def _parameters(view: StudyView) -> list[dict[str, Any]]:
    rows = []
    for pair, arm in arms_of(view):
        counts = arm_parameters(view, pair, arm)
        rows.append({"pair": pair, "arm": arm, **(counts.model_dump() if counts else {})})
    return rows


def _run(run: RunView, forecasts: Forecasts | None) -> dict[str, Any]:
    record = run.record
    result = record.result if record else None
    parts = waterfall_of(run, forecasts)
    return {
        **run.planned.model_dump(),
        "status": record.status.value if record else None,
        "reason": record.reason if record else None,
        "attempts": [_attempt(a) for a in record.attempts] if record else [],
        "summary": run.summary.model_dump(mode="json") if run.summary else None,
        "peak_parts": parts.model_dump(mode="json") if parts else None,
        "sampler": record.sampler.model_dump(mode="json") if record and record.sampler else None,
        "result": result.model_dump(mode="json") if result else None,
        # A run of a grid differs from the arm's own in its rate and seed: said once.
        "resolved_config": {} if run.planned.grid_rate else run.resolved_config,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    # Who ran a container, and under which name, is of no use to another reader.
    return attempt.model_dump(mode="json", exclude={"container": {"name", "user"}})


def _csv_row(run: RunView) -> dict[str, Any]:
    record, summary = run.record, run.summary
    sampler = record.sampler if record else None
    row: dict[str, Any] = {
        "run": text.csv_cell(cell(run)),
        "run_id": text.csv_cell(run.planned.run_id),
        "pair": text.csv_cell(run.planned.pair),
        "arm": text.csv_cell(run.planned.arm),
        "seed": run.planned.seed,
        "grid_rate": run.planned.grid_rate,
        "chosen_rate": run.planned.chosen_rate,
        "status": record.status.value if record else "not run",
        "attempts": len(record.attempts) if record else 0,
        "reason": text.csv_cell(record.reason or "" if record else ""),
        "metric": summary.metric if summary else "",
        "metric_unit": _unit(run),
        "untrained": summary.base_value if summary else None,
        "trained": summary.final_value if summary else None,
        "train_reward_last_fifth": summary.train_reward_last if summary else None,
        "steps": summary.steps if summary else None,
        "steps_excluded": summary.steps_excluded if summary else None,
        "step_s_median": summary.step_s_median if summary else None,
        "trained_tokens_per_s": summary.trained_tokens_per_s if summary else None,
        "generated_tokens_per_s": summary.generated_tokens_per_s if summary else None,
        "samples_per_s": summary.samples_per_s if summary else None,
        "model_flops_per_step": summary.model_flops_per_step if summary else None,
        "wall_s": summary.wall_s if summary else None,
        "gpu_energy_j": summary.energy_j if summary else None,
        "gpu_energy_source": summary.energy_source if summary else None,
        "gpu_energy_coverage_share": summary.energy_coverage if summary else None,
        "gpu_joules_per_trained_token": summary.joules_per_token if summary else None,
        "gpu_power_w_mean": summary.power_w_mean if summary else None,
        "gpu_utilization_percent_mean": summary.utilization_percent_mean if summary else None,
        "gpu_temperature_c_max": summary.temperature_c_max if summary else None,
        **_integrity(summary.integrity if summary else None),
        "measurement_grade": summary.grades[WHOLE_RUN].grade if summary and summary.grades else "",
        "sampler_achieved_hz": sampler.achieved_hz if sampler else None,
        "sampler_longest_gap_s": sampler.longest_gap_s if sampler else None,
    }
    for lens, peaks in (summary.peak_bytes if summary else {}).items():
        name = lens.replace("-", "_")
        row[f"peak_{name}_training_bytes"] = peaks.get("training")
        row[f"growth_{name}_training_bytes"] = summary.growth(lens) if summary else None
    row |= _graded(summary) if summary else {}
    return row


def _graded(summary: RunSummary) -> dict[str, Any]:
    """Give the other statistics in training, what was missed, and the grade, a lens each."""
    row: dict[str, Any] = {}
    for lens, by_phase in summary.memory_statistics.items():
        figures, name = by_phase.get(TRAINING), lens.replace("-", "_")
        if figures is not None and figures.mean_bytes is not None:
            row[f"p99_{name}_training_bytes"] = figures.p99_bytes
            row[f"mean_{name}_training_bytes"] = figures.mean_bytes
    for lens, missed in summary.missed.items():
        row[f"missed_{lens.replace('-', '_')}_training_bytes"] = missed.at_most_bytes
    return row


def _integrity(figures: RewardIntegrity | None) -> dict[str, Any]:
    """Give a run's shares over all its steps, and how its completions grew."""
    return {
        "unparseable_share": figures.unparseable.all_steps if figures else None,
        "unclosed_reasoning_share": figures.unclosed.all_steps if figures else None,
        "unscored_share": figures.unscored.all_steps if figures else None,
        "clipped_share": figures.clipped.all_steps if figures else None,
        "zero_variance_group_share": figures.zero_variance.all_steps if figures else None,
        "completion_length_last_fifth_tokens": figures.length_tokens if figures else None,
        "completion_length_drift_tokens": figures.length_drift_tokens if figures else None,
    }


def _place(run: RunView, known: list[dict[str, Any]]) -> int | None:
    """Return where a run's environment stands in the list; None if none was recorded."""
    environment = shareable(environment_of(run))
    return known.index(environment) if environment else None


def _unit(run: RunView) -> str:
    if run.summary is None:
        return ""
    return "nats per completion token" if run.summary.metric == "nll" else "reward"
