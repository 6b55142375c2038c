"""`--launcher docker` on a real engine: the same records, told endings, and nothing that stays."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import MachineError
from harness.launch import Launch
from harness.launch.docker import STUDY_LABEL, DockerLauncher
from harness.measure.sealing import read_samples
from harness.record import Status, StepRow
from harness.store import Store
from tests.conftest import MATRIX
from tests.containers.boxes import fresh_name
from tests.containers.engine import daemon_pid, start_daemon
from tests.containers.fixtures import CANARY, OLDER_TRL
from tests.containers.prepare import Ready
from tests.fake_worker import make_attempt
from tests.repository_folder import repository
from tests.test_bench_killed import finished
from tests.waiting import wait_until

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parent.parent
KILLS = 6
NEWER_TRL = "1.16.0"
# A supervisor whose workers are the stand-in, which lies in the models' folder: that one is mounted.
SUPERVISOR = """
import os, sys
from pathlib import Path
from harness.bench import bench
from harness.launch.docker import DockerLauncher
from harness.plan import Request
from harness.progress import Lines
folder, image, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
program = ("python", os.environ["HARNESS_CACHE"] + "/fake_worker.py")
variables = [f"{k}={v}" for k, v in os.environ.items() if k.startswith("FAKE_")]
request = Request(
    matrix=str(folder / "tiny.yaml"),
    output_dir=folder / "study",
    grace_s=2.0,
    memory_limit_bytes=limit or None,
    renders_report=False,
    filters=tuple(sys.argv[4:]),
)
launcher = DockerLauncher(image, command=("env", *variables, *program))
sys.exit(bench(request, launcher, Lines()).exit_code)
"""


def harness(*words: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """The harness's command on this host, with a token in its surroundings."""
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        cwd=cwd,
        env=os.environ | {"HF_TOKEN": CANARY} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@dataclass
class Bench:
    """A study of stand-in workers in containers, and the engine that runs them."""

    ready: Ready
    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "study")

    def start(self, *cells: str, limit: int = 0, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(self.folder), self.ready.image, str(limit), *cells],
            env=os.environ | {"HARNESS_CACHE": str(self.folder / "cache")} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def run(self, *cells: str, limit: int = 0, **variables: str) -> tuple[int, str]:
        with self.start(*cells, limit=limit, **variables) as process:
            output, _ = process.communicate(timeout=200)
            return process.returncode, output

    def runs(self) -> list[str]:
        """Names of the containers that runs of this study are in."""
        return [name for name in self.containers() if not name.startswith("harness-probe-")]

    def containers(self) -> list[str]:
        """Names of this study's containers, running or not; the one that looks at the image too."""
        label = f"label={STUDY_LABEL}={self.store.root.resolve()}"
        words = ("ps", "--all", "--filter", label, "--format", "{{.Names}}")
        return self.ready.engine.docker(*words).splitlines()

    def steps(self) -> int:
        """Steps that all attempts have written."""
        files = self.store.root.glob("runs/*/attempt-*/steps.jsonl")
        return sum(len(file.read_bytes().splitlines()) for file in files)

    def statuses(self) -> dict[str, tuple[Status, str | None]]:
        """Each planned run's cell, with its status and why."""
        found = {}
        for run in self.store.read_study().planned:
            record = self.store.read_record(run.run_id)
            if record is not None:
                found[f"{run.pair}.{run.arm}.s{run.seed}"] = (record.status, record.reason)
        return found

    def attempts(self) -> int:
        return len(list(self.store.root.glob("runs/*/attempt-*")))


@pytest.fixture
def bench(ready: Ready, tmp_path: Path) -> Bench:
    (tmp_path / "tiny.yaml").write_text(MATRIX)
    (tmp_path / "cache").mkdir()
    shutil.copy(ROOT / "tests" / "fake_worker.py", tmp_path / "cache")
    return Bench(ready, tmp_path)


def losses(study: Path) -> dict[str, list[Any]]:
    """Each run's step losses and gradient norms, all digits."""
    found = {}
    for file in study.glob("runs/*/attempt-1/steps.jsonl"):
        rows = [StepRow.model_validate_json(line) for line in file.read_bytes().splitlines()]
        found[file.parent.parent.name] = [
            (r.step, r.logs["loss"], r.logs["grad_norm"]) for r in rows
        ]
    return found


