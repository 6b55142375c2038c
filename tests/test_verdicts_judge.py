"""All claims of a study: what a matrix says without any, many claims at once, controls, rehearsals."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.claim_checks import RATIO
from harness.claim_spec import ComputeClaim, MatchClaim, MemoryClaim, RateClaim
from harness.claims import judge
from harness.store import Store
from harness.verdicts.judge import claims_of, judge_claims, margin_text
from harness.view import load_view
from tests.claim_evidence import FULL, claim, matrix_of, parabola, study, verdict, worse
from tests.study_factory import Plan, build_study

SAMPLES = Path(__file__).parent / "data"
CLOSE = worse(0.001, -0.002, 0.003)
FAR = worse(0.08, 0.09, 0.085)
# Supported alone, at p = 0.021: not among three.
NARROW = worse(0.001, 0.009, -0.002)


def match(arm="r4", **fields):
    return claim(MatchClaim, **{"pair": "p", "arm": arm, "margin": 0.02, **fields})


def judged(claims, **values):
    found = judge_claims(study(matrix_of(claims), {"full": FULL, **values}))
    return {each.claim: each for each in found}


def test_one_claim_stands_as_it_is_and_among_many_it_has_to_stand_out():
    alone = judged({"a": match()}, r4=NARROW)["a"]
    assert alone.word == "supported"
    assert alone.p_adjusted == alone.p_supported
    many = {"a": match(), "b": match("r1"), "c": match("r16")}
    among = judged(many, r4=NARROW, r1=worse(0.0, 0.01, -0.02), r16=worse(0.0, 0.1, -0.1))["a"]
    assert among.word == "inconclusive"
    assert among.p_adjusted == pytest.approx(3 * alone.p_supported)
    assert "By itself it would be supported; among 3 claims" in among.reason
    assert (among.alone, among.effect) == ("supported", alone.effect)


def test_a_refutation_among_many_has_to_stand_out_too():
    edge = worse(0.038, 0.048, 0.058)  # p = 0.02
    many = {name: match(arm) for name, arm in (("a", "r4"), ("b", "r1"), ("c", "r16"))}
    alone = judged({"a": match()}, r4=edge)["a"]
    assert alone.word == "refuted"
    among = judged(many, r4=edge, r1=CLOSE, r16=CLOSE)["a"]
    assert among.word == "inconclusive"
    assert among.p_adjusted == pytest.approx(3 * alone.p_refuted)


def test_a_claim_whose_runs_are_missing_still_counts_among_the_many():
    many = {"a": match(), "b": match("r1"), "c": match("r16")}
    found = judged(many, r4=NARROW)
    assert [found[name].word for name in "abc"] == ["inconclusive", "not tested", "not tested"]


def test_controls_are_no_claims_and_are_reported_as_expected_or_not():
    claims = {
        "a": match(),
        "must-fail": match("r1", role="positive-control"),
        "must-hold": match("r16", role="negative-control"),
    }
    found = judged(claims, r4=NARROW, r1=FAR, r16=CLOSE)
    assert found["a"].word == "supported"  # controls make no family
    assert found["a"].is_as_expected is None
    assert found["a"].against == ()
    for name, word in (("must-fail", "refuted"), ("must-hold", "supported")):
        assert (found[name].word, found[name].is_as_expected) == (word, True)
        assert found[name].p_adjusted is None
    blind = judged(claims, r4=NARROW, r1=CLOSE, r16=CLOSE)
    assert blind["must-fail"].is_as_expected is False
    assert any("must-fail is supported, not refuted" in line for line in blind["a"].against)
    lost = judged(claims, r4=NARROW, r1=FAR)
    assert lost["must-hold"].is_as_expected is False
    assert any("must-hold is not tested" in line for line in lost["a"].against)


def test_a_rehearsal_judges_nothing_and_says_so():
    claims = {"a": match(), "b": match("r1", role="positive-control")}
    toy = matrix_of(claims, scale="rehearsal")
    for got in judge_claims(study(toy, {"full": FULL, "r4": CLOSE, "r1": FAR})):
        assert got.word == "not tested"
        assert "rehearsal" in got.reason
        assert (got.parts, got.against, got.is_as_expected) == ((), (), None)


def test_lost_runs_and_rates_at_the_grid_s_end_are_named():
    got = judged({"a": match()}, r4=[*CLOSE, "nan"])["a"]
    assert got.lost == ("p.r4.s3: nan",)
    toy = matrix_of({"a": match()}, swept=("full", "r4"))
    points = parabola("full", (1e-4,) * 3) + parabola("r4", (1e-1,) * 3)
    got = verdict(study(toy, {"full": FULL, "r4": CLOSE}, points=points))
    assert got.word == "supported"
    assert any("judged at the highest rate of its grid, 1e-1" in line for line in got.against)


def test_an_arm_that_takes_another_s_rate_stands_at_that_grid_s_end_too():
    toy = matrix_of({"a": match("r4-twin")}, arms=("full", "r4", "r4-twin"), swept=("full", "r4"))
    arms = toy.pairs["p"].arms
    twin = arms["r4-twin"].model_copy(update={"rate_of": "r4", "trainer": {}})
    pair = toy.pairs["p"].model_copy(update={"arms": {**arms, "r4-twin": twin}})
    toy = toy.model_copy(update={"pairs": {"p": pair}})
    points = parabola("full", (1e-4,) * 3) + parabola("r4", (1e-1,) * 3)
    got = verdict(study(toy, {"full": FULL, "r4-twin": CLOSE}, points=points))
    assert any("p.r4 was judged at the highest rate" in line for line in got.against)
    waits = verdict(study(toy, {"full": FULL}, points=points[:-1]))
    assert waits.word == "not tested"
    assert "no rate is chosen yet" in waits.reason


def test_an_open_claim_says_which_part_is_open():
    asked = claim(RateClaim, RATIO, pair="p", arm="r4", ranks=("r1", "r16"))
    toy = matrix_of({"a": asked}, swept=("full", "r1", "r4", "r16"))
    points = [p for arm in ("full", "r1", "r16") for p in parabola(arm, (1e-4, 1.1e-4, 1.2e-4))]
    got = verdict(study(toy, {}, points=points[:-1] + parabola("r4", (1e-3, 1.1e-3, 1e-3))))
    assert got.word == "inconclusive"
    assert "drift of the best rate, r16 over r1" in got.reason
    assert got.effect.name.startswith("drift")


def test_margins_are_said_with_what_they_are_of():
    toy = matrix_of({})
    compute = claim(ComputeClaim, RATIO, models=("smollm2",), ranks=(1,), margin=0.02)
    rates = claim(RateClaim, RATIO, pair="p", arm="r4", ranks=("r1", "r16"))
    memory = claim(MemoryClaim, RATIO, comparisons=("p.r4",))
    assert margin_text(toy, match()) == "0.02 nats per completion token"
    assert margin_text(toy, compute) == "2/3 + rank term, give or take 2% of it"
    given = compute.model_copy(update={"ratio": 0.667, "margin": 0.05})
    assert margin_text(toy, given) == "0.667, give or take 0.05"
    assert margin_text(toy, rates) == "ratio 5 to 20; drift below 2×"
    assert margin_text(toy, memory) == "ratio below 100%"


def test_the_verdict_in_plain_words_names_its_arms():
    got = judged({"a": match()}, r4=CLOSE)["a"]
    assert got.plain == "r4 ends as good as full fine-tuning, within the margin."
    other = match(baseline="r16")
    assert judged({"a": other}, r4=FAR, r16=FULL)["a"].plain == "r4 ends worse than r16."


def test_a_matrix_without_claims_says_that_each_arm_matches_its_baseline():
    claims = claims_of(matrix_of({}))
    assert list(claims) == ["p.r1", "p.r4", "p.r16"]
    assert {c.margin for c in claims.values()} == {0.02}
    assert claims_of(matrix_of({"only": match()})) == {"only": match()}


@pytest.mark.parametrize(
    "values",
    [
        {"r1": CLOSE, "r4": FAR, "r16": worse(0.01, 0.03, -0.01)},
        {"r1": ["nan"] * 3, "r4": [*CLOSE[:2], "crashed"], "r16": [None] * 3},
        {"r1": CLOSE[:1], "r4": CLOSE[:2], "r16": FULL},
    ],
)
def test_its_verdicts_are_the_findings_words(values):
    toy = matrix_of({})
    evidence = study(toy, {"full": FULL, **values})
    findings = {f"{f.pair}.{f.arm}": f.word for f in judge(toy, evidence.cells)}
    assert {v.claim: v.word for v in judge_claims(evidence)} == findings


@pytest.mark.parametrize(
    "view",
    [
        *(load_view(Store(folder)) for folder in sorted(SAMPLES.glob("format-*"))),
        build_study(Plan(arms=3)),
        build_study(Plan(arms=3, failures={"sft-micro.lora-r32.s1": "nan"}, has_gpu=True)),
        build_study(Plan(scale="rehearsal")),
    ],
    ids=lambda view: view.study.created_utc + view.matrix.scale,
)
def test_the_verdicts_of_studies_without_claims_are_their_findings(view):
    findings = {f"{f.pair}.{f.arm}": f.word for f in view.findings}
    assert {v.claim: v.word for v in view.verdicts} == findings
    assert view.choices == {}
