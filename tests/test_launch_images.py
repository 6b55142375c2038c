"""Is an image fit: what it says of itself, and whether it can write where the study is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.launch.engine import Order
from harness.launch.images import Looked, is_local, look
from harness.store import Store
from tests.fake_engine import TELLS, FakeEngine, ended

CPU = "lora-harness:cpu"


def touch(order: Order) -> None:
    """What the probing container does: write the file whose name it is given."""
    if order.command[-1]:
        Path(order.command[-1]).touch()


@pytest.fixture
def engine() -> FakeEngine:
    """An engine with an image that is fit."""
    return FakeEngine(starts_as=ended(0), prints=TELLS.encode(), on_start=touch)


def look_at(engine: FakeEngine, study: Path | None = None, name=CPU, trl=None) -> Looked:
    return look(engine.connect, name, trl, study, {"label": "value"})


def refusal(engine: FakeEngine, study: Path | None = None, name=CPU, trl=None) -> str:
    with pytest.raises(MachineError) as caught:
        look_at(engine, study, name, trl)
    assert engine.is_away or engine.containers == {}, "the probe stayed"
    return str(caught.value)


def test_a_fit_image_says_what_it_holds_and_the_probe_leaves_nothing(engine, tmp_path):
    found = look_at(engine, tmp_path, trl="1.16.0")
    assert found.packages["trl"] == "1.16.0"
    assert (found.engine, found.image.digest) == ("docker 0.0", "me/harness@sha256:bb")
    assert not found.pids_are_local  # a fake's process is none of this machine
    assert list(tmp_path.iterdir()) == []
    [order] = engine.orders
    assert engine.removed == [order.name]
    assert order.labels == {"label": "value"}
    assert order.writable == [tmp_path]
    assert (order.network, order.readable, order.image) == ("none", (), "sha256:aa")
    assert order.user == f"{os.getuid()}:{os.getgid()}"


def test_without_a_study_nothing_is_mounted(engine):
    look_at(engine)
    assert engine.orders[0].writable == []


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("lora-harness:cuda", "`make image`"),
        ("lora-harness:cpu-peft-0.19.0", "`make image-cpu PEFT=0.19.0`"),
        ("lora-harness:cpu-trl-1.14.2", "`make image-cpu TRL=1.14.2`"),
        ("me/harness:1", "`make image` or `make image-cpu`"),
    ],
)
def test_an_image_that_is_not_there_comes_with_the_command_that_builds_it(engine, name, command):
    said = refusal(engine, name=name)
    assert f"no image {name}" in said
    assert command in said


def test_an_image_of_another_harness_is_refused_with_both_versions(engine):
    engine.prints = json.dumps(json.loads(TELLS) | {"harness": {"version": "0.0.9"}}).encode()
    assert "holds harness 0.0.9, and this is" in refusal(engine)


def test_an_image_without_the_asked_release_is_refused_with_both_releases(engine):
    said = refusal(engine, trl="1.14.2")
    assert "holds TRL 1.16.0, expected 1.14.2" in said
    assert "`make image-cpu TRL=1.14.2`" in said


@pytest.mark.parametrize(
    ("state", "prints"), [(ended(127), b""), (ended(0), b"hello"), (ended(0), b'{"packages": {}}')]
)
def test_an_image_that_is_not_ours_is_told_from_one_that_is(engine, state, prints):
    engine.starts_as, engine.prints = state, prints
    engine.complains = b"sh: harness: not found"
    said = refusal(engine)
    assert "does not say what it holds" in said
    assert "harness: not found" in said


def test_a_folder_that_the_container_can_not_write_is_told_in_the_shell_s_words(engine, tmp_path):
    engine.starts_as = ended(9)
    engine.complains = b"touch: cannot touch: Permission denied"
    said = refusal(engine, tmp_path)
    assert "can't write to the study's folder" in said
    assert "Permission denied" in said
    assert "--output-dir" in said


def test_an_engine_elsewhere_is_found_out_by_what_does_not_arrive(engine, tmp_path):
    engine.on_start = lambda order: None
    assert "does not arrive here" in refusal(engine, tmp_path)


def test_an_engine_that_goes_away_meanwhile_asks_for_the_same_command_again(engine):
    def leave(order: Order) -> None:
        engine.is_away = True

    engine.on_start = leave
    said = refusal(engine)
    assert "stopped answering" in said
    assert "run the same command" in said


def test_an_engine_that_would_not_start_it_is_quoted(engine):
    engine.refuses = "no space left on device"
    assert "would not start a container of lora-harness:cpu: no space left" in refusal(engine)


def test_a_name_that_the_engine_does_not_take_is_its_own_words(engine):
    assert "refused: invalid reference format" in refusal(engine, name="Me/Harness:1")


def test_a_study_s_next_command_sweeps_the_file_of_a_probe_that_was_cut_short(engine, tmp_path):
    look_at(engine, tmp_path)
    left = Path(engine.orders[0].command[-1])
    left.touch()
    Store(tmp_path).sweep()
    assert not left.exists()


def test_a_process_of_this_machine_is_one_whose_cgroup_names_the_container():
    pid = os.getpid()
    assert not is_local(pid, "0123456789abcdef-of-no-container")
    assert not is_local(None, "")
    assert not is_local(2**22 + 1, "x")
