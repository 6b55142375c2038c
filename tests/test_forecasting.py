"""`harness forecast` as a person types it: a file or a study, exit codes, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import run
from harness.forecasting import forecast
from harness.forecasts import FILE, read_forecasts, write_forecasts
from tests.test_scorecard import estimate, forecasts
from tests.test_study_forecast import make_store


def typed(*words: str) -> Result:
    return CliRunner().invoke(forecast, list(words), standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize("words", [(), ("runs.yaml", "--study", "study")])
def test_a_file_or_a_study_and_not_both(words, capfd):
    assert run(("forecast", *words)) == 2
    assert "expected a FILE of runs, or --study STUDY alone" in capfd.readouterr().err


def test_a_folder_without_a_study_is_refused(tmp_path, capfd):
    assert run(("forecast", "--study", str(tmp_path))) == 2
    assert "holds no study" in capfd.readouterr().err


def test_a_studys_arms_are_forecast_anew_and_kept(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    write_forecasts(store, forecasts({("sft-micro", "full"): (estimate("rss", 80),)}))
    done = typed("--study", str(store.root))
    assert done.exit_code == 0
    assert "Not forecast: 1 arm (sft-micro.full: its shape is not in the catalog)." in done.output
    (kept,) = read_forecasts(store)
    assert [arm.forecast for arm in kept.arms] == [None]


def test_json_has_a_line_an_arm(tmp_path):
    store = make_store(tmp_path, source="somebody/model")
    done = typed("--study", str(store.root), "--json")
    (line,) = [json.loads(text) for text in done.output.splitlines() if text.startswith("{")]
    assert (line["pair"], line["arm"], line["device"]) == ("sft-micro", "full", "cpu")


def test_a_study_of_which_nothing_can_be_forecast_says_what_was_expected(tmp_path: Path, capfd):
    store = make_store(tmp_path, device="GPU-without-a-size")
    assert run(("forecast", "--study", str(store.root))) == 2
    assert "has no arm whose memory could be forecast" in capfd.readouterr().err
    assert not (store.root / FILE).exists()
