"""Match, ranks that are equivalent, layers: hand-made differences with answers known in closed form."""

from __future__ import annotations

import pytest
from scipy import stats as scipy_stats

from harness.claim_checks import REWARD
from harness.claim_spec import LayersClaim, MatchClaim, RankFreeClaim
from harness.verdicts.judge import judge_claims
from tests.claim_evidence import FULL, claim, matrix_of, study, verdict, worse

MARGIN = 0.02
MATCH = claim(MatchClaim, pair="p", arm="r4", margin=MARGIN)
RANK_FREE = claim(RankFreeClaim, pair="p", arms=("r1", "r4"), margin=MARGIN)
LAYERS = claim(
    LayersClaim, pair="p", attention="r4-attention", mlp="r1-mlp", every="r1-every", margin=MARGIN
)
LAYER_ARMS = ("full", "r4-attention", "r1-mlp", "r1-every")
CLOSE = worse(0.001, -0.002, 0.003)
FAR = worse(0.08, 0.09, 0.085)


def match(arm, full=FULL, **changes):
    """The verdict on a match with these values."""
    fields = {k: changes.pop(k) for k in ("minimum_seeds", "gain_margins") if k in changes}
    asked = MATCH.model_copy(update=fields)
    return verdict(study(matrix_of({"c": asked}), {"full": full, "r4": arm}, **changes))


def test_a_match_is_supported_and_its_numbers_are_those_of_a_t_test():
    got = match(CLOSE)
    assert got.word == "supported"
    expected = scipy_stats.ttest_1samp([0.001, -0.002, 0.003], MARGIN, alternative="less").pvalue
    assert got.p_supported == pytest.approx(expected)
    assert got.effect.value == pytest.approx(0.002 / 3)
    assert got.effect.ceiling == MARGIN
    assert [seed for seed, _ in got.effect.by_seed] == [0, 1, 2]


def test_what_is_worse_by_more_than_the_margin_is_refuted_and_what_reaches_over_it_is_not():
    assert match(FAR).word == "refuted"
    assert match(worse(0.01, 0.03, -0.01)).word == "inconclusive"
    assert match(worse(0.01, 0.03, -0.01)).seeds_needed > 3


@pytest.mark.parametrize("status", ["nan", "diverged", "oom-gpu", "crashed", "stalled", None])
def test_a_lost_run_of_either_arm_never_supports(status):
    assert match([*CLOSE[:2], status, 1.0], [*FULL, 1.0]).word == "inconclusive"
    assert match([*CLOSE, 1.0], [*FULL, status]).word == "inconclusive"
    assert match([*CLOSE[:2], status, 1.0], [*FULL, 1.0]).p_supported is None


def test_an_arm_that_always_fails_counts_against_it_and_a_failing_baseline_never_does():
    assert match(["nan", "diverged", "oom-gpu"]).word == "refuted"
    assert match(["nan", "diverged", "crashed"]).word == "not tested"
    assert match(FULL, ["nan"] * 3).word == "not tested"
    assert match([*FAR, 1.5], [*FULL, "nan"]).word == "inconclusive"
    assert match(["nan"] * 3, ["diverged"] * 3).word == "not tested"


def test_failures_in_fewer_seeds_than_the_claim_asks_for_do_not_decide():
    got = match(["nan"] * 3, minimum_seeds=5)
    assert got.word == "inconclusive"
    assert "the claim asks for 5" in got.reason


@pytest.mark.parametrize(
    ("arm", "full"),
    [
        ([1.0], [1.0]),
        ([1.0, 1.01], [1.0, 1.0]),
        ([1.0] * 3, [1.0] * 3),
        ([0.1 + 0.01, 0.2 + 0.01, 0.3 + 0.01], [0.1, 0.2, 0.3]),  # rounding is no spread
        ([None] * 3, [None] * 3),
    ],
    ids=["one seed", "two seeds", "copies", "rounding", "nothing ran"],
)
def test_what_has_no_spread_over_seeds_decides_nothing(arm, full):
    assert match(arm, full).word in ("inconclusive", "not tested")
    equal = study(matrix_of({"c": RANK_FREE}), {"r1": arm, "r4": full})
    assert verdict(equal).word in ("inconclusive", "not tested")


def test_fewer_seeds_than_the_claim_asks_for_withhold_either_word():
    assert match(CLOSE, minimum_seeds=5).word == "inconclusive"
    assert match(FAR, minimum_seeds=5).word == "inconclusive"


def test_both_arms_have_to_beat_the_untrained_model_by_the_margins_that_are_asked():
    got = match(CLOSE, gain_margins=60)  # 1.0 nats learned, 1.2 asked
    assert got.word == "inconclusive"
    assert "little to match in" in got.reason
    assert match(CLOSE, gain_margins=40).word == "supported"


def test_undeclared_arguments_and_arms_that_wait_decide_nothing():
    assert match(CLOSE, undeclared_pairs=frozenset({"p"})).word == "inconclusive"
    assert match(CLOSE, waiting={("p", "r4"): "no rate is chosen yet"}).word == "not tested"


def test_an_arm_that_no_run_is_planned_for_is_not_tested():
    got = verdict(study(matrix_of({"c": MATCH}), {"full": FULL}))
    assert got.word == "not tested"


