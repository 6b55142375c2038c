"""Sections by subject: which there are, and what stands in them where little is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.finding_sections import finding_sections
from harness.finding_tables import adapter_parameters, batch_sizes, batch_table, page_ranks_table
from harness.grade import MeasurementGrade
from tests.claims_study import claims_matrix, claims_plan, claims_study
from tests.study_factory import build_study


@pytest.fixture(scope="module")
def study():
    return claims_study(matrix=claims_matrix(only=("batch", "layers", "rank-free")))


def page_ranks(study):
    verdicts = {verdict.claim: verdict for verdict in study.verdicts}
    table = page_ranks_table(study.evidence, study.matrix.claims, verdicts)
    return {row[0]: row[1:] for row in table.rows}


def test_a_study_without_claims_has_no_sections():
    assert finding_sections(build_study()) == []


def test_a_section_is_there_only_if_something_is_claimed(study):
    sections = {section.identity: section for section in finding_sections(study)}
    assert list(sections) == ["on-batch", "on-layers", "on-rank-free"]
    assert [row.name for row in sections["on-batch"].claims] == ["batch"]
    assert all(len(section.figures) == 1 for section in sections.values())
    assert "split" in str(sections["on-layers"].figures[0].spec)


def test_two_claims_on_one_subject_show_what_they_share_once():
    matrix = claims_matrix(only=("compute",))
    again = matrix.claims["compute"].model_copy(update={"sentence": "The same in other words."})
    doubled = matrix.model_copy(update={"claims": {**matrix.claims, "compute-again": again}})
    (section,) = finding_sections(claims_study(matrix=doubled))
    assert len(section.claims) == 2
    assert len(section.figures) == 1
    assert len({table.caption for table in section.tables}) == len(section.tables)


def test_memory_of_grade_d_is_not_drawn_and_its_row_says_so():
    """One seed of RL's LoRA arm was measured with grade D; the other comparison is drawn as ever."""
    plan = claims_plan()
    study = claims_study(plan, claims_matrix(only=("memory",)))
    poor = MeasurementGrade(grade="D", reasons=("Hardly read.",))
    runs = tuple(
        replace(run, summary=run.summary.model_copy(update={"grades": {"rss": poor}}))
        if run.planned.cell == "rl.lora-r1.s0"
        else run
        for run in study.runs
    )
    (before,), (after,) = (finding_sections(each) for each in (study, replace(study, runs=runs)))
    assert "Not drawn" not in before.figures[0].caption
    assert after.figures[0].caption.endswith(
        " Not drawn, as its memory is graded D: rl.lora-r1 over full."
    )
    words = {row[0]: row[-1] for table in after.tables for row in table.rows if "RSS" in row[1]}
    assert words["rl.lora-r1 over full"].endswith("(graded D)")
    assert "graded D" not in words["sft-rank.lora-r256 over full"]


def test_the_pages_ranks_stand_beside_what_was_tried(study):
    rows = page_ranks(study)
    assert rows["SFT"] == ("Post-training scale", "256", "\u2013", "not tried", "\u2013")
    assert rows["RL"][:3] == ("Any size", "1\u201332", "rl")
    assert rows["RL"][3] == "rank 1 matches, rank 8 matches, rank 32 matches"


@pytest.mark.slow
def test_a_rehearsal_finds_nothing_about_ranks(study):
    matrix = study.matrix.model_copy(update={"scale": "rehearsal"})
    assert page_ranks(claims_study(claims_plan(), matrix))["RL"][3] == "not tested"


def test_batch_sizes_are_what_a_step_takes_in_all(study):
    claim = study.matrix.claims["batch"]
    assert batch_sizes(study, claim) == {
        "sft-batch-4": 4.0,
        "sft-batch-32": 32.0,
        "sft-batch-256": 256.0,
    }


@pytest.mark.slow
def test_a_batch_size_that_nobody_said_is_not_made_up(study):
    pairs = {
        name: pair.model_copy(update={"trainer": {}}) for name, pair in study.matrix.pairs.items()
    }
    matrix = study.matrix.model_copy(update={"pairs": pairs, "seeds": (0, 1)})
    bare = claims_study(claims_plan(offset=lambda spec, step: 0.0), matrix)
    claim = matrix.claims["batch"]
    assert batch_sizes(bare, claim) == {}
    assert {row[1] for row in batch_table(bare.evidence, claim, {}).rows} == {"not measured"}
    batch = finding_sections(bare)[0]
    assert "sft-batch-32" in batch.figures[0].svg


@pytest.mark.slow
def test_parameters_are_counted_from_the_shape_or_as_reported(study):
    assert adapter_parameters(study, "sft-rank", "lora-all") == 136_192
    unknown = claims_study(claims_plan(), with_source(study.matrix, "someone/unknown"))
    assert adapter_parameters(unknown, "sft-rank", "lora-all") == 9_000 * 14


def with_source(matrix, source):
    pair = matrix.pairs["sft-rank"]
    changed = pair.model_copy(update={"model": pair.model.model_copy(update={"source": source})})
    return matrix.model_copy(update={"pairs": {**matrix.pairs, "sft-rank": changed}})
