"""Seeds: closed forms of what is measured, what the words mean, and how often they are wrong."""

from __future__ import annotations

import random

import pytest
from scipy import stats as scipy_stats

from harness.compare.concluding import exit_code
from harness.compare.grouping import group
from harness.compare.limits import Limits
from harness.compare.statistics import (
    Terms,
    compare_seeds,
    difference_word,
    final_value,
    half_gain_step,
    mean_logged,
    tokens_per_s,
)
from harness.compare.verdict import compare_sides
from harness.grade import MeasurementGrade
from harness.stats import mean_interval
from tests.comparison_sides import MIB, PACKAGES, PLATFORM, make_run, make_side

TERMS = Terms(Limits(), cells=1, has_times=True)
SEEDS = (0, 1, 2, 3, 4)
GPU = {**PLATFORM, "gpus": [{"name": "A GPU"}]}
MARGIN = 0.02


def run_of(**update):
    return make_run("sft-plain", "full", "full", 0).model_copy(update=update)


def on_gpu(change=lambda run: run, **more):
    def there(run):
        return change(run.model_copy(update={"config": {**run.config, "device": "cuda"}}))

    return make_side(
        there, pairs=["sft-plain"], arms={"full": "full"}, seeds=SEEDS, platform=GPU, **more
    )


def shifted(by, spread, seed=1):
    """Move the final metric by a mean and a spread over seeds, and every step by a little."""
    rng = random.Random(seed)

    def change(run):
        last = run.evaluations[-1]
        moved = last.model_copy(update={"value": last.value + rng.gauss(by, spread)})
        series = {
            key: values
            if key in ("num_tokens", "learning_rate")
            else tuple(v * (1 + rng.gauss(0, 1e-4)) for v in values)
            for key, values in run.series.items()
        }
        return run.model_copy(
            update={"evaluations": (*run.evaluations[:-1], moved), "series": series}
        )

    return change


def test_the_final_value_is_that_of_the_test_rows_after_training():
    assert final_value(run_of()) == run_of().evaluations[-1].value
    assert final_value(run_of(evaluations=run_of().evaluations[:1])) is None


def test_the_mean_leaves_nulls_out():
    assert mean_logged(run_of(series={"loss": (1.0, None, 3.0)})) == 2.0
    assert mean_logged(run_of(series={})) is None


def test_half_of_the_gain_is_reached_half_way_along_a_line():
    line = tuple(10.0 - i for i in range(9))  # 10 down to 2: 6 is reached at step 5
    assert half_gain_step(run_of(series={"loss": line})) == 5.0
    assert half_gain_step(run_of(series={"loss": (1.0,) * 9})) is None


def test_tokens_a_second_leave_warm_up_out():
    run = run_of(tokens=(10, 900, 900), step_wall_s=(100.0, 1.0, 2.0))
    assert tokens_per_s(run, 1) == 600.0
    assert tokens_per_s(run, 3) is None


def test_the_words_of_a_difference():
    def word(values, margin=MARGIN):
        return difference_word(mean_interval(values), margin, 0.05)

    assert word([0.001, -0.001, 0.002]) == "same"
    assert word([0.10, 0.11, 0.09]) == "changed"
    assert word([0.10, -0.11, 0.02]) == "undecided"
    assert word([0.10, -0.11, 0.02], None) == "same"
    # The same in every seed: there is no spread that could hide anything.
    assert word([0.1, 0.1, 0.1]) == "changed"
    assert word([0.01, 0.01, 0.01]) == "same"


def test_the_p_value_is_students_and_shared_by_the_cells():
    values = [0.10, 0.13, 0.08, 0.14]
    p = scipy_stats.ttest_1samp(values, 0).pvalue
    estimate = mean_interval(values)
    assert difference_word(estimate, None, p * 1.001) == "changed"
    assert difference_word(estimate, None, p * 0.999) == "same"
    assert Terms(Limits(alpha=0.05), cells=10, has_times=True).alpha == pytest.approx(0.005)


def test_fewer_than_three_seeds_say_nothing():
    sides = [make_side(seeds=(0, 1)), make_side(seeds=(0, 1))]
    assert [compare_seeds(cell, MARGIN, TERMS) for cell in group(*sides)] == [[]] * 6


def test_equal_runs_differ_in_nothing():
    (cell,) = group(on_gpu(), on_gpu())
    assert [d for d in compare_seeds(cell, MARGIN, TERMS) if d.word != "same"] == []


def test_half_the_throughput_is_found_with_its_ratio():
    def slow(run):
        return run.model_copy(update={"step_wall_s": tuple(2 * s for s in run.step_wall_s)})

    noisy = [on_gpu(noise=random.Random(1)), on_gpu(slow, noise=random.Random(2))]
    (cell,) = group(*noisy)
    found = {d.what: d for d in compare_seeds(cell, MARGIN, TERMS)}
    assert found["tokens/s"].word == "changed"
    assert found["tokens/s"].candidate / found["tokens/s"].base == pytest.approx(0.5, rel=0.1)


