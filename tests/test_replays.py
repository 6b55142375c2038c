"""A study's replay is read back as it was written, and one that is damaged or newer is refused."""

from __future__ import annotations

import json

import pytest

from harness.errors import NewerFormatError, StudyError
from harness.replays import FILE, FORMAT, Replay, read_replay
from harness.store import Store

VALUES = {"reward/a/x": 1.0, "reward/a/y": None, "token/ids/x": "[1, 2]", "data/sft/rows": 3}


def test_values_keep_their_kinds(tmp_path):
    replay = Replay(values=VALUES, fingerprint="f", notes=("a note",))
    Store(tmp_path).write_json(tmp_path / FILE, replay.model_dump(mode="json"))
    found = read_replay(tmp_path)
    assert found == VALUES
    assert [type(v) for v in found.values()] == [type(v) for v in VALUES.values()]


def test_a_study_without_a_replay_has_none(tmp_path):
    assert read_replay(tmp_path) == {}


def test_a_replay_that_is_torn_is_an_error_with_what_to_do(tmp_path):
    (tmp_path / FILE).write_text('{"format": 1, "val')
    with pytest.raises(StudyError, match="set it aside or restore it"):
        read_replay(tmp_path)


def test_a_newer_replay_is_not_called_damaged(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"format": FORMAT + 1, "surprise": True}))
    with pytest.raises(NewerFormatError, match="upgrade"):
        read_replay(tmp_path)