def test_a_run_has_the_same_record_in_a_container_as_in_a_process(ready: Ready, tmp_path: Path):
    words = ("bench", "-m", "cpu", "--seeds", "0", "--set", "max_steps=3", "--no-report")
    words += ("--filter", "grpo-*.lora*")
    local, boxed = tmp_path / "local", tmp_path / "boxed"
    done = harness(*words, "-o", str(local))
    assert done.returncode == 0, done.stderr
    done = harness(*words, "-o", str(boxed), "--launcher", "docker", "--image", ready.image)
    assert done.returncode == 0, done.stderr
    assert losses(boxed) == losses(local)
    assert len(losses(local)) == 1
    here, there = Store(local), Store(boxed)
    image = json.loads(ready.engine.docker("image", "inspect", ready.image))[0]
    for run in there.read_study().planned:
        record, as_process = there.read_record(run.run_id), here.read_record(run.run_id)
        assert record is not None
        assert as_process is not None
        assert there.verify(run.run_id) == []
        [attempt] = record.attempts
        assert (record.status, attempt.launcher) == (Status.OK, "docker")
        assert attempt.container is not None
        assert attempt.container.image_id == image["Id"]
        assert attempt.container.image == ready.image
        assert record.files.keys() == as_process.files.keys()
        assert record.result is not None
        assert as_process.result is not None
        assert record.result.parameters == as_process.result.parameters
        values = [p.value for p in record.result.evaluations]
        assert values == [p.value for p in as_process.result.evaluations]
        # Measured from outside: the engine's init and the worker below it.
        assert record.sampler is not None
        assert record.sampler.samples > 20
        folder = there.attempts(run.run_id)[0]
        memory = read_samples(folder)
        assert memory.processes.max() >= 2
        assert memory.rss_bytes.max() > 400 * 2**20
        environment = json.loads((folder / "environment.json").read_text())
        assert environment["platform"]["container"] == "container"
    files = [path for path in boxed.rglob("*") if path.is_file()]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_run_reads_a_mapped_dataset_and_keeps_what_it_converts(ready: Ready, tmp_path: Path):
    rows = [{"question": f"{i} + {i}?", "answer": f"so\n#### {2 * i}"} for i in range(24)]
    repository(tmp_path / "rows", rows, rows[:8])
    matrix = MATRIX.replace("{name: micro-arithmetic,", "{name: openai/gsm8k,")
    (tmp_path / "mapped.yaml").write_text(matrix)
    words = ("bench", "-m", "../mapped.yaml", "--filter", "grpo-micro.lora-r1.s0", "--no-report")
    words += ("--map", "openai/gsm8k=../rows", "-o", "../work/study", "--launcher", "docker")
    (tmp_path / "work").mkdir()
    variables = {"HARNESS_CACHE": "../work/cache"}
    done = harness(*words, "--image", ready.image, cwd=tmp_path / "work", **variables)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "work" / "cache" / "datasets").rglob("*.arrow"))
    [attempt] = (tmp_path / "work" / "study").glob("runs/*/attempt-1")
    launch = json.loads((attempt / "launch.json").read_text())
    assert launch["places"] == {"openai/gsm8k": str(tmp_path / "rows")}


