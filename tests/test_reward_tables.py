"""Reward integrity in the report: the table, the data, the sentence beside a finding."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.export import data_json
from harness.findings import findings_rows
from harness.integrity import reward_integrity
from harness.record import UNPARSEABLE_SHARE, StepRow
from harness.report import render_report
from harness.reward_tables import integrity_data, integrity_tables
from harness.terminal import print_findings
from tests.study_factory import build_study

UTC = "2026-01-02T04:00:00Z"


def step(number, **logs):
    return StepRow(step=number, begin_ns=0, end_ns=1, tokens=1, samples=1, logs=logs)


def study_of(arm_logs):
    """A study whose grpo arms logged these values at each of ten steps."""
    view = build_study()
    runs = []
    for run in view.runs:
        logs = arm_logs.get(run.planned.arm) if run.planned.pair == "grpo-micro" else None
        if logs and run.summary:
            rows = [step(i, **logs) for i in range(1, 11)]
            changed = {"integrity": reward_integrity(rows)}
            run = dataclasses.replace(run, summary=run.summary.model_copy(update=changed))
        runs.append(run)
    return dataclasses.replace(view, runs=tuple(runs))


@pytest.fixture(scope="module")
def study():
    return study_of(
        {
            "full": {UNPARSEABLE_SHARE: 0.25, "frac_reward_zero_std": 0.5},
            "lora-r1": {UNPARSEABLE_SHARE: 0.75, "completions/mean_length": 40.0},
        }
    )


def test_the_table_has_a_row_for_every_arm_with_a_reward(study):
    (table,) = integrity_tables(study)
    assert [row[:3] for row in table.rows] == [
        ("grpo-micro", "full", "3"),
        ("grpo-micro", "lora-r1", "3"),
    ]
    full, lora = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert full["No answer read"] == "25%, 25%"
    assert full["Groups without variance"] == "50%, 50%"
    assert full["Cut at the limit"] == "not measured"
    assert lora["Tokens per completion (last fifth)"] == "40.0"
    assert lora["Drift, last fifth less first"] == "0.0 (0%)"


def test_an_older_study_was_not_measured():
    (table,) = integrity_tables(build_study())
    assert all(set(row[3:]) == {"not measured"} for row in table.rows)
    assert all(row.cautions == () for row in findings_rows(build_study()))


def test_a_study_without_a_reward_has_no_table():
    view = build_study()
    sft = {"sft-micro": view.matrix.pairs["sft-micro"]}
    alone = dataclasses.replace(
        view,
        matrix=view.matrix.model_copy(update={"pairs": sft}),
        runs=tuple(r for r in view.runs if r.planned.pair == "sft-micro"),
    )
    assert integrity_tables(alone) == ()
    assert integrity_data(alone) == []


@pytest.mark.slow
def test_a_reward_that_could_hardly_teach_is_said_beside_the_finding(study):
    by_pair = {row.pair: row.cautions for row in findings_rows(study)}
    assert by_pair["sft-micro"] == ()
    (caution,) = by_pair["grpo-micro"]
    assert caution.startswith("lora-r1: no answer could be read in 75% of the completions")
    files = render_report(study, generated_utc=UTC)
    for name in ("index.html", "report.md"):
        assert "so the reward could hardly teach anything" in files[name].decode()
    data = json.loads(data_json(study, {}, UTC))
    assert [f["cautions"] for f in data["findings"] if f["pair"] == "grpo-micro"] == [[caution]]
    rows = {row["arm"]: row["reward_integrity"] for row in data["reward_integrity"]}
    assert rows["full"]["unparseable"] == {"all_steps": 0.25, "last_fifth": 0.25}
    assert rows["lora-r1"]["clipped"] == {"all_steps": None, "last_fifth": None}
    assert "lora-r1.s0" in files["runs.csv"].decode()


def test_the_terminal_says_it_too(study, capsys):
    print_findings(study)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "hardly teach" in line]
    assert line.startswith("grpo-micro, lora-r1: no answer could be read in 75%")
