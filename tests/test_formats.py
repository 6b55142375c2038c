"""Every file format that was ever written can still be read: one committed sample of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.samples import FORMAT
from harness.store import Store
from harness.view import load_view

SAMPLES = Path(__file__).parent / "data"


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_study_of_every_format_is_read_whole(number):
    view = load_view(Store(SAMPLES / f"format-{number}"))
    assert view.problems == ()
    assert not view.post_hoc
    assert len(view.runs) == 4
    assert view.forecasts is not None
    assert {arm.pair for arm in view.forecasts.arms} == set(view.matrix.pairs)
    for run in view.runs:
        assert run.summary is not None
        assert run.summary.final_value is not None
        assert run.summary.peak_bytes["rss"]["run"]
        assert run.steps
