"""The forecast scorecard: hand-made numbers, one lens a device, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.forecast import Estimate, Forecast, Term
from harness.forecasts import ArmMemory, Forecasts
from harness.grade import MeasurementGrade
from harness.memory_figures import LensStatistics
from harness.record import PlannedRun
from harness.samples import DeviceSummary
from harness.scorecard import LensScore, Ran, Score, by_lens, measured_bytes, score, tally
from harness.scorecard_chart import drawn_scores, scorecard_spec
from harness.scorecard_tables import (
    compared,
    scorecard_runs_tables,
    scorecard_sentence,
    scorecard_tables,
    scores,
)
from tests.study_factory import Plan, build_study

MIB = 2**20
L40S, H100 = "NVIDIA L40S", "NVIDIA H100 80GB HBM3"


def estimate(lens: str, mib: float) -> Estimate:
    """A figure with an interval of a tenth either way."""
    at = round(mib * MIB)
    return Estimate(lens=lens, bytes=at, low_bytes=at * 9 // 10, high_bytes=at * 11 // 10)


def forecasts(
    pairs: dict[tuple[str, str], tuple[Estimate, ...]], device: str = "cpu", **libraries: str
) -> Forecasts:
    return Forecasts(
        made_utc="2026-01-02T03:04:05Z",
        harness_version="0.1.0",
        libraries=dict(libraries),
        arms=tuple(
            ArmMemory(
                pair=pair,
                arm=arm,
                device=device,
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


def row(measured: int, forecast: int, lens: str = "rss", grade: str | None = None) -> Score:
    return Score(
        run_id="x",
        cell="a.b.s0",
        pair="a",
        arm="b",
        device="cpu",
        lens=lens,
        grade=grade,
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
    found = score(kept, [ran(first)])
    assert [(r.cell, r.lens, r.forecast_bytes, r.measured_bytes) for r in found] == [
        (first.planned.cell, "rss", 80 * MIB, grown)
    ]


def ran(run) -> Ran:
    return Ran(run.planned, run.record, run.summary, run.environment)


def on_a_gpu(run, name: str = H100, gib: int = 80, idle_mib: int = 0, *, is_told: bool = True):
    """A run as its worker and sampler leave it on a GPU; a full one ends before its result has a device."""
    uuid = f"GPU-{name}"
    device = DeviceSummary(uuid=uuid, idle_bytes=idle_mib * MIB)
    sampler = run.record.sampler.model_copy(update={"gpus": (uuid,), "devices": (device,)})
    result = run.record.result.model_copy(update={"device": uuid if is_told else None})
    record = run.record.model_copy(update={"sampler": sampler, "result": result})
    gpus = [{"uuid": uuid, "name": name, "total_bytes": gib << 30}]
    return replace(run, record=record, environment={"gpus": gpus})


def test_on_a_gpu_what_is_held_above_idle_is_compared_with_the_forecast_of_the_device():
    study = build_study(Plan(has_gpu=True))
    first = on_a_gpu(study.runs[0])
    peak = first.summary.peak_bytes["nvml-device"]["training"]
    idle = first.summary.baseline_bytes["nvml-device"]
    assert idle > 0
    lenses = (estimate("nvml-device", 9000), estimate("torch-reserved", 8000))
    kept = forecasts({("sft-micro", "full"): lenses}, H100)
    found = score(kept, [ran(first)])
    assert [(r.lens, r.measured_bytes) for r in found] == [("nvml-above-idle", peak - idle)]


def test_of_several_gpus_the_one_with_most_is_compared():
    summary = build_study(Plan(has_gpu=True)).runs[0].summary
    several = summary.model_copy(
        update={
            "device_statistics": {
                uuid: {"nvml-above-idle": {"training": LensStatistics(peak_bytes=peak)}}
                for uuid, peak in (("GPU-0", 5), ("GPU-1", 7))
            }
        }
    )
    assert measured_bytes(several, "nvml-above-idle") == 7


def test_a_run_is_held_against_the_forecast_for_the_gpu_that_it_ran_on():
    first, second, third = build_study(Plan(has_gpu=True)).runs[:3]
    small, large = on_a_gpu(first, L40S, 45), on_a_gpu(second, H100, 80)
    other = on_a_gpu(third, "NVIDIA A10G", 22)
    each = [forecasts({("sft-micro", "full"): (estimate("nvml-device", mib),)}, device)
            for device, mib in ((H100, 24000), (L40S, 15000))]  # fmt: skip
    arms = tuple(arm for kept in each for arm in kept.arms)
    kept = each[0].model_copy(update={"arms": arms})
    runs = [ran(replace(run, planned=first.planned)) for run in (small, large, other)]
    assert [(r.device, r.forecast_bytes) for r in score(kept, runs)] == [
        (L40S, 15000 * MIB),
        (H100, 24000 * MIB),
    ]
    assert tally(kept, runs).left_out == {"without a forecast": 1}


def test_runs_that_failed_or_were_not_forecast_have_no_row():
    study = build_study(Plan(failures={"sft-micro.full.s1": "crashed"}))
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),), ("grpo-micro", "full"): ()})
    found = score(kept, map(ran, study.runs))
    assert [r.cell for r in found] == ["sft-micro.full.s0", "sft-micro.full.s2"]
    assert score(None, map(ran, study.runs)) == []


def test_every_planned_run_is_compared_or_left_out_with_its_reason():
    study = build_study(
        Plan(arms=1, failures={"sft-micro.full.s1": "crashed", "grpo-micro.full.s0": "missing"})
    )
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),)})
    counted = compared(with_forecasts(study, kept))
    assert (counted.runs, counted.compared) == (6, 2)
    assert counted.left_out == {"ended crashed": 1, "not run": 1, "without a forecast": 2}
    said = scorecard_sentence(with_forecasts(study, kept))
    assert said.startswith("Compared: 2 of 6 runs (left out: 1 ended crashed;")


def test_what_was_measured_with_grade_d_keeps_its_row_and_is_in_no_sum():
    rows = [row(1000, 1000), row(1000, 3000, grade="D"), row(1000, 1100, grade="C")]
    (rss,) = by_lens(rows)
    assert (rss.runs, rss.inside) == (2, 2)
    assert rss.largest_error == pytest.approx(0.1)
    assert drawn_scores(rows) == [rows[0], rows[2]]
    study = build_study(Plan(arms=1, seeds=(0,)))
    first, second = study.runs
    graded = {"rss": MeasurementGrade(grade="D", reasons=("two samples",))}
    first = replace(first, summary=first.summary.model_copy(update={"grades": graded}))
    kept = forecasts({("sft-micro", "full"): (estimate("rss", 80),)})
    view = with_forecasts(replace(study, runs=(first, second)), kept)
    assert compared(view).left_out == {"of grade D": 1, "without a forecast": 1}
    assert scorecard_tables(view) == ()
    ((shown,),) = [table.rows for table in scorecard_runs_tables(view)]
    assert shown[-3] == "D"
    assert shown[-1] == "not judged"


@pytest.mark.parametrize(
    ("gib", "idle_mib", "fits"),
    [(80, 0, "yes"), (66, 0, "yes"), (66, 100, "perhaps"), (54, 0, "perhaps"), (53, 0, "no")],
)
def test_of_a_full_gpu_it_is_said_whether_the_run_was_forecast_to_fit_what_was_free(
    gib, idle_mib, fits
):
    study = build_study(Plan(arms=1, seeds=(0,), failures={"sft-micro.full.s0": "oom-gpu"}))
    run = on_a_gpu(study.runs[0], H100, gib, idle_mib, is_told=False)
    kept = forecasts({("sft-micro", "full"): (estimate("nvml-device", 60 * 1024),)}, H100)
    (full,) = tally(kept, [ran(run)]).full
    assert (full.device, full.fits) == (H100, fits)


def test_a_full_gpu_is_a_miss_also_where_torch_was_to_give_its_cache_back():
    study = build_study(Plan(arms=1, seeds=(0,), failures={"sft-micro.full.s0": "oom-gpu"}))
    run = on_a_gpu(study.runs[0], H100, 50, is_told=False)
    kept = forecasts({("sft-micro", "full"): (estimate("nvml-device", 60 * 1024),)}, H100)
    (arm,) = kept.arms
    made = arm.forecast.model_copy(update={"needs": estimate("card", 40 * 1024)})
    kept = kept.model_copy(update={"arms": (arm.model_copy(update={"forecast": made}),)})
    (full,) = tally(kept, [ran(run)]).full
    assert full.fits == "yes"


def test_the_worst_miss_is_named_with_its_gpu():
    failures = {f"sft-micro.full.s{seed}": "oom-gpu" for seed in (0, 1, 2)}
    study = build_study(Plan(arms=1, failures=failures))
    sizes = iter(((H100, 80), (L40S, 45), ("NVIDIA A10G", 22)))
    runs = tuple(
        on_a_gpu(run, *next(sizes), is_told=False) if run.planned.pair == "sft-micro" else run
        for run in study.runs
    )
    each = [
        forecasts({("sft-micro", "full"): (estimate("nvml-device", 60 * 1024),)}, device)
        for device in (H100, L40S)
    ]
    kept = each[0].model_copy(update={"arms": tuple(a for k in each for a in k.arms)})
    view = with_forecasts(replace(study, runs=runs), kept)
    said = scorecard_sentence(view)
    assert "Compared: 0 of 6 runs (left out: 3 ended oom-gpu; 3 without a forecast)." in said
    assert (
        f"Of 3 runs that ended oom-gpu, forecast were: 1 to fit (sft-micro.full.s0 on {H100}), "
        "1 not to fit, 1 not at all."
    ) in said
    (table,) = scorecard_tables(view)
    assert [r[-1] for r in table.rows] == ["yes", "no", "not forecast"]


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


def test_of_several_arms_without_a_forecast_the_reason_of_the_first_is_said_to_be_its():
    none = {("sft-micro", "full"): (), ("sft-micro", "lora-r32"): ()}
    said = scorecard_sentence(with_forecasts(build_study(), forecasts(none)))
    assert "Not forecast: 2 arms (the first, sft-micro.full: its shape is not in" in said


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
    above = "nvml-above-idle"
    rows = [row(10, 10, "torch-reserved"), row(11, 10, above), row(12, 10, above)]
    drawn = drawn_scores(rows)
    assert [r.measured_bytes for r in drawn] == [11, 12]
    assert drawn_scores(rows[:2]) == []
    spec = scorecard_spec(drawn, has_hover=True)
    shown = [v["where"] for values in spec["datasets"].values() for v in values if "where" in v]
    assert shown == ["inside its interval", "outside"]


def test_a_run_that_never_began_has_no_row():
    planned = PlannedRun(run_id="x", pair="a", arm="b", seed=0)
    assert (
        score(forecasts({("a", "b"): (estimate("rss", 1),)}), [Ran(planned, None, None, {})]) == []
    )
