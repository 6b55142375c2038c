"""Where a study came from: resolved arguments, environments, and what a reader must know of both."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from harness.findings import banners
from harness.provenance import (
    arguments_tables,
    commands,
    environment_table,
    environments,
    shareable,
)
from harness.record import Container
from harness.report import render_report
from harness.report_tables import arms_table, figures_table, pairs_table
from tests.study_factory import HOSTILE, Plan, build_study

UTC = "2026-01-02T04:00:00Z"
GPU_COLUMNS = (
    "GPU energy",
    "Energy per token",
    "GPU power (mean)",
    "GPU use (mean)",
    "GPU temperature (highest)",
)


def rendered(study):
    return {name: body.decode() for name, body in render_report(study, generated_utc=UTC).items()}


def with_environments(study, *found):
    """Give the runs these environments in turn."""
    runs = (replace(r, environment=found[i % len(found)]) for i, r in enumerate(study.runs))
    return replace(study, runs=tuple(runs))


def with_argument(study, arm, **changed):
    """Change resolved trainer arguments of one arm."""
    runs = []
    for run in study.runs:
        config = run.resolved_config
        if run.planned.arm == arm:
            config = {**config, "arguments": {**config["arguments"], **changed}}
        runs.append(replace(run, resolved_config=config))
    return replace(study, runs=tuple(runs))


def test_a_matrix_that_no_command_knows_by_its_name_is_not_advised():
    study = build_study()
    assert [what for what, _ in commands(study)] == ["As this study was made", "One run"]
    made = "python -m tests.nvml.replayed"
    own = study.study.model_copy(update={"command": made, "matrix_name": "mine"})
    assert commands(replace(study, study=own)) == [("As this study was made", made)]
    shipped = own.model_copy(update={"matrix_name": "cpu"})
    assert len(commands(replace(study, study=shipped))) == 3


def test_arguments_that_differ_between_arms_stand_apart_from_those_that_agree():
    differing, equal, adapters = arguments_tables(build_study(), "sft-micro")
    assert differing.columns == ("Argument", "full", "lora-r32", "In the matrix")
    assert differing.rows == (("learning_rate", "0.0001", "0.001", "declared"),)
    assert not differing.is_long
    assert ("max_steps", "60") in equal.rows
    assert ("trainer", "SFTTrainer") in equal.rows
    assert "learning_rate" not in dict(equal.rows)
    assert equal.is_long
    assert adapters.columns == ("Setting", "lora-r32")
    assert ("default.r", "32") in adapters.rows


def test_an_undeclared_difference_is_marked_and_shown_in_full():
    study = with_argument(build_study(), "lora-r32", weight_decay=0.1 + 0.2, added=True)
    study = with_argument(study, "full", weight_decay=0.3)
    differing, *_ = arguments_tables(study, "sft-micro")
    rows = {row[0]: row[1:] for row in differing.rows}
    assert rows["weight_decay"] == ("0.3", "0.30000000000000004", "not declared")
    assert rows["added"] == ("\u2013", "True", "not declared")


def test_a_pair_without_a_run_has_no_arguments():
    bare = replace(build_study(), runs=())
    assert [table.rows for table in arguments_tables(bare, "sft-micro")] == [(), ()]


def test_the_rate_that_was_resolved_wins_over_the_one_that_was_asked_for():
    study = with_argument(build_study(), "lora-r32", learning_rate=7e-4)
    rates = {(row[0], row[1]): row[3] for row in arms_table(study).rows}
    assert rates["sft-micro", "lora-r32"] == "0.0007"
    assert rates["sft-micro", "full"] == "0.0001"


@pytest.mark.slow
def test_arguments_are_in_page_and_markdown():
    files = rendered(build_study())
    for name in ("index.html", "report.md"):
        assert "where arms differ" in files[name]
        assert "max_steps" in files[name] or "max\\_steps" in files[name]


@pytest.mark.slow
def test_runs_that_share_an_environment_show_it_once():
    study = build_study()
    assert len(environments(study)) == 1
    assert environment_table(study).caption.endswith("one, shared by 12 runs")
    data = json.loads(rendered(study)["data.json"])
    assert len(data["environments"]) == 1
    assert {run["environment_index"] for run in data["runs"]} == {0}


@pytest.mark.slow
def test_the_image_of_runs_in_containers_is_told_and_their_names_are_not():
    image_id = "sha256:" + "a" * 64
    container = Container(
        name="harness-of-one-run",
        engine="docker 20.10.24",
        image="lora-harness:cpu",
        image_id=image_id,
        user="4242:4242",
        memory_limit_bytes=2**31,
    )
    study = build_study()
    runs = []
    for run in study.runs:
        attempt = run.record.attempts[-1].model_copy(update={"container": container})
        record = run.record.model_copy(update={"attempts": (attempt,)})
        runs.append(replace(run, record=record))
    study = replace(study, runs=tuple(runs))
    rows = dict(environment_table(study).rows)
    assert rows["container.image_id"] == image_id
    assert rows["container.memory_limit_bytes"] == "2.00 GiB"
    files = rendered(study)
    assert json.loads(files["data.json"])["environments"][0]["container"]["image_id"] == image_id
    assert not any("harness-of-one-run" in body or "4242:4242" in body for body in files.values())
    assert {r["environment_index"] for r in json.loads(files["data.json"])["runs"]} == {0}


@pytest.mark.slow
def test_gpu_processes_of_earlier_records_are_neither_told_apart_nor_published():
    busy = [
        {"format": 1, "gpus": [{"name": "H100", "processes": [{"pid": 424242 + n}]}]}
        for n in range(2)
    ]
    study = with_environments(build_study(), *busy)
    assert environments(study) == [{"format": 1, "gpus": [{"name": "H100"}]}]
    assert not any("424242" in body for body in rendered(study).values())


def test_how_many_processes_a_run_had_is_published():
    told = {"runs": [{"result": {"distributed": {"processes": 2}}}], "gpus": [{"processes": [1]}]}
    assert shareable(told) == {
        "runs": [{"result": {"distributed": {"processes": 2}}}],
        "gpus": [{}],
    }


@pytest.mark.slow
def test_environments_that_differ_are_counted_and_a_run_without_one_points_nowhere():
    study = build_study(Plan(failures={"sft-micro.full.s0": "missing"}))
    torn = replace(study.runs[0], environment={})
    study = with_environments(study, {"python": "3.11"}, {"python": "3.12"})
    study = replace(study, runs=(torn, *study.runs[1:]))
    assert environment_table(study).caption.endswith("2 different ones in 11 runs")
    runs = json.loads(rendered(study)["data.json"])["runs"]
    assert [run["environment_index"] for run in runs[:3]] == [None, 0, 1]


@pytest.mark.slow
def test_margins_changed_after_the_first_run_are_called_post_hoc_everywhere():
    plain, changed = rendered(build_study()), rendered(replace(build_study(), post_hoc=True))
    for name in ("index.html", "report.md", "brief.md", "data.json"):
        assert "Margins were changed after the first run: post hoc." not in plain[name]
        assert "Margins were changed after the first run: post hoc." in changed[name]
    assert "fixed before the first run" in plain["index.html"]
    for name in ("index.html", "report.md"):
        assert "fixed before the first run" not in changed[name]
    assert (
        "Margin, changed after the first run"
        in pairs_table(replace(build_study(), post_hoc=True)).columns
    )
    assert json.loads(changed["data.json"])["study"]["is_post_hoc"]


@pytest.mark.slow
def test_arms_that_differ_undeclared_raise_a_banner_and_are_inconclusive():
    said = "arms 'lora-r32' and 'full' of pair 'sft-micro' differ in beta: 0 against 1"
    study = replace(
        build_study(), undeclared=(said, HOSTILE), undeclared_pairs=frozenset({"sft-micro"})
    )
    (problem,) = [b for b in banners(study) if b.kind == "problem"]
    assert problem.text.startswith(f"Arms differ in undeclared arguments: {said}.")
    assert [f.word for f in study.findings] == ["inconclusive", "supported"]
    files = rendered(study)
    assert "undeclared arguments" in files["brief.md"]
    assert "<script>alert" not in files["index.html"]


def test_many_undeclared_differences_leave_the_brief_brief():
    study = replace(build_study(), undeclared=tuple(f"arms differ in x{i}" for i in range(9)))
    (problem,) = [b for b in banners(study) if b.kind == "problem"]
    assert "x2" in problem.text
    assert "x3" not in problem.text
    assert problem.text.endswith("And 6 differences more.")


@pytest.mark.slow
def test_lost_runs_of_either_arm_are_listed_without_blaming_the_other():
    study = build_study(Plan(failures={"sft-micro.full.s0": "nan"}))
    said = "Without a result, so not in the comparison of sft-micro, lora-r32 against full"
    files = rendered(study)
    for name in ("index.html", "report.md"):
        assert said in files[name]
        assert "Counts against" not in files[name]
        assert "did not finish" not in files[name]


@pytest.mark.slow
@pytest.mark.parametrize("has_gpu", [True, False])
def test_power_and_energy_are_shown_only_where_a_gpu_was_read(has_gpu):
    study = build_study(Plan(has_gpu=has_gpu))
    table = figures_table(study)
    assert (table.columns[-5:] == GPU_COLUMNS) == has_gpu
    assert all(len(row) == len(table.columns) for row in table.rows)
    if has_gpu:
        assert table.rows[0][-3:] == ("250 W", "80%", "61 \u00b0C")
        assert table.rows[0][-5].endswith("kJ")
        assert table.rows[0][-4].endswith(" J")
    files = rendered(study)
    row = next(csv.DictReader(io.StringIO(files["runs.csv"])))
    assert row["gpu_power_w_mean"] == ("250.0" if has_gpu else "")
    summary = json.loads(files["data.json"])["runs"][0]["summary"]
    assert (summary["energy_j"] is not None) == has_gpu
    assert summary["temperature_c_max"] == (61.0 if has_gpu else None)


@pytest.mark.parametrize(
    ("scale", "source", "said"),
    [
        ("small", "smollm2", "135M"),
        ("full", "org/model", ""),
        ("full", "embedded:micro-llama", "says nothing about 8B models"),
        ("small", "embedded:micro-llama", "says nothing about 8B models"),
    ],
)
def test_the_banner_follows_the_scale_and_the_models_over_it(scale, source, said):
    study = build_study(Plan(scale=scale, source=source))
    found = [b.text for b in banners(study) if b.kind == "scale"]
    assert len(found) == bool(said)
    assert all(said in b for b in found)
