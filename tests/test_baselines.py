from __future__ import annotations

import gzip
import json
import math
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.baseline_card import Acknowledgements, Provenance
from harness.baselines import (
    ACKNOWLEDGED,
    SIDE,
    STEPS,
    SUMMARY,
    find_baseline,
    list_baselines,
    open_side,
    read_acknowledgements,
    read_baseline,
    read_summary,
    require_baseline,
    write_acknowledgements,
    write_baseline,
)
from harness.compare.model import Acknowledged
from harness.compare.side import Side
from harness.errors import ConfigError, NewerFormatError, StudyError
from harness.grade import MeasurementGrade
from tests.side_factory import make_probe, make_run, make_side

CLEAN = Provenance(study="upgrade", commits=("f" * 40,), is_dirty=False)
ENTRY = Acknowledged(
    what="sft-*:loss", reason="r", version="trl 1.17.0", utc="2026-01-02T03:04:05Z"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_baseline(tmp_path / "upgrade-trl-1.16.0", make_side(), CLEAN)
    return tmp_path / "upgrade-trl-1.16.0"


number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
word = st.text(string.ascii_letters + "/_.", min_size=1, max_size=12)
series = st.dictionaries(word, st.lists(number, max_size=6).map(tuple), max_size=3)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
scalar = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)


@st.composite
def sides(draw: st.DrawFn) -> Side:
    seeds = draw(st.lists(st.integers(0, 9), max_size=3))
    runs = tuple(
        make_run(
            f"sft-plain.lora.s{seed}",
            series=draw(series),
            tokens=draw(st.lists(number, max_size=4).map(tuple)),
            config=draw(st.dictionaries(text, plain, max_size=3)),
            probe=draw(st.sampled_from([None, make_probe()])),
            reason=draw(st.none() | text),
        )
        for seed in seeds
    )
    replay = draw(st.dictionaries(text, scalar | text, max_size=3))
    return make_side(runs=runs, replay=replay, label=draw(text))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(side=sides())
def test_a_side_comes_back_as_it_was_written(tmp_path, side):
    write_baseline(tmp_path / "b", side, CLEAN)
    assert read_baseline(tmp_path / "b") == side


def test_grades_of_memory_stay_and_a_run_without_any_is_written_as_before(tmp_path):
    grade = MeasurementGrade(grade="D", reasons=("Contaminated.",))
    side = make_side(runs=(make_run(grades={"nvml-device": grade}),))
    write_baseline(tmp_path / "b", side, CLEAN)
    assert read_baseline(tmp_path / "b") == side
    write_baseline(tmp_path / "c", make_side(), CLEAN)
    assert "grades" not in (tmp_path / "c" / SIDE).read_text()


def test_an_argument_that_is_infinite_stays_so(tmp_path):
    side = make_side(runs=(make_run(config={"clip": math.inf, "floor": -math.inf}),))
    write_baseline(tmp_path / "b", side, CLEAN)
    assert read_baseline(tmp_path / "b") == side


def test_the_same_side_gives_the_same_bytes(tmp_path):
    for name in ("one/b", "two/b"):
        write_baseline(tmp_path / name, make_side(), CLEAN)
    for name in (SUMMARY, SIDE, STEPS, ACKNOWLEDGED):
        assert (tmp_path / "one/b" / name).read_bytes() == (tmp_path / "two/b" / name).read_bytes()


def test_what_is_reviewed_is_short_and_says_what_it_was_made_of(folder):
    shown = json.loads((folder / SUMMARY).read_text())
    assert shown["made_of"] == {"study": "upgrade", "commits": ["f" * 40], "is_dirty": False}
    assert shown["runs"]["sft-plain.full.s0"] == {
        "status": "ok",
        "metric": "nll",
        "final_value": 2.2,
        "first_loss": 2.0,
        "last_loss": 1.5,
        "steps": 3,
        "sha256": "3" * 64,
        "growth_bytes": {"rss": 2**20, "nvml-device": None},
    }
    assert "grad_norm" not in (folder / SIDE).read_text()
    assert b"grad_norm" in gzip.decompress((folder / STEPS).read_bytes())


