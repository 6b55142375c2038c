"""Memory by ratio over seeds, and compute by count."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats as scipy_stats

from harness.claim_checks import RATIO
from harness.claim_spec import ComputeClaim, MemoryClaim
from harness.compute import ComputeRatio
from harness.grade import MeasurementGrade
from tests.claim_evidence import FULL, claim, matrix_of, study, verdict

MODEL = "meta-llama/Llama-3.2-1B"
MEMORY = claim(MemoryClaim, RATIO, comparisons=("p.r4",), at_most=1.0)
COMPUTE = claim(ComputeClaim, RATIO, models=(MODEL,), ranks=(1, 256), margin=0.02)
OURS = (1.00, 1.01, 0.99)


def memory(full, r4, ours=OURS, theirs=FULL, **changes):
    asked = MEMORY.model_copy(update=changes)
    toy = matrix_of({"c": asked})
    return verdict(study(toy, {"full": theirs, "r4": ours}, {"full": full, "r4": r4}))


def test_a_ratio_wholly_below_one_is_supported_and_tested_in_logs():
    got = memory([200, 201, 199], [100, 102, 99])
    logs = [math.log(a / b) for a, b in ((100, 200), (102, 201), (99, 199))]
    assert got.word == "supported"
    assert got.p_supported == pytest.approx(
        scipy_stats.ttest_1samp(logs, 0.0, alternative="less").pvalue
    )
    assert got.effect.value == pytest.approx(math.exp(sum(logs) / 3))
    assert memory([100, 102, 99], [200, 201, 199]).word == "refuted"
    assert memory([100, 102, 99], [99, 103, 98]).word == "inconclusive"


def test_the_bound_of_the_claim_counts():
    assert memory([200, 201, 199], [100, 102, 99], at_most=0.4).word == "refuted"
    assert memory([200, 201, 199], [100, 102, 99], at_most=0.5).word == "inconclusive"


@pytest.mark.parametrize("huge", [1, 2**62])
def test_ratios_of_any_size_are_judged(huge):
    small = [max(1, huge // 2**40 + i) for i in range(3)]
    assert memory([huge, huge, huge], small).word in ("supported", "refuted", "inconclusive")


def test_memory_that_is_the_same_to_the_byte_in_every_seed_is_no_luck():
    """Shapes decide what an allocator takes: equal peaks are expected, equal run times are not."""
    got = memory([200] * 3, [100] * 3)
    assert (got.word, got.p_adjusted) == ("supported", 0.0)
    assert memory([100] * 3, [200] * 3).word == "refuted"
    assert memory([100] * 3, [100] * 3).word == "inconclusive"


def test_runs_that_are_copies_support_nothing():
    toy = matrix_of({"c": MEMORY})
    evidence = study(toy, {"full": FULL, "r4": OURS}, {"full": [200] * 3, "r4": [100] * 3})
    one = {("p", arm): evidence.cells["p", arm, 0] for arm in ("full", "r4")}
    copies = {cell: one[cell[:2]] for cell in evidence.cells}
    assert verdict(study(toy, {})).word == "not tested"
    assert verdict(type(evidence)(matrix=toy, cells=copies)).word == "inconclusive"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_decide_nothing(seeds):
    few = (slice(None, seeds),)
    got = memory([200, 201][few[0]], [100, 102][few[0]], OURS[few[0]], FULL[few[0]])
    assert got.word == "inconclusive"
    assert memory([200, 201, 199], [100, 102, 99], minimum_seeds=5).word == "inconclusive"


@pytest.mark.parametrize("status", ["oom-gpu", "nan", "crashed", None])
def test_a_lost_run_withholds_support_and_a_lost_baseline_a_refutation(status):
    more = {"ours": (*OURS, status), "theirs": (*FULL, 1.0)}
    less = {"ours": (*OURS, 1.0), "theirs": (*FULL, status)}
    low, high = [100, 102, 99, 100], [200, 201, 199, 200]
    assert memory(high, low, **more).word == "inconclusive"
    assert memory(high, low, **less).word == "inconclusive"
    assert memory(low, high, **less).word == "inconclusive"
    assert memory(low, high, **more).word == "refuted"


def test_an_arm_that_runs_out_of_memory_where_the_baseline_fits_is_refuted():
    assert memory([200, 201, 199], [0, 0, 0], ours=["oom-gpu"] * 3).word == "refuted"
    assert memory([200, 201, 199], [0, 0, 0], ours=["nan"] * 3).word == "not tested"
    assert memory([0, 0, 0], [100] * 3, theirs=["oom-gpu"] * 3).word == "not tested"
    assert memory([0, 0, 0], [0] * 3, ["oom-gpu"] * 3, ["oom-gpu"] * 3).word == "not tested"


def test_without_a_reading_in_training_nothing_is_tested():
    assert memory([None] * 3, [None] * 3).word == "not tested"
    assert memory([0] * 3, [0] * 3).word == "not tested"
    toy = matrix_of({"c": MEMORY})
    evidence = study(toy, {"full": FULL, "r4": OURS}, {"full": [200] * 3, "r4": [100] * 3})
    loading = {
        cell: (
            status,
            run.model_copy(
                update={"peak_bytes": {"nvml-device": {"load": run.peak_bytes["nvml-device"]["training"]}}}
            ),
        )
        for cell, (status, run) in evidence.cells.items()
    }  # fmt: skip
    got = verdict(type(evidence)(matrix=toy, cells=loading))
    assert got.word == "not tested"
    assert [part.decides for part in got.parts] == [True, False]


def test_the_first_lens_that_every_run_has_decides_and_the_others_stand_beside_it():
    toy = matrix_of({"c": MEMORY})
    evidence = study(
        toy, {"full": FULL, "r4": OURS}, {"full": [200, 201, 199], "r4": [100, 102, 99]}
    )
    both = {
        cell: (
            status,
            run.model_copy(
                update={
                    "peak_bytes": {
                        **run.peak_bytes,
                        "torch-reserved": {"training": 1000 - run.peak_bytes["nvml-device"]["training"]},
                    }
                }
            ),
        )
        for cell, (status, run) in evidence.cells.items()
    }  # fmt: skip
    got = verdict(type(evidence)(matrix=toy, cells=both))
    assert got.word == "supported"
    assert [(p.decides, p.word) for p in got.parts] == [(True, "supported"), (False, "refuted")]
    assert "NVML" in got.parts[0].effect.name


def graded(evidence, grade, arm="r4", seed=1):
    """The study with another grade for one run's device memory."""
    status, run = evidence.cells["p", arm, seed]
    found = MeasurementGrade(grade=grade, reasons=("A fault.",))
    cells = {
        **evidence.cells,
        ("p", arm, seed): (status, run.model_copy(update={"grades": {"nvml-device": found}})),
    }
    return replace(evidence, cells=cells)


