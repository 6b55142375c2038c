"""The forecast scorecard: hand-made numbers, one lens a device, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.forecast import Estimate, Forecast, Term
from harness.forecasts import ArmMemory, Forecasts
from harness.record import PlannedRun
from harness.scorecard import LensScore, Score, by_lens, measured_bytes, score
from harness.scorecard_chart import drawn_scores, scorecard_spec
from harness.scorecard_tables import (
    scorecard_runs_tables,
    scorecard_sentence,
    scorecard_tables,
    scores,
)
from tests.study_factory import Plan, build_study

MIB = 2**20


def estimate(lens: str, mib: float) -> Estimate:
    """A figure with an interval of a tenth either way."""
    at = round(mib * MIB)
    return Estimate(lens=lens, bytes=at, low_bytes=at * 9 // 10, high_bytes=at * 11 // 10)


def forecasts(pairs: dict[tuple[str, str], tuple[Estimate, ...]], **libraries: str) -> Forecasts:
    return Forecasts(
        made_utc="2026-01-02T03:04:05Z",
        harness_version="0.1.0",
        libraries=dict(libraries),
        arms=tuple(
            ArmMemory(
                pair=pair,
                arm=arm,
                device="cpu",
                forecast=Forecast(
                    source="traced", terms=(Term(name="weights", bytes=1, note=""),), lenses=lenses
                )
                if lenses
                else None,
                why=None if lenses else "its shape is not in the catalog",
            )
            for (pair, arm), lenses in pairs.items()
        ),
    )


def row(measured: int, forecast: int, lens: str = "rss", cell: str = "a.b.s0") -> Score:
    return Score(
        run_id="x",
        cell=cell,
        pair="a",
        arm="b",
        lens=lens,
        source="traced",
        forecast_bytes=forecast,
        low_bytes=forecast * 9 // 10,
        high_bytes=forecast * 11 // 10,
        measured_bytes=measured,
    )


def test_runs_inside_their_interval_are_counted_and_errors_keep_their_sign():
    rows = [
        row(1000, 1000),
        row(1000, 1050),
        row(1000, 800),
        row(2000, 1000, lens="torch-reserved"),
    ]
    assert [r.is_inside for r in rows] == [True, True, False, False]
    reserved, rss = by_lens(rows)
    assert reserved == LensScore(
        lens="torch-reserved", runs=1, inside=0, median_error=0.5, largest_error=-0.5
    )
    assert (rss.lens, rss.runs, rss.inside) == ("rss", 3, 2)
    assert rss.median_error == pytest.approx(0.05)
    assert rss.largest_error == pytest.approx(-0.2)


def test_the_ends_of_an_interval_are_inside():
    assert row(900, 1000).is_inside
    assert row(1100, 1000).is_inside
    assert not row(899, 1000).is_inside
    assert not row(1101, 1000).is_inside


def test_on_a_cpu_growth_of_rss_in_training_is_compared():
    study = build_study()
    first = study.runs[0]
    grown = first.summary.growth("rss")
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),)})
    found = score(kept, [(first.planned, first.record, first.summary)])
    assert [(r.cell, r.lens, r.forecast_bytes, r.measured_bytes) for r in found] == [
        (first.planned.cell, "rss", 80 * MIB, grown)
    ]


def test_on_a_gpu_every_lens_that_was_read_is_compared():
    study = build_study(Plan(has_gpu=True))
    first = study.runs[0]
    peak = first.summary.peak_bytes["nvml-device"]["training"]
    lenses = (estimate("nvml-device", 9000), estimate("torch-reserved", 8000))
    kept = forecasts({("sft-micro", "full"): lenses})
    found = score(kept, [(first.planned, first.record, first.summary)])
    assert [(r.lens, r.measured_bytes) for r in found] == [("nvml-device", peak)]


def test_of_several_gpus_the_one_with_most_is_compared():
    summary = build_study(Plan(has_gpu=True)).runs[0].summary
    several = summary.model_copy(update={"peak_bytes_by_device": {"GPU-0": 5, "GPU-1": 7}})
    assert measured_bytes(several, "nvml-device") == 7


def test_runs_that_failed_or_were_not_forecast_have_no_row():
    study = build_study(Plan(failures={"sft-micro.full.s1": "crashed"}))
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),), ("grpo-micro", "full"): ()})
    found = score(kept, ((r.planned, r.record, r.summary) for r in study.runs))
    assert [r.cell for r in found] == ["sft-micro.full.s0", "sft-micro.full.s2"]
    assert score(None, ((r.planned, r.record, r.summary) for r in study.runs)) == []


def with_forecasts(study, kept):
    return replace(study, forecasts=kept)


def test_a_study_without_a_forecast_says_so():
    study = build_study()
    assert "No forecast of memory was kept" in scorecard_sentence(study)
    assert scorecard_tables(study) == ()
    assert scorecard_runs_tables(study) == ()


def test_a_report_names_the_arms_that_have_no_forecast_and_other_releases():
    kept = forecasts(
        {("sft-micro", "full"): (estimate("rss", 80),), ("sft-micro", "lora-r32"): ()},
        trl="1.15.0",
        torch="2.13.0",
    )
    study = build_study()
    trained = {"packages": {"trl": "1.16.0", "torch": "2.13.0+cpu"}}
    runs = tuple(replace(run, environment=trained) for run in study.runs)
    said = scorecard_sentence(with_forecasts(replace(study, runs=runs), kept))
    assert "Not forecast: 1 arm (sft-micro.lora-r32: its shape is not in the catalog)." in said
    assert "Traced with trl 1.15.0 (trained with 1.16.0)." in said
    assert "torch" not in said.replace("trl", "")


def test_tables_have_a_row_a_lens_and_a_row_a_run():
    study = with_forecasts(
        build_study(), forecasts({("sft-micro", "full"): (estimate("rss", 80),)})
    )
    (lenses,), (runs,) = scorecard_tables(study), scorecard_runs_tables(study)
    assert len(lenses.rows) == 1
    assert [r[0] for r in runs.rows] == [f"sft-micro.full.s{seed}" for seed in (0, 1, 2)]
    for shown, own in zip(runs.rows, scores(study), strict=True):
        assert shown[-1] == ("yes" if own.is_inside else "no")


def test_the_figure_is_of_the_lens_that_memory_is_judged_by_and_shows_every_run():
    rows = [row(10, 10, "torch-reserved"), row(11, 10, "nvml-device"), row(12, 10, "nvml-device")]
    drawn = drawn_scores(rows)
    assert [r.measured_bytes for r in drawn] == [11, 12]
    assert drawn_scores(rows[:2]) == []
    spec = scorecard_spec(drawn, has_hover=True)
    shown = [v["where"] for values in spec["datasets"].values() for v in values if "where" in v]
    assert shown == ["inside its interval", "outside"]


def test_a_run_that_never_began_has_no_row():
    planned = PlannedRun(run_id="x", pair="a", arm="b", seed=0)
    assert score(forecasts({("a", "b"): (estimate("rss", 1),)}), [(planned, None, None)]) == []