@pytest.mark.parametrize("name", [SIDE, STEPS])
@pytest.mark.parametrize("how", ["edited", "cut", "missing"])
def test_a_file_that_is_not_as_it_was_written_is_named(folder, name, how):
    content = (folder / name).read_bytes()
    changed = {"edited": content[:40] + b"9" + content[41:], "cut": content[:-5], "missing": None}[
        how
    ]
    if changed is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(changed)
    with pytest.raises(StudyError, match=name) as found:
        read_baseline(folder)
    assert found.value.exit_code == 8
    assert "restore it" in str(found.value)


def test_every_damaged_file_is_named_at_once(folder):
    (folder / SIDE).unlink()
    (folder / STEPS).write_bytes(b"")
    with pytest.raises(StudyError) as found:
        read_baseline(folder)
    assert len(found.value.problems) == 2


def test_an_edited_summary_is_named(folder):
    path = folder / SUMMARY
    path.write_text(path.read_text().replace("Some CPU", "Same CPU"))
    with pytest.raises(StudyError, match=r"baseline\.json: does not match its checksum"):
        read_summary(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": "x"}'])
@pytest.mark.parametrize("name", [SUMMARY, ACKNOWLEDGED])
def test_a_torn_file_is_named(folder, name, content):
    if (name, content) == (ACKNOWLEDGED, '{"format": 1}'):
        return  # it acknowledges nothing, and is whole
    (folder / name).write_text(content)
    with pytest.raises(StudyError, match=name):
        (read_summary if name == SUMMARY else read_acknowledgements)(folder)


@pytest.mark.parametrize("name", [SUMMARY, ACKNOWLEDGED])
def test_a_newer_format_asks_for_an_upgrade(folder, name):
    path = folder / name
    path.write_text(path.read_text().replace('"format": 1', '"format": 2', 1))
    with pytest.raises(NewerFormatError, match="format 2"):
        (read_summary if name == SUMMARY else read_acknowledgements)(folder)


def test_a_newer_side_asks_for_an_upgrade(tmp_path):
    write_baseline(tmp_path / "b", make_side(format=99), CLEAN)
    with pytest.raises(NewerFormatError, match="format 99"):
        read_baseline(tmp_path / "b")


def test_what_was_acknowledged_outlives_a_new_side(folder):
    write_acknowledgements(folder, Acknowledgements(acknowledged=(ENTRY,)))
    write_baseline(folder, make_side(label="TRL 1.17.0"), CLEAN)
    assert read_acknowledgements(folder).acknowledged == (ENTRY,)
    assert read_baseline(folder).label == "TRL 1.17.0"


def test_a_baseline_is_found_by_name_and_by_path(folder, tmp_path):
    homes = (tmp_path / "none", tmp_path)
    assert find_baseline("upgrade-trl-1.16.0", homes) == folder
    assert find_baseline(str(folder), ()) == folder
    assert find_baseline("results/upgrade", homes) is None
    assert find_baseline("..", homes) is None
    assert find_baseline("x" * 5000, homes) is None
    assert list_baselines(homes) == {"upgrade-trl-1.16.0": folder}


def test_an_unknown_name_is_refused_with_the_nearest(folder, tmp_path):
    with pytest.raises(ConfigError, match="did you mean"):
        require_baseline("upgrade-trl-1.6.0", (tmp_path,))


def test_a_command_takes_a_study_or_a_baseline(folder, tmp_path):
    write_acknowledgements(folder, Acknowledgements(acknowledged=(ENTRY,)))
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")

    def read_study(path: Path) -> Side:
        return make_side(label=f"study {path.name}")

    assert open_side(str(folder), read_study) == (make_side(), (ENTRY,))
    assert open_side(str(study), read_study)[0].label == "study study"


def test_a_misspelt_baseline_is_answered_with_the_nearest(tmp_path, monkeypatch):
    write_baseline(tmp_path / "benchmarks" / "baselines" / "a-name-of-its-own", make_side(), CLEAN)
    monkeypatch.chdir(tmp_path)

    def read_study(path: Path) -> Side:
        raise AssertionError(path)

    expected = r"neither a study's folder .*did you mean 'a-name-of-its-own'"
    with pytest.raises(ConfigError, match=expected):
        open_side("a-name-of-its-won", read_study)