@pytest.mark.parametrize(
    "peaks", [([200, 201, 199], [100, 102, 99]), ([100, 102, 99], [200, 201, 199])]
)
@pytest.mark.parametrize("arm", ["full", "r4"])
def test_a_run_of_grade_d_withholds_any_word_on_memory_and_says_why(peaks, arm):
    toy = matrix_of({"c": MEMORY})
    evidence = study(toy, {"full": FULL, "r4": OURS}, {"full": peaks[0], "r4": peaks[1]})
    for grade in ("A", "B", "C"):
        assert verdict(graded(evidence, grade, arm)).word in ("supported", "refuted")
    got = verdict(graded(evidence, "D", arm))
    assert (got.word, got.p_supported, got.p_refuted) == ("inconclusive", None, None)
    assert "seed 1, is graded D: A fault." in got.reason
    assert got.parts[0].is_refused
    assert got.effect.value is not None  # the number stands there, and decides nothing


def ratio(rank, linear, closed_form=0.67):
    return ComputeRatio(
        model=MODEL,
        rank=rank,
        tokens=1024,
        linear=linear,
        closed_form=closed_form,
        whole=0.7,
        attention_share=0.1,
    )


def compute(*flops, **changes):
    asked = COMPUTE.model_copy(update=changes)
    return verdict(study(matrix_of({"c": asked}), {}, flops=flops))


def test_a_count_near_the_closed_form_holds_and_one_far_from_it_refutes():
    got = compute(ratio(1, 0.67), ratio(256, 0.68))
    assert got.word == "supported"
    assert got.parts[0].effect.floor == pytest.approx(0.67 * 0.98)
    assert compute(ratio(1, 0.67), ratio(256, 0.75)).word == "refuted"
    # A claimed ratio has a margin in its own unit.
    claimed = {"ratio": 2 / 3, "margin": 0.05}
    assert compute(ratio(1, 0.67), ratio(256, 0.70), **claimed).word == "supported"
    assert compute(ratio(1, 0.67), ratio(256, 0.80), **claimed).word == "refuted"


def test_what_was_not_counted_is_never_supported():
    assert compute().word == "not tested"
    assert compute(ratio(1, 0.67)).word == "inconclusive"
    assert compute(ratio(1, 0.9)).word == "refuted"


def test_a_step_time_stands_beside_the_count_and_decides_nothing():
    asked = COMPUTE.model_copy(update={"comparisons": ("p.r4",)})
    toy = matrix_of({"c": asked})
    counted = (ratio(1, 0.67), ratio(256, 0.68))
    got = verdict(study(toy, {"full": FULL, "r4": OURS}, flops=counted))
    assert got.word == "supported"
    assert (got.parts[-1].decides, got.parts[-1].effect.value) == (False, pytest.approx(1.0))
    assert got.p_adjusted is None