def test_a_run_s_container_may_do_no_more_than_it_needs_and_knows_no_token(
    bench: Bench, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    cell = "sft-micro.full.s0"
    with bench.start(cell, limit=2**30, FAKE_STEP_S="1") as process:
        wait_until(bench.runs, 60)
        [name] = bench.runs()
        shown = bench.ready.engine.docker("inspect", name)
        process.communicate(timeout=100)
        assert process.returncode == 0
    [state] = json.loads(shown)
    host = state["HostConfig"]
    assert CANARY not in shown
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Init"]) == ("none", True, True)
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert not any(host[name] for name in ("Privileged", "Devices", "CapAdd", "Binds"))
    assert (host["Memory"], host["MemorySwap"]) == (2**30, 2**30)
    assert int(host["CpusetCpus"]) in os.sched_getaffinity(0)
    assert state["Config"]["User"] == f"{os.geteuid()}:{os.getegid()}"
    writable = [m["Source"] for m in state["Mounts"] if m["RW"]]
    [run] = bench.store.root.glob("runs/*")
    cache = bench.folder / "cache"
    assert sorted(writable) == sorted(map(str, (run, cache / "datasets", cache / "toys")))
    assert bench.containers() == []


def test_a_container_out_of_memory_is_oom_host_and_an_outcome(bench: Bench):
    cell = "sft-micro.full.s0"
    modes = json.dumps({cell: "oom"})
    code, output = bench.run(cell, limit=400 << 20, FAKE_MODES=modes)
    status, reason = bench.statuses()[cell]
    assert (code, status) == (3, Status.OOM_HOST), output
    assert reason == "the worker's container ran out of its limit of 400 MiB"
    assert bench.run(cell, limit=400 << 20)[0] == 3
    assert bench.attempts() == 1, "an outcome was tried again"
    assert bench.containers() == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("kill",), "the worker was ended by SIGKILL"),
        (("stop",), "the worker was ended by SIGTERM"),
        # Killed first; which of the two is seen is a matter of milliseconds.
        (("rm", "--force"), "removed by somebody else|ended by SIGKILL"),
    ],
)
def test_a_container_that_somebody_ends_has_crashed_and_the_same_command_completes_it(
    bench: Bench, words: Sequence[str], reason: str
):
    cell = "sft-micro.full.s0"
    with bench.start(cell, FAKE_MODES=json.dumps({cell: "hang"})) as process:
        wait_until(lambda: bench.steps() >= 2, 60)
        [name] = bench.runs()
        bench.ready.engine.docker(*words, name)
        output, _ = process.communicate(timeout=60)
    status, why = bench.statuses()[cell]
    assert (process.returncode, status) == (3, Status.CRASHED), output
    assert why is not None
    assert re.search(reason, why)
    assert bench.run(cell)[0] == 0
    assert bench.statuses()[cell] == (Status.OK, None)
    assert (bench.attempts(), bench.containers()) == (2, [])


def test_kills_of_the_supervisor_lose_nothing_run_nothing_twice_and_leave_no_container(
    bench: Bench,
):
    generator = random.Random(4)
    kills, once = 0, json.dumps({"sft-micro.full.s1": "crash-first"})
    while kills < KILLS:
        process = bench.start(FAKE_MODES=once, FAKE_STEP_S="1.0")
        time.sleep(generator.uniform(2.0, 9.0))
        if process.poll() is not None:
            break
        before = finished(bench.folder)
        process.kill()
        process.communicate()
        kills += 1
        assert before <= finished(bench.folder)
        wait_until(lambda: not bench.containers(), 30)
    bench.run()  # a run that crashed as asked is tried again by the next command
    code, output = bench.run()
    assert kills >= 3
    assert code == 0, output
    assert len(bench.statuses()) == 8
    assert set(bench.statuses().values()) == {(Status.OK, None)}
    for run in bench.store.read_study().planned:
        attempts = bench.store.attempts(run.run_id)
        with_result = [a for a in attempts if (a / "result.json").exists()]
        assert with_result == attempts[-1:], "a finished run was run again"
        assert bench.store.verify(run.run_id) == []
    assert bench.containers() == []


def test_a_stopped_supervisor_seals_its_runs_and_ends_their_containers(bench: Bench):
    with bench.start("sft-micro", FAKE_STEP_S="2") as process:
        wait_until(lambda: bench.steps() >= 1, 60)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert bench.containers() == []
    for folder in bench.store.root.glob("runs/*/attempt-1"):
        assert json.loads((folder / "attempt.json").read_text())["status"] == "cancelled"
    assert bench.run("sft-micro")[0] == 0


