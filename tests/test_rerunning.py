"""Cells trained again: only those, on other seeds, beside the studies, by what launches each side."""

from __future__ import annotations

import pytest

from harness.compare.reading import read_side
from harness.errors import ConfigError, MachineError
from harness.launch.local import LocalLauncher
from harness.progress import Quiet
from harness.releases import installed_versions
from harness.rerunning import local_launcher, rerun_cells
from tests.comparison_sides import PACKAGES, make_side
from tests.comparison_studies import write_folder
from tests.fake_worker import COMMAND


def fake_launcher(_side):
    return LocalLauncher(is_cold=True, command=COMMAND)


@pytest.mark.slow
def test_only_the_cells_are_trained_again_on_the_next_block_of_seeds(tmp_path):
    folders = [write_folder(tmp_path / name, seeds=(0, 1)) for name in ("base", "candidate")]
    again = rerun_cells(folders, ["sft-micro.lora"], Quiet, fake_launcher)
    for name, side in zip(("base", "candidate"), again, strict=True):
        assert (tmp_path / f"{name}-again" / "study.json").is_file()
        assert {(r.pair, r.arm) for r in side.runs} == {("sft-micro", "lora")}
        assert sorted(r.seed for r in side.runs) == [10_000, 10_001]
        assert all(r.series["loss"] for r in side.runs)
    assert read_side(folders[0]).runs_count == 8


def test_what_is_no_study_cannot_be_trained_again(tmp_path):
    folder = write_folder(tmp_path / "base")
    with pytest.raises(ConfigError, match="is no study"):
        rerun_cells([folder, tmp_path / "baseline"], ["sft-micro.lora"], Quiet, fake_launcher)
    assert not (tmp_path / "base-again").exists()


def test_another_release_is_refused_with_what_to_do():
    with pytest.raises(MachineError, match=r"trl 0.1.0 there.*--seed-block 1"):
        local_launcher(make_side(packages={**PACKAGES, "trl": "0.1.0"}))


def test_what_is_installed_is_launched_here():
    side = make_side(packages={**PACKAGES, **installed_versions()})
    assert isinstance(local_launcher(side), LocalLauncher)
