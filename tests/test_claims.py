"""The words: when a match is supported, refuted, inconclusive or not tested."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.claims import judge, sentence
from harness.grade_tables import grades_tables
from harness.record import Status
from harness.spec import Arm
from harness.summary import RunSummary
from tests.gpu_study import GIB, Hardware, build_gpu_study
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
    """full, lora: per seed a final value, a status, or None for a run that crashed."""
    found = {}
    for name, values in (("full", full), (arm, lora)):
        for seed, value in enumerate(values):
            if isinstance(value, float):
                found[pair, name, seed] = (Status.OK, summary(pair, value))
            else:
                found[pair, name, seed] = (Status(value or "crashed"), None)
    return found


def finding(pair, full, lora, undeclared=frozenset()):
    arm = "lora-r32" if pair == "sft-micro" else "lora-r1"
    found = judge(build_matrix(Plan()), cells(pair, arm, full, lora), undeclared)
    return next(f for f in found if f.pair == pair)


def with_arm(matrix, pair, **arms):
    """The matrix with more arms in one pair."""
    changed = matrix.pairs[pair].model_copy(update={"arms": {**matrix.pairs[pair].arms, **arms}})
    return matrix.model_copy(update={"pairs": {**matrix.pairs, pair: changed}})


FULL = [0.50, 0.51, 0.52]
MATCH = [0.501, 0.512, 0.520]


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
    assert "about 7 seeds would show a match" in got.reason


def test_more_seeds_than_the_spread_asks_for_are_not_counted_off():
    """Six that lie just below the margin: so many would have done, had the arms been alike."""
    lora = [0.517, 0.532, 0.536, 0.523, 0.527, 0.539]
    got = finding("sft-micro", [0.50, 0.51, 0.52] * 2, lora)
    assert got.word == "inconclusive"
    assert "more seeds would narrow it" in got.reason


def test_a_spread_that_no_number_of_seeds_overcomes_is_said():
    got = finding("sft-micro", [0.5, 1.5, 0.2], [0.2, 0.6, 1.6])
    assert "more than 1000 seeds" in got.reason


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
    got = finding("sft-micro", [*FULL, 0.5], [*MATCH, None])
    assert got.word == "inconclusive"
    assert "1 run of lora-r32 gave no result to compare (1 crashed)" in got.reason
    assert got.lost == ("sft-micro.lora-r32.s3: crashed",)
    assert got.seeds == (0, 1, 2)


def test_a_lost_run_of_the_arm_does_not_soften_a_refutation():
    assert finding("sft-micro", [0.5] * 4, [0.7, 0.71, 0.7, None]).word == "refuted"


@pytest.mark.parametrize("status", ["nan", "oom-gpu", "crashed"])
def test_a_lost_run_of_the_baseline_withholds_a_refutation(status):
    """The seeds in which the baseline survived may be the easy ones."""
    got = finding("sft-micro", [0.5, 0.5, 0.5, status], [0.7, 0.71, 0.7, 0.7])
    assert got.word == "inconclusive"
    assert got.reason == (
        f"1 run of full gave no result to compare (1 {status}), so the others can't refute a match."
    )


def test_runs_that_ended_badly_are_not_called_unfinished():
    got = finding("sft-micro", [*FULL, 0.5, "diverged"], [*MATCH, "nan", "nan"])
    assert got.word == "inconclusive"
    assert "2 runs of lora-r32 gave no result to compare (2 nan)" in got.reason
    assert "1 run of full gave no result to compare (1 diverged)" in got.reason


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_equal_differences_in_every_seed_decide_nothing(shift):
    """Three rewards of 1.0 in both arms are a ceiling, not a match within any margin."""
    got = finding("grpo-micro", [1.0, 1.0, 1.0], [1.0 - shift] * 3)
    assert got.word == "inconclusive"
    assert "ceiling" in got.reason
    rounded = finding("sft-micro", [0.1, 0.2, 0.3], [0.1 + 0.01, 0.2 + 0.01, 0.3 + 0.01])
    assert "ceiling" in rounded.reason


@pytest.mark.parametrize("status", ["oom-host", "nan", "diverged", "oom-gpu"])
def test_an_arm_that_can_not_be_trained_is_refuted(status):
    got = finding("sft-micro", FULL, [status] * 3)
    assert got.word == "refuted"
    assert f"every run of the arm ended {status}" in got.reason


@pytest.mark.parametrize(
    ("full", "lora"),
    [
        (FULL[:2], ["oom-host"] * 2),  # too few seeds of the baseline
        ([*FULL, "oom-host"], ["oom-host"] * 4),  # the machine is too small for the baseline too
        (["nan"] * 3, ["nan"] * 3),
    ],
)
def test_failures_on_both_sides_or_few_seeds_test_nothing(full, lora):
    got = finding("sft-micro", full, lora)
    assert got.word == "not tested"
    assert f"every run of the arm ended {lora[0]}" in got.reason


def test_accidents_are_no_failures_of_training():
    got = finding("sft-micro", FULL, ["oom-host", "oom-host", "crashed"])
    assert (got.word, got.reason) == ("not tested", "No seed finished in both arms.")
    got = finding("sft-micro", ["nan"] * 3, [0.5] * 3)
    assert got.reason.endswith("every run of the baseline ended nan.")


def test_arms_that_differ_undeclared_are_inconclusive_and_say_nothing_of_memory():
    pairs = frozenset({"sft-micro"})
    for lora in (MATCH, [0.9, 0.91, 0.93], ["nan"] * 3):
        got = finding("sft-micro", FULL, lora, pairs)
        assert (got.word, got.is_comparable) == ("inconclusive", False)
        assert "does not declare" in got.reason
    assert finding("sft-micro", FULL, MATCH, frozenset({"grpo-micro"})).word == "supported"
    study = build_study()
    assert "of the memory" in sentence(study.findings)
    alone = [f.model_copy(update={"is_comparable": False}) for f in study.findings]
    assert "of the memory" not in sentence(alone)


def test_matching_a_baseline_that_learned_nothing_is_inconclusive():
    got = finding("sft-micro", [1.599, 1.6, 1.601], [1.6, 1.6, 1.6])
    assert got.word == "inconclusive"
    assert "did not improve" in got.reason


def test_no_shared_seed_is_not_tested():
    got = finding("sft-micro", [0.5, None], [None, 0.5])
    assert (got.word, got.worse_by, got.memory) == ("not tested", None, ())


def test_an_arm_that_no_run_was_planned_for_is_not_judged():
    """A filter left it out: it is neither a finding nor 'could not be tested'."""
    matrix = build_matrix(Plan())
    only_full = {("sft-micro", "full", s): (Status.OK, summary("sft-micro", 0.5)) for s in range(3)}
    assert judge(matrix, only_full) == []
    assert "no finding" in sentence([])


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


def memory_summary(peak, baseline, device=None):
    nvml = {} if device is None else {"nvml-device": {"training": device}}
    peaks = {"rss": {"training": peak}, **nvml}
    one = summary("sft-micro", 0.5)
    return one.model_copy(update={"peak_bytes": peaks, "baseline_bytes": {"rss": baseline}})


def memory_of(ours, theirs):
    found = {("sft-micro", "lora-r32", s): (Status.OK, run) for s, run in enumerate(ours)}
    found |= {("sft-micro", "full", s): (Status.OK, run) for s, run in enumerate(theirs)}
    return judge(build_matrix(Plan()), found)[0].memory


def test_bytes_and_ratio_of_memory_speak_of_the_same_runs():
    """One run shrank below its baseline: growth has no ratio for it, so growth is not used."""
    ours = [memory_summary(200, 100), memory_summary(200, 100), memory_summary(90, 100)]
    rows = memory_of(ours, [memory_summary(300, 100)] * 3)
    assert [row.statistic for row in rows] == ["peak process-tree RSS in training"]
    assert rows[0].ratio.n == 3
    assert rows[0].arm_bytes == pytest.approx(490 / 3)


def test_a_lens_that_one_run_lacks_is_not_judged_by():
    ours = [memory_summary(200, 100, 50), memory_summary(200, 100, 50), memory_summary(200, 100)]
    theirs = [memory_summary(300, 100, 80)] * 3
    assert memory_of(ours, theirs)[0].lens == "rss"
    assert memory_of(ours[:2] * 2, [theirs[0]] * 4)[0].lens == "nvml-device"


@pytest.mark.parametrize(
    ("ours", "theirs", "lens"),
    [
        (Hardware(), Hardware(), "nvml-device"),
        (Hardware(has_trusted_pids=False), Hardware(has_trusted_pids=False), "nvml-above-idle"),
        (Hardware(), Hardware(has_trusted_pids=False, idle_bytes=GIB), "nvml-above-idle"),
        (Hardware(idle_bytes=2 * GIB), Hardware(), "nvml-above-idle"),
    ],
)
def test_both_arms_are_judged_above_idle_where_the_device_would_mislead_of_one(ours, theirs, lens):
    """8.95 over 23.25 GiB, whatever was in use before the run, and the sentence names the lens."""
    plan = Plan(arms=2, seeds=(0, 1, 2))
    full, lora = (build_gpu_study(machine, plan, ("sft",)) for machine in (theirs, ours))
    runs = [r for r in full.runs if r.planned.arm == "full"]
    runs += [r for r in lora.runs if r.planned.arm != "full"]
    cells = {(r.planned.pair, r.planned.arm, r.planned.seed): (Status.OK, r.summary) for r in runs}
    found = judge(full.matrix, cells)
    judged = found[0].memory[0]
    assert (judged.lens, judged.refused) == (lens, None)
    assert judged.ratio.value == pytest.approx(8.95 / 23.25, rel=1e-3)
    name = "peak above idle" if lens == "nvml-above-idle" else "peak"
    assert f"LoRA takes 38% of the memory (NVML device {name} in training)" in sentence(found)


def test_the_table_of_grades_names_the_lens_above_idle():
    study = build_gpu_study(Hardware(has_trusted_pids=False), Plan(arms=2, seeds=(0,)), ("sft",))
    (table,) = grades_tables(study)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["Memory judged by"] == "NVML device memory above idle"
    assert row["Runs"] == row["That lens"] == "B (1 run)"


def test_the_sentence_counts_what_could_not_be_tested():
    found = cells("sft-micro", "lora-r32", FULL, MATCH)
    crashed = cells("grpo-micro", "lora-r1", [0.6, 0.61, 0.62], [None] * 3)
    said = sentence(judge(build_matrix(Plan()), found | crashed))
    assert "in 1 of 2 comparisons, 1 could not be tested" in said
    failed = cells("grpo-micro", "lora-r1", [0.6, 0.61, 0.62], ["oom-host"] * 3)
    said = sentence(judge(build_matrix(Plan()), found | failed))
    assert "in 1 of 2 comparisons, falls short in 1" in said
    open_ones = cells("sft-micro", "lora-r32", [0.5], [0.5])
    said = sentence(judge(build_matrix(Plan()), open_ones | crashed))
    assert "in any of 2 comparisons, and 1 of them could not be tested" in said


def test_only_lora_against_full_fine_tuning_counts_as_that():
    slow = Arm(method="full", trainer={"learning_rate": 1e-6})
    matrix = with_arm(build_matrix(Plan()), "sft-micro", slow=slow)
    found = cells("sft-micro", "lora-r32", FULL, MATCH) | cells("sft-micro", "slow", FULL, MATCH)
    found |= cells("grpo-micro", "lora-r1", [0.6, 0.61, 0.62], [0.601, 0.61, 0.62])
    got = judge(matrix, found)
    assert [(f.arm, f.method, f.baseline_method) for f in got][1] == ("slow", "full", "full")
    assert sentence(got) == (
        "LoRA matches full fine-tuning within the margin in 2 of 2 comparisons; "
        "1 other comparison stands in the table."
    )
    assert "No arm compares LoRA" in sentence([got[1]])


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