def test_two_images_with_two_releases_train_one_matrix_and_the_records_name_both(
    ready: Ready, older_image: str, tmp_path: Path
):
    newer = f"{ready.image}-trl-{NEWER_TRL}"
    ready.engine.docker(
        "tag", ready.image, newer
    )  # what `make image-cpu TRL=…` of the pinned one makes
    words = ("bench", "-m", "cpu", "--seeds", "0", "--set", "max_steps=2", "-o", str(tmp_path))
    words += ("--filter", "sft-steps", "--launcher", "docker", "--device", "cpu")
    words += ("--trl", OLDER_TRL, "--trl", NEWER_TRL)
    done = harness(*words)
    assert done.returncode == 0, done.stderr
    again = harness(*words, "--image", "no-such-{trl}:cpu")
    assert again.returncode == 0, f"finished studies need no image: {again.stderr}"
    for release, image in ((OLDER_TRL, older_image), (NEWER_TRL, newer)):
        study = tmp_path / f"trl-{release}"
        found = sorted(study.glob("runs/*/attempt-1"))
        assert len(found) == 2
        for folder in found:
            environment = json.loads((folder / "environment.json").read_text())
            attempt = json.loads((folder / "attempt.json").read_text())
            assert environment["packages"]["trl"] == release
            assert attempt["container"]["image"] == image
        report = (study / "report" / "report.md").read_text()
        assert release in report
        assert image.rpartition(":")[2] in report


@pytest.fixture
def other_image(ready: Ready):
    """The image with another version of the harness in it."""
    name = f"{fresh_name('other')}:cpu"
    where = "$(python -c 'import harness; print(*harness.__path__)')"
    edit = f"sed -i 's/^__version__ = .*/__version__ = \"0.0.9\"/' {where}/__init__.py"
    # Byte code there does not look whether its source has changed.
    dockerfile = f"FROM {ready.image}\nUSER 0\nRUN {edit} && rm {where}/__pycache__/__init__.*\n"
    command = [ready.engine.client, "build", "--network", "none", "--tag", name, "-"]
    subprocess.run(command, input=dockerfile, text=True, check=True, env=ready.engine.environment)
    yield name
    ready.engine.run("rmi", "--force", name)


def test_what_can_not_train_is_refused_with_a_sentence_before_anything_trains(
    ready: Ready, other_image: str, tmp_path: Path
):
    words = ("bench", "-m", "cpu", "-o", str(tmp_path / "study"), "--launcher", "docker")
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    cases: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (("--image", "no-such:cpu"), {}, "has no image no-such:cpu"),
        (("--image", "No Such"), {}, "invalid reference format"),
        (("--image", ready.image, "--trl", OLDER_TRL), {}, f"expected {OLDER_TRL}"),
        (("--image", other_image), {}, "holds harness 0.0.9, and this is"),
        (("--image", ready.image), nowhere, "no Docker engine answers at unix://"),
        (("--image", ready.base), {}, "does not say what it holds"),
    ]
    for options, variables, said in cases:
        done = harness(*words, *options, **variables)
        assert (done.returncode, done.stdout) == (7, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not list((tmp_path / "study").glob("runs/*"))


def test_an_engine_without_nvidia_s_runtime_is_told_with_what_to_install(
    ready: Ready, tmp_path: Path
):
    if "nvidia" in ready.engine.docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine has NVIDIA's runtime")
    attempt = make_attempt(tmp_path / "study" / "runs" / "x")
    with DockerLauncher(ready.image) as launcher:
        launch = launcher.prepare(attempt, Launch(gpus=("GPU-0",)))
        with pytest.raises(MachineError, match="install the NVIDIA Container Toolkit"):
            launcher.start(attempt, launch)


def test_an_engine_that_is_killed_costs_no_run_whose_process_lives(bench: Bench):
    pid = daemon_pid()
    if pid is None:
        pytest.skip("the engine was not started by these tests, so they do not kill it")
    cell = "sft-micro.full.s0"
    with bench.start("sft-micro.*.s0", FAKE_STEP_S="3") as process:
        wait_until(lambda: bench.steps() >= 2, 60)
        psutil.Process(pid).kill()
        output, _ = process.communicate(timeout=100)
    assert start_daemon() == {}, "it would be another engine"
    assert "Traceback" not in output
    assert bench.statuses()[cell] == (Status.OK, None), output
    code, output = bench.run("sft-micro")
    assert code == 0, output
    assert set(bench.statuses().values()) == {(Status.OK, None)}
    assert bench.attempts() == len(bench.statuses()) == 4, (
        "what finished without its engine was run again"
    )
    assert bench.containers() == []