def test_throughput_says_where_the_sides_did_not_take_turns():
    def text(base, candidate):
        def at(first, seed):
            return {"started_utc": f"2026-01-02T{first + 2 * seed:02d}:00:00Z"}

        sides = [
            on_gpu(lambda r, h=hour: r.model_copy(update=at(h, r.seed)))
            for hour in (base, candidate)
        ]
        (cell,) = group(*sides)
        found = compare_seeds(cell, MARGIN, TERMS)
        return next(d.sentence for d in found if d.what == "tokens/s")

    assert "in turn" not in text(1, 2)
    assert "and not in turn" in text(1, 12)
    assert "and not in turn" in text(12, 1)


def test_throughput_of_two_machines_is_refused_unless_asked():
    def slow(run):
        return run.model_copy(update={"step_wall_s": tuple(2 * s for s in run.step_wall_s)})

    base, candidate = on_gpu(), on_gpu(slow)
    other = candidate.model_copy(update={"platform": {**GPU, "cpu_model": "Another"}})
    told = compare_sides(base, other)
    assert not [d for c in told.cells for d in c.differences if d.what == "tokens/s"]
    assert any("throughput are not compared" in note for note in told.notes)
    asked = compare_sides(base, other, Limits(across_machines=True))
    assert [d for c in asked.cells for d in c.differences if d.what == "tokens/s"]


def test_memory_is_compared_by_lens_and_phase():
    def heavier(run):
        return run.model_copy(update={"peak_bytes": {"nvml-device": {"generate": 900 * MIB}}})

    def lighter(run):
        return run.model_copy(
            update={"peak_bytes": {"nvml-device": {"generate": 500 * MIB + run.seed}}}
        )

    (cell,) = group(on_gpu(lighter), on_gpu(heavier))
    found = {d.what: d.word for d in compare_seeds(cell, MARGIN, TERMS)}
    assert found["peak/nvml-device/generate"] == "changed"


def test_peaks_of_a_lens_that_cannot_be_trusted_are_not_compared():
    def heavier(grade):
        def change(run):
            peaks = {"nvml-device": {"generate": 900 * MIB}, "torch-reserved": {"train": 900 * MIB}}
            grades = {"nvml-device": MeasurementGrade(grade=grade)}
            return run.model_copy(update={"peak_bytes": peaks, "grades": grades})

        return change

    def lighter(run):
        peaks = {
            "nvml-device": {"generate": 500 * MIB + run.seed},
            "torch-reserved": {"train": 500 * MIB + run.seed},
        }
        return run.model_copy(update={"peak_bytes": peaks})

    def compared(grade):
        (cell,) = group(on_gpu(lighter), on_gpu(heavier(grade)))
        return {d.what for d in compare_seeds(cell, MARGIN, TERMS) if d.kind == "memory"}

    assert compared("C") == {"peak/nvml-device/generate", "peak/torch-reserved/train"}
    assert compared("D") == {"peak/torch-reserved/train"}


# On a GPU the seeds decide.


def test_on_a_gpu_steps_that_differ_a_little_and_seeds_that_agree_are_the_same():
    found = compare_sides(on_gpu(), on_gpu(shifted(0.0, 0.002), label="TRL 1.17.0"))
    assert found.word == "same"
    assert exit_code(found) == 0


def test_on_a_gpu_a_difference_over_seeds_is_suspected_and_left_undecided():
    found = compare_sides(on_gpu(), on_gpu(shifted(0.2, 0.01), label="TRL 1.17.0"))
    assert found.word == "undecided"
    assert found.suspected == ("sft-plain.full",)
    assert "--rerun" in found.sentence
    assert exit_code(found) == 6


def test_on_a_gpu_one_seed_decides_nothing():
    def one(side):
        return side.model_copy(update={"runs": side.runs[:1]})

    found = compare_sides(one(on_gpu()), one(on_gpu(shifted(0.0, 0.001))))
    assert found.word == "undecided"
    assert "trained on a GPU" in found.cells[0].sentence


@pytest.mark.slow
def test_where_runs_repeat_the_seeds_add_nothing_to_identical_steps():
    found = compare_sides(
        make_side(seeds=SEEDS), make_side(seeds=SEEDS, packages={**PACKAGES, "trl": "1.17.0"})
    )
    assert found.word == "same"


def test_luck_is_suspected_no_more_often_than_the_error_rate_says():
    """Differences of nothing over five seeds, without a margin that could call them equal."""
    rng = random.Random(7)
    tries = 400
    wrong = sum(
        difference_word(mean_interval([rng.gauss(0, 1) for _ in SEEDS]), None, 0.05) == "changed"
        for _ in range(tries)
    )
    assert scipy_stats.binomtest(wrong, tries, 0.05).pvalue > 0.01
