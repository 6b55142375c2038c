"""The published report of findings-cpu is of the matrix that ships, and its controls came out."""

from __future__ import annotations

import json
from pathlib import Path

from harness.claim_spec import EXPECTED
from harness.matrix import load_matrix, margins_hash, matrix_hash

REPORT = Path(__file__).parent.parent / "reports" / "findings-cpu"


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
