"""The launcher `docker`: what a run's container gets, and that nothing is left of it."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.launch import Launch
from harness.launch.docker import (
    COMMAND,
    STUDY_LABEL,
    SUPERVISOR_LABEL,
    DockerLauncher,
    end_left_over,
)
from harness.launch.docker_engine import connect
from harness.launch.engine import EngineGone, Order
from harness.record import Container
from harness.settings import Model, Parallel
from tests.fake_engine import TELLS, FakeEngine, ended
from tests.fake_worker import make_attempt
from tests.plan_matrix import run_of

LIMIT = 3 * 2**30
TOKEN = "hf_canarycanarycanary"


@pytest.fixture
def engine() -> FakeEngine:
    """An engine with a fit image, whose containers end at once."""
    return FakeEngine(starts_as=ended(0), prints=TELLS.encode())


@pytest.fixture
def launcher(engine: FakeEngine) -> DockerLauncher:
    """The launcher, without the process that outlives it."""
    return DockerLauncher("lora-harness:cpu", connect=engine.connect)


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return make_attempt(tmp_path / "runs" / "pair.arm.s0-0f")


def order_of(launcher: DockerLauncher, engine: FakeEngine, attempt: Path, launch: Launch):
    handle = launcher.start(attempt, launcher.prepare(attempt, launch))
    handle.close()
    return engine.orders[-1]


def test_the_container_has_its_run_s_folder_and_what_it_reads(launcher, engine, attempt, tmp_path):
    model = tmp_path / "hub" / "models--a--b" / "snapshots" / "c0ffee"
    model.mkdir(parents=True)
    launch = Launch(places={"a/b": str(model), "gone": str(tmp_path / "gone")})
    order = order_of(launcher, engine, attempt, launch)
    cache = tmp_path / "cache"
    # Converted rows and toys: datasets locks its cache even to read it.
    assert order.writable == [attempt.parent, cache / "datasets", cache / "toys"]
    assert all(folder.is_dir() for folder in order.writable)
    # A snapshot's files are links into the folder above it.
    assert order.readable == [tmp_path / "hub" / "models--a--b", cache]
    assert order.command == [*COMMAND, str(attempt)]
    assert (order.image, order.network) == ("sha256:aa", "none")


def test_the_limit_becomes_the_container_s_and_stands_in_both_files(launcher, engine, attempt):
    launch = launcher.prepare(attempt, Launch(memory_limit_bytes=LIMIT, cores=(1,)))
    assert launch.memory_limit_bytes is None  # the worker sets none for itself
    container = launch.container
    assert (container.memory_limit_bytes, container.digest) == (LIMIT, "me/harness@sha256:bb")
    assert container.image == "lora-harness:cpu"
    launcher.start(attempt, launch).close()
    order = engine.orders[-1]
    assert (order.memory_limit_bytes, order.cores, order.gpus) == (LIMIT, (1,), ())


def test_turns_and_links_on_the_way_to_a_folder_stay_outside(
    launcher, engine, attempt, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HARNESS_CACHE", "../cache")
    winding = Path("..") / attempt.relative_to(tmp_path)
    launch = launcher.prepare(winding, Launch(places={"a/b": "../link"}))
    assert launch.places == {"a/b": str(tmp_path / "model")}
    launcher.start(winding, launch).close()
    order = engine.orders[-1]
    assert order.command[-1] == str(attempt)
    assert order.writable[0] == attempt.parent
    assert order.readable == [tmp_path / "model", tmp_path / "cache"]
    assert order.environment["HARNESS_CACHE"] == str(tmp_path / "cache")


def test_a_model_folder_without_its_full_path_is_refused(launcher, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    spec = run_of("sft-8b.full")
    spec = spec.model_copy(update={"model": Model(source="model")})
    with pytest.raises(MachineError, match=f"write {tmp_path / 'model'}"):
        launcher.check([spec])


def test_trackio_has_its_folder_where_a_run_logs_there(
    launcher, engine, attempt, tmp_path, monkeypatch
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "study" / "trackio"))
    order = order_of(launcher, engine, attempt, Launch())
    assert tmp_path / "study" / "trackio" not in order.writable
    attempt = make_attempt(tmp_path / "runs" / "logging", report_to=["trackio"])
    order = order_of(launcher, engine, attempt, Launch())
    assert tmp_path / "study" / "trackio" in order.writable
    assert (tmp_path / "study" / "trackio").is_dir()


def test_two_attempts_have_two_names(launcher, engine, attempt):
    names = {launcher.prepare(attempt, Launch()).container.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("harness-pair.arm.s0-0f-1-") for name in names)


def test_gpus_go_by_their_uuids_and_a_parallel_run_by_its_own_program(launcher, engine, attempt):
    gpus = ("GPU-1", "GPU-2")
    launch = Launch(gpus=gpus, parallel=Parallel(processes=2, strategy="ddp"))
    order = order_of(launcher, engine, attempt, launch)
    assert order.gpus == gpus
    assert order.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert order.command[:3] == ["python", "-m", "harness.worker.distributed"]


def test_no_token_and_nothing_of_the_supervisor_s_surroundings_gets_in(
    launcher, engine, attempt, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)
    monkeypatch.setenv("SOME_SECRET", TOKEN)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    order = order_of(launcher, engine, attempt, Launch())
    assert TOKEN not in json.dumps(dict(order.environment))
    assert order.environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert order.environment["HF_HUB_OFFLINE"] == "1"


def test_a_container_that_does_not_start_is_removed_and_the_refusal_explained(
    launcher, engine, attempt
):
    launch = launcher.prepare(attempt, Launch(gpus=("GPU-1",)))
    engine.refuses = 'could not select device driver "" with capabilities: [[gpu]]'
    with pytest.raises(MachineError, match="install the NVIDIA Container Toolkit"):
        launcher.start(attempt, launch)
    assert engine.containers == {}


def test_an_engine_that_goes_away_before_a_run_asks_for_the_same_command(launcher, engine, attempt):
    launch = launcher.prepare(attempt, Launch())

    def leave(order: object) -> None:
        raise EngineGone("broken pipe")

    engine.on_start = leave
    with pytest.raises(MachineError, match="what is finished is kept"):
        launcher.start(attempt, launch)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the SDK's, where nothing answers
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine_is_one_sentence_that_says_where_it_was_looked_for(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(MachineError, match=r"no Docker engine answers at unix:///nowhere"):
        connect()
    gc.collect()


def test_without_the_sdk_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(MachineError, match="needs Docker's Python SDK"):
        connect()


def test_what_a_killed_supervisor_left_is_ended_and_what_it_printed_kept(engine, tmp_path):
    container = Container(name="c", engine="e", image="i", image_id="i", user="0:0")
    engine.containers["c"] = replace(engine.starts_as, is_running=True, exit_code=None)
    engine.prints = b"step 3\n"
    end_left_over(container, tmp_path, engine.connect)
    assert engine.signals == [("c", signal.SIGKILL)]
    assert engine.followed == [False], "it would wait for a container that can't be killed"
    assert engine.removed == ["c"]
    assert (tmp_path / "stdout.log").read_text() == "step 3\n"


def test_what_the_reaper_already_removed_keeps_the_logs_that_are_there(engine, tmp_path):
    (tmp_path / "stdout.log").write_text("step 3\n")
    container = Container(name="c", engine="e", image="i", image_id="i", user="0:0")
    end_left_over(container, tmp_path, engine.connect)
    engine.is_away = True
    end_left_over(container, tmp_path, engine.connect)
    assert (tmp_path / "stdout.log").read_text() == "step 3\n"
    assert engine.removed == []


def test_the_probe_of_a_study_carries_its_name_so_that_a_later_command_finds_it(
    launcher, engine, attempt
):
    study = attempt.parents[2]
    engine.on_start = lambda order: Path(order.command[-1]).touch()
    launcher.check([], study)
    assert engine.orders[0].labels[STUDY_LABEL] == str(study)


REAP = """
import sys
from harness.launch import reaper
from tests.fake_engine import RUNNING, FakeEngine
from harness.launch.engine import Order
names = ("stuck", "mine")
engine = FakeEngine(orders=[Order(n, "i", (), "0:0", labels={"l": "v"}) for n in names],
                    containers=dict.fromkeys(names, RUNNING), stuck={"stuck"})
