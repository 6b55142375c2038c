"""The words: when a match is supported, refuted, inconclusive or not tested."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.claims import judge, sentence
from harness.record import Status
from harness.summary import RunSummary
from tests.study_factory import Plan, build_matrix, build_study

MARGIN = {"sft-micro": 0.02, "grpo-micro": 0.05}
BASE = {"sft-micro": 1.6, "grpo-micro": 0.37}


def summary(pair, final, peak=None, tokens_per_s=None, base=None):
    return RunSummary(
        metric="nll" if pair.startswith("sft") else "reward",
        base_value=BASE[pair] if base is None else base,
        final_value=final,
        train_reward_last=None,
        steps=10,
        steps_excluded=5,
        step_s_median=None,
        trained_tokens_per_s=tokens_per_s,
        generated_tokens_per_s=None,
        samples_per_s=None,
        model_flops_per_step=None,
        wall_s=1.0,
        peak_bytes={} if peak is None else {"rss": {"training": peak}},
        baseline_bytes={} if peak is None else {"rss": 100},
    )


def cells(pair, arm, full, lora):
    """full, lora: final values per seed; None is a run that crashed."""
    found = {}
    for name, values in (("full", full), (arm, lora)):
        for seed, value in enumerate(values):
            status = Status.OK if value is not None else Status.CRASHED
            found[pair, name, seed] = (status, None if value is None else summary(pair, value))
    return found


def finding(pair, full, lora):
    arm = "lora-r32" if pair == "sft-micro" else "lora-r1"
    matrix = build_matrix(Plan())
    return next(f for f in judge(matrix, cells(pair, arm, full, lora)) if f.pair == pair)


def test_a_tight_interval_below_the_margin_is_supported():
    got = finding("sft-micro", [0.50, 0.51, 0.52], [0.501, 0.512, 0.520])
    assert got.word == "supported"
    assert got.worse_by.value == pytest.approx(0.001)
    assert got.worse_by.high < got.margin


def test_higher_reward_is_better_and_higher_nll_is_worse():
    assert finding("sft-micro", [0.5, 0.5, 0.5], [0.6, 0.61, 0.6]).word == "refuted"
    better = finding("grpo-micro", [0.6, 0.6, 0.6], [0.7, 0.71, 0.7])
    assert better.word == "supported"
    assert better.worse_by.value < 0


def test_a_whole_interval_above_the_margin_is_refuted():
    assert finding("grpo-micro", [0.62, 0.63, 0.64], [0.50, 0.51, 0.53]).word == "refuted"


def test_an_interval_that_reaches_over_the_margin_is_inconclusive():
    got = finding("sft-micro", [0.50, 0.51, 0.52], [0.49, 0.53, 0.52])
    assert got.word == "inconclusive"
    assert "more seeds" in got.reason


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_never_decide(seeds):
    got = finding("sft-micro", [0.5] * seeds, [0.5] * seeds)
    assert got.word == "inconclusive"
    got = finding("sft-micro", [0.5] * seeds, [0.9] * seeds)
    assert got.word == "inconclusive"


def test_one_seed_has_no_interval():
    got = finding("sft-micro", [0.5], [0.5])
    assert (got.worse_by.low, got.worse_by.high, got.worse_by.n) == (None, None, 1)


def test_a_lost_run_withholds_support_even_if_three_seeds_remain():
    got = finding("sft-micro", [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, None])
    assert got.word == "inconclusive"
    assert got.lost == ("sft-micro.lora-r32.s3: crashed",)
    assert got.seeds == (0, 1, 2)


def test_a_lost_run_does_not_soften_a_refutation():
    assert finding("sft-micro", [0.5] * 4, [0.7, 0.71, 0.7, None]).word == "refuted"


def test_matching_a_baseline_that_learned_nothing_is_inconclusive():
    got = finding("sft-micro", [1.599, 1.6, 1.601], [1.6, 1.6, 1.6])
    assert got.word == "inconclusive"
    assert "did not improve" in got.reason


def test_no_shared_seed_is_not_tested():
    got = finding("sft-micro", [0.5, None], [None, 0.5])
    assert (got.word, got.worse_by, got.memory) == ("not tested", None, ())
    assert finding("sft-micro", [], []).word == "not tested"


def test_a_value_that_is_not_finite_can_not_enter():
    with pytest.raises(ValidationError):
        summary("sft-micro", float("nan"))


def test_memory_names_lens_and_statistic_and_growth_leads():
    matrix = build_matrix(Plan())
    found = {
        ("sft-micro", arm, s): (Status.OK, summary("sft-micro", 0.5, peak, rate))
        for arm, peak, rate in (("full", 300, 10.0), ("lora-r32", 200, 15.0))
        for s in range(3)
    }
    got = judge(matrix, found)[0]
    assert [m.statistic.split(" of ")[0].split(" in ")[0] for m in got.memory] == [
        "peak growth",
        "peak process-tree RSS",
    ]
    assert got.memory[0].ratio.value == pytest.approx(0.5)  # (200 - 100) / (300 - 100)
    assert got.memory[1].ratio.value == pytest.approx(200 / 300)
    assert got.tokens_per_s_ratio.value == pytest.approx(1.5)
    assert got.step_time_ratio is None


def test_the_sentence_counts_the_words():
    study = build_study()
    assert "in 2 of 2 comparisons" in sentence(study.findings)
    lost = build_study(Plan(failures={"sft-micro.full.s0": "nan"}))
    assert "1 can't be decided" in sentence(lost.findings)


def test_the_sentence_of_a_study_that_has_not_run():
    matrix = build_matrix(Plan())
    assert "no finding" in sentence(judge(matrix, {}))


def test_the_sentence_copes_with_memory_that_only_a_later_finding_has():
    """The first finding judged may lack what a later one has."""
    matrix = build_matrix(Plan())
    found = cells("sft-micro", "lora-r32", [0.5] * 3, [0.5] * 3)
    for arm, peak in (("full", 300), ("lora-r1", 200)):
        for s in range(3):
            found["grpo-micro", arm, s] = (Status.OK, summary("grpo-micro", 0.6, peak))
    assert "50%" in sentence(judge(matrix, found))