def test_equal_is_not_said_of_what_is_only_no_worse():
    got = match(worse(-0.5, -0.6, -0.55))
    assert got.word == "supported"
    assert any("TOST" in line for line in got.against)
    assert not any("TOST" in line for line in match(CLOSE).against)


def test_every_measure_has_to_match_and_a_run_without_one_withholds_support():
    asked = claim(
        MatchClaim,
        REWARD,
        pair="p",
        arm="r4",
        margin=0.03,
        measures=("held-out", "train-reward"),
    )
    toy = matrix_of({"c": asked}, task="grpo")
    full, ours = [0.60, 0.62, 0.61], [0.605, 0.622, 0.60]
    assert verdict(study(toy, {"full": full, "r4": ours})).word == "supported"
    lacks = [*ours, "no reward"]
    got = verdict(study(toy, {"full": [*full, 0.5], "r4": lacks}))
    assert got.word == "inconclusive"
    assert "no train-reward" in got.reason


def test_a_seed_that_points_the_other_way_is_named():
    got = match([*CLOSE, 1.021, 1.0, 1.001, 0.999, 1.0], [*FULL, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert got.word == "supported"
    assert any("Seed 3 alone" in line for line in got.against)


def rank_free(low, high, **changes):
    asked = RANK_FREE.model_copy(update=changes)
    return verdict(study(matrix_of({"c": asked}), {"r1": low, "r4": high}))


def test_ranks_within_the_margin_both_ways_are_equivalent():
    got = rank_free(FULL, CLOSE)
    assert got.word == "supported"
    differences = [0.001, -0.002, 0.003]
    p_values = [
        scipy_stats.ttest_1samp(differences, bound, alternative=side).pvalue
        for bound, side in ((-MARGIN, "greater"), (MARGIN, "less"))
    ]
    assert got.p_supported == pytest.approx(max(p_values))
    assert rank_free(FULL, worse(0.05, 0.052, 0.051)).word == "refuted"
    assert rank_free(worse(0.05, 0.052, 0.051), FULL).word == "refuted"
    assert rank_free(FULL, worse(0.01, 0.03, -0.01)).word == "inconclusive"
    assert rank_free(FULL, CLOSE, gain_margins=60).word == "inconclusive"


def test_a_rank_that_can_not_be_trained_makes_a_difference_and_a_lost_one_supports_nothing():
    assert rank_free(FULL, ["diverged"] * 3).word == "refuted"
    assert rank_free(["diverged"] * 3, FULL).word == "refuted"
    assert rank_free(["diverged"] * 3, ["nan"] * 3).word == "not tested"
    assert rank_free(["crashed"] * 3, FULL).word == "not tested"
    assert rank_free([*FULL, "nan"], [*CLOSE, 1.0]).word == "inconclusive"


def test_the_lost_seeds_of_the_better_rank_withhold_a_difference():
    """Those that remain may be its lucky ones; those of the worse rank can't soften it."""
    far = [*worse(0.05, 0.052, 0.051), 1.05]
    assert rank_free([*FULL, "nan"], far).word == "inconclusive"
    assert rank_free([*FULL, 1.0], [*far[:3], "nan"]).word == "refuted"


def test_every_two_ranks_are_compared():
    asked = claim(RankFreeClaim, pair="p", arms=("r1", "r4", "r16"), margin=MARGIN)
    toy = matrix_of({"c": asked})
    got = verdict(study(toy, {"r1": FULL, "r4": CLOSE, "r16": worse(0.06, 0.061, 0.063)}))
    assert [part.word for part in got.parts] == ["supported", "refuted", "refuted"]
    assert got.word == "refuted"
    assert any("this part is supported" in line for line in got.against)


def layers(attention, mlp, every):
    toy = matrix_of({"c": LAYERS}, arms=LAYER_ARMS)
    return verdict(study(toy, {"r4-attention": attention, "r1-mlp": mlp, "r1-every": every}))


def test_layers_hold_if_attention_is_worse_and_the_mlp_as_good_as_all():
    got = layers(FAR, CLOSE, FULL)
    assert [part.word for part in got.parts] == ["supported"] * 3
    assert got.word == "supported"
    assert got.p_supported == max(part.p_supported for part in got.parts)


def test_attention_that_is_not_worse_by_what_counts_refutes():
    got = layers(CLOSE, worse(0.0, 0.001, 0.002), FULL)
    assert got.word == "refuted"
    assert (
        layers(FAR, worse(0.07, 0.06, 0.075), FULL).word == "refuted"
    )  # the MLP is worse than all


def test_layers_that_are_lost_or_copied_do_not_hold():
    assert layers([*FAR, "nan"], [*CLOSE, 1.0], [*FULL, 1.0]).word != "supported"
    assert layers([1.1] * 3, [1.0] * 3, [1.0] * 3).word == "inconclusive"
    assert layers([0.1 + 0.7, 0.2 + 0.7, 0.3 + 0.7], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).word == (
        "inconclusive"
    )
    assert layers(FAR, ["diverged"] * 3, FULL).word == "refuted"
    assert layers(FAR, CLOSE, ["diverged"] * 3).word in ("inconclusive", "not tested")


def test_no_claim_is_supported_without_a_p_value():
    toy = matrix_of({"c": MATCH, "d": RANK_FREE})
    for got in judge_claims(study(toy, {"full": FULL, "r4": CLOSE, "r1": FULL})):
        assert got.word == "supported"
        assert got.p_adjusted <= 0.05
