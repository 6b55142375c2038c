from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.baseline_card import Acknowledgements
from harness.baselines import read_acknowledgements, read_baseline, write_acknowledgements
from harness.compare.model import Acknowledged
from harness.compare.side import Side
from harness.errors import ConfigError
from harness.record import Status
from harness.shelf import add_entry, promote_study, provenance_of, remove_entry, save_study
from harness.store import Store
from tests.side_factory import make_run, make_side

COMMIT = "f" * 40
ENTRY = Acknowledged(what="sft-*:loss", reason="why", version="trl 1.17.0")


class Desk:
    """A study with records, what is read of it, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "baselines"
        self.study = folder / "upgrade"
        self.side = make_side()
        self.told: list[str] = []
        shutil.copytree(Path(__file__).parent / "data" / "format-1", self.study)
        self.record(COMMIT, False)

    def record(self, commit: str | None, is_dirty: bool | None, runs: str = "*") -> None:
        for path in self.study.glob(f"runs/{runs}/attempt-1/environment.json"):
            data = json.loads(path.read_text())
            data["harness"] = {"version": "0.1.0", "commit": commit, "is_dirty": is_dirty}
            path.write_text(json.dumps(data))

    def read(self, path: Path) -> Side:
        assert path == self.study
        return self.side

    def save(self, name: str | None = None) -> Path:
        return save_study(self.study, name, self.home, self.read, self.told.append)

    def promote(self, name: Path, **options: bool) -> Path:
        return promote_study(self.study, str(name), self.read, self.told.append, **options)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_study_becomes_a_baseline_named_after_matrix_and_release(desk):
    folder = desk.save()
    assert folder == desk.home / "upgrade-trl-1.16.0"
    assert read_baseline(folder) == desk.side
    assert desk.told == []


def test_a_name_that_is_taken_points_to_promote(desk):
    desk.save()
    with pytest.raises(ConfigError, match="harness baseline promote"):
        desk.save()


@pytest.mark.parametrize("name", ["../x", ".hidden", "a b", ""])
def test_a_name_that_leaves_its_folder_is_refused(desk, name):
    if not name:
        assert desk.save(name).name == "upgrade-trl-1.16.0"
        return
    with pytest.raises(ConfigError, match="expected letters"):
        desk.save(name)


def test_a_study_in_which_nothing_ended_ok_is_no_baseline(desk):
    desk.side = make_side(runs=(make_run(status=Status.CRASHED), make_run(status=None)))
    with pytest.raises(ConfigError, match="no run of"):
        desk.save()


def test_what_would_keep_a_study_from_promotion_is_told_when_it_is_saved(desk):
    desk.record(COMMIT, True)
    desk.side = make_side(runs=(make_run(), make_run("sft-plain.lora-r1.s0", status=Status.NAN)))
    desk.save()
    assert len(desk.told) == 2
    assert "uncommitted changes" in desk.told[0]
    assert "sft-plain.lora-r1.s0 (nan)" in desk.told[1]


def test_a_folder_of_this_machine_is_told(desk):
    desk.side = make_side(runs=(make_run(config={"model": f"{Path.cwd()}/model"}),))
    desk.save()
    assert "folder of this machine" in desk.told[0]


def test_promotion_replaces_the_side_and_retires_what_it_took_in(desk):
    folder = desk.save()
    later = ENTRY.model_copy(update={"version": "trl 1.18.0"})
    write_acknowledgements(folder, Acknowledgements(acknowledged=(ENTRY, later)))
    desk.side = make_side(label="TRL 1.17.0", packages={"trl": "1.17.0"})
    desk.promote(folder)
    assert read_baseline(folder) == desk.side
    accepted = read_acknowledgements(folder)
    assert (accepted.acknowledged, accepted.retired) == ((later,), (ENTRY,))
    assert len(desk.told) == 1


def test_a_refused_promotion_changes_nothing_and_says_everything(desk):
    folder = desk.save()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    desk.record(COMMIT, True)
    desk.side = make_side(matrix_hash="d" * 64, platform={"cpu_model": "Other"})
    with pytest.raises(ConfigError) as found:
        desk.promote(folder)
    assert len(found.value.problems) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_one_dirty_run_makes_the_study_dirty(desk):
    desk.record("a" * 40, True, "sft-micro.full*")
    made_of = provenance_of(Store(desk.study))
    assert made_of.is_dirty is True
    assert made_of.commits == ("a" * 40, COMMIT)


def test_a_run_whose_tree_is_unknown_makes_the_study_unknown(desk):
    desk.record(COMMIT, None, "sft-micro.full*")
    assert provenance_of(Store(desk.study)).is_dirty is None


def test_no_study_is_refused(desk, tmp_path):
    desk.study = tmp_path / "none"
    with pytest.raises(ConfigError, match="holds no study"):
        desk.save()


def test_an_acknowledgement_takes_the_place_of_the_same_one(desk):
    folder = desk.save()
    add_entry(folder, ENTRY)
    kept = add_entry(folder, ENTRY.model_copy(update={"reason": "better said"}))
    assert [e.reason for e in kept.acknowledged] == ["better said"]
    assert read_acknowledgements(folder) == kept


def test_an_acknowledgement_is_taken_back(desk):
    folder = desk.save()
    add_entry(folder, ENTRY)
    add_entry(folder, ENTRY.model_copy(update={"version": "trl 1.18.0"}))
    assert len(remove_entry(folder, ENTRY.what, "trl 1.18.0").acknowledged) == 1
    assert remove_entry(folder, ENTRY.what).acknowledged == ()
    with pytest.raises(ConfigError, match="expected one of none"):
        remove_entry(folder, ENTRY.what)
