"""The sentence over a study's claims: claims count, controls are named, what went wrong is a banner."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.claim_sentence import claims_sentence, control_problems
from harness.findings import banners, headline
from tests.claims_study import claims_matrix, claims_plan, claims_study
from tests.study_factory import build_study


@pytest.fixture(scope="module")
def study():
    return claims_study()


def said_of(study, **words):
    """The sentence if these claims had these words."""
    verdicts = [
        v.model_copy(update={"word": words[v.claim], "is_as_expected": None})
        if v.claim in words
        else v
        for v in study.verdicts
    ]
    changed = replace(study)
    changed.__dict__["verdicts"] = verdicts
    return claims_sentence(changed)


def test_claims_count_and_controls_are_named(study):
    assert headline(study) == (
        "LoRA matches full fine-tuning in 2 of 3 match claims, 1 undecided; of the 7 other claims 4 are "
        "supported, 1 refuted, 2 undecided; LoRA takes 59% of the memory (peak growth of process-tree "
        "RSS in training); the positive control was refuted and the negative control matched, as they "
        "must."
    )
    assert not control_problems(study)


def test_what_falls_short_and_what_was_not_tested_is_said(study):
    said = said_of(
        study, **{"match-r256": "refuted", "match-r16": "not tested", "rates": "not tested"}
    )
    assert "in 1 of 3 match claims, falls short in 1, 1 not tested;" in said
    assert "of the 7 other claims 3 are supported, 1 refuted, 2 undecided, 1 not tested;" in said


@pytest.mark.slow
def test_two_positive_controls_are_both():
    starved = claims_matrix().claims["control-starved"].model_dump(mode="json")
    matrix = claims_matrix(only=("control-starved", "second"), second=starved)
    said = headline(claims_study(matrix=matrix))
    assert said == "Both positive controls were refuted, as they must."


@pytest.mark.slow
def test_a_control_that_did_not_come_out_is_a_problem_and_no_boast():
    """Nothing keeps the starved arm back here, so it is as good as any: the study could not tell."""
    matrix = claims_matrix(only=("match-r256", "control-starved"))
    study = claims_study(claims_plan(offset=lambda spec, step: 0.0), matrix)
    assert "control" not in headline(study)
    found = [b.text for b in banners(study) if b.kind == "problem"]
    assert found == [
        "The positive control control-starved is supported, not refuted: the study may be unable to see "
        "a difference."
    ]


@pytest.mark.slow
def test_a_control_that_waits_for_its_runs_is_no_problem_yet():
    matrix = claims_matrix(only=("match-r256", "control-again"))
    cells = {f"sft-rank.{a}.s{s}": "missing" for a in ("full", "full-again") for s in range(5)}
    study = claims_study(claims_plan(failures=cells), matrix)
    assert [kind for kind, _ in control_problems(study)] == ["incomplete"]


def test_a_study_without_claims_speaks_of_its_arms():
    assert headline(build_study()).startswith("LoRA matches full fine-tuning within the margin in")
