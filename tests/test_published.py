"""What is published: findings-cpu and the baseline are of the matrices that ship; controls came out."""

from __future__ import annotations

import json
from pathlib import Path

from harness.baselines import read_baseline
from harness.claim_spec import EXPECTED
from harness.matrix import load_matrix, margins_hash, matrix_hash
from harness.record import Status

REPORT = Path(__file__).parent.parent / "reports" / "findings-cpu"
BASELINES = Path(__file__).parent.parent / "benchmarks" / "baselines"


def test_the_report_is_of_the_matrix_that_ships():
    study = json.loads((REPORT / "study.json").read_text())
    matrix = load_matrix("findings-cpu").matrix
    assert study["matrix_hash"] == matrix_hash(matrix, {})
    assert study["margins_hash"] == margins_hash(matrix)
    assert {run["seed"] for run in study["planned"]} == {*matrix.seeds, *matrix.selection.seeds}


def test_every_claim_has_a_verdict_and_every_control_came_out_as_it_must():
    found = json.loads((REPORT / "verdict.json").read_text())
    verdicts = {verdict["claim"]: verdict for verdict in found["claims"]}
    claims = load_matrix("findings-cpu").matrix.claims
    assert verdicts.keys() == claims.keys()
    assert not found["is_post_hoc"]
    controls = {name: claim for name, claim in claims.items() if claim.role in EXPECTED}
    assert len(controls) == 3
    for name, claim in controls.items():
        assert verdicts[name]["word"] == EXPECTED[claim.role]
        assert verdicts[name]["is_as_expected"]


def test_other_seed_blocks_stand_beside_it_and_contradict_no_claim():
    study = json.loads((REPORT / "study.json").read_text())
    verdicts = json.loads((REPORT / "verdict.json").read_text())["claims"]
    repeats = json.loads((REPORT / "repeats.json").read_text())["repeats"]
    assert [repeat["seed_block"] for repeat in repeats] == [1, 2, 3]
    seeds = [{run["seed"] for run in study["planned"]}, *(set(r["seeds"]) for r in repeats)]
    assert len(set.union(*seeds)) == sum(map(len, seeds))  # no two blocks share one
    for verdict in verdicts:
        words = {
            w["word"] for r in repeats for w in r["verdicts"] if w["claim"] == verdict["claim"]
        }
        assert words
        assert not {"supported", "refuted"} <= words | {verdict["word"]}
    table = (REPORT / "report.md").read_text()
    assert "The same matrix on other seeds: no claim contradicts itself" in table


def test_the_committed_baseline_is_of_the_matrix_that_ships_and_of_a_clean_tree():
    baseline = json.loads((BASELINES / "upgrade-trl-1.16.0" / "baseline.json").read_text())
    assert baseline["matrix_hash"] == matrix_hash(load_matrix("upgrade").matrix, {})
    assert not baseline["made_of"]["is_dirty"]
    side = read_baseline(BASELINES / "upgrade-trl-1.16.0")
    assert {run.status for run in side.runs} == {Status.OK}
    assert side.packages["trl"] == "1.16.0"
    assert side.replay