reaper.connect, reaper.PAUSE_S = engine.connect, 0.01
reaper.main()
print(engine.removed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("word", [b"", b"done"])
def test_the_reaper_waits_for_the_other_end_of_its_pipe(word):
    command = [sys.executable, "-c", REAP, "l", "v"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        out, _ = process.communicate(word, timeout=10)
    assert out.decode().strip() == "['mine']"


@pytest.mark.slow
def test_a_new_command_removes_what_one_left_whose_engine_was_away(engine, attempt, monkeypatch):
    study, other = attempt.parents[2], attempt.parents[1]
    engine.on_start = lambda order: Path(order.command[-1]).touch() if "sh" in order.command else 0
    for folder, name in ((study, "left"), (other, "of another study")):
        engine.orders.append(Order(name, "i", (), "0:0", labels={STUDY_LABEL: str(folder)}))
        engine.containers[name] = engine.starts_as
    with DockerLauncher("lora-harness:cpu", connect=engine.connect) as launcher:
        assert "left" in engine.containers  # no study was named: not one to look for
        launcher.check([], study)
    with launcher:
        assert list(engine.containers) == ["of another study"]
        launcher.start(attempt, launcher.prepare(attempt, Launch())).close()
        assert engine.orders[-1].labels[STUDY_LABEL] == str(study)


def test_every_container_of_a_supervisor_carries_its_label(launcher, engine, attempt):
    labels = order_of(launcher, engine, attempt, Launch()).labels
    assert labels["io.lora-harness.run"] == "pair.arm.s0-0f"
    probe, run = engine.orders
    assert probe.labels[SUPERVISOR_LABEL] == run.labels[SUPERVISOR_LABEL]
