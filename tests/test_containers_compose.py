"""The shipped image through the shipped compose file: a study for its user, hardened, stoppable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.record import Status
from harness.store import Store
from tests.containers.boxes import GPU, Compose, fresh_name, give, me, short
from tests.containers.prepare import Ready
from tests.waiting import wait_until

pytestmark = pytest.mark.docker

FOREIGN = "4242:4242"
STATE = """
import json, os, pathlib, subprocess, sys
def can_write(path):
    try: pathlib.Path(path, ".probe").touch()
    except OSError as error: return error.strerror
    pathlib.Path(path, ".probe").unlink()
    return True
rows = dict(l.split(":", 1) for l in pathlib.Path("/proc/self/status").read_text().splitlines())
folders = ["/", "/opt/harness", "/work", "/work/results", "/tmp", "/cache", "/cache/huggingface"]
tool = pathlib.Path("/tmp/tool"); tool.write_bytes(pathlib.Path("/bin/true").read_bytes())
tool.chmod(0o755)
import importlib.util as u
modules = ["harness.cli", "trl", "transformers", "torch", "peft", "accelerate", "datasets"]
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "effective": rows["CapEff"].strip(), "bounding": rows["CapBnd"].strip(),
    "no_new_privileges": rows["NoNewPrivs"].strip(),
    "writes": {folder: can_write(folder) for folder in folders},
    "runs_in_tmp": subprocess.run([str(tool)]).returncode == 0,
    "init": pathlib.Path("/proc/1/cmdline").read_text().split("\\0")[0],
    "without_bytecode": [m for m in modules if not os.path.exists(u.find_spec(m).cached)],
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "shm_bytes": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "home": os.path.expanduser("~"),
}))
"""


def owners(folder: Path) -> set[str]:
    return {f"{p.lstat().st_uid}:{p.lstat().st_gid}" for p in folder.rglob("*")}


@pytest.fixture
def results(tmp_path: Path, ready: Ready):
    """A results folder; what others wrote there is the caller's again in the end."""
    folder = tmp_path / "results"
    folder.mkdir()
    yield folder
    give(ready, folder, me())


def test_the_matrix_trains_in_the_image_and_its_report_is_the_calling_user_s(
    compose: Compose, results: Path
):
    done = compose.run(*short(), "--json", results=results)
    assert done.returncode == 0, done.stderr
    assert owners(results) == {me()}
    study = results / "cpu"
    assert (study / "report" / "index.html").stat().st_size > 100_000
    store = Store(study)
    planned = [run.run_id for run in store.read_study().planned]
    assert len(planned) == 4
    for run_id in planned:
        record = store.read_record(run_id)
        assert record is not None
        assert record.status is Status.OK
        assert store.verify(run_id) == []
    environment = json.loads(next(study.glob("runs/*/attempt-1/environment.json")).read_text())
    assert environment["platform"]["container"] == "container"
    assert environment["packages"]["torch"].endswith("+cpu")
    again = compose.run(*short(), results=results)
    assert again.returncode == 0
    assert "4 finished before and kept" in again.stderr


def test_another_user_s_study_stays_that_user_s_and_the_other_commands_read_it(
    compose: Compose, ready: Ready, results: Path
):
    give(ready, results, FOREIGN)
    quick = (*short(2, "sft-steps.full.*"), "--no-report")
    done = compose.run(*quick, results=results, user=FOREIGN)
    assert done.returncode == 0, done.stderr
    told = compose.run("report", "results/cpu", results=results, user=FOREIGN)
    assert told.returncode == 0, told.stderr
    assert (results / "cpu" / "report" / "report.md").is_file()
    verified = compose.run("runs", "verify", "results/cpu", results=results, user=FOREIGN)
    assert "1 runs" in verified.stdout
    assert owners(results) == {FOREIGN}


@pytest.mark.parametrize("user", [FOREIGN, "0:0"])
def test_the_service_is_as_hardened_as_the_file_says(
    compose: Compose, ready: Ready, results: Path, user: str
):
    give(ready, results, user)
    done = compose.run("-c", STATE, results=results, user=user, options=("--entrypoint", "python"))
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert f"{state['uid']}:{state['gid']}" == user
    assert state["effective"] == state["bounding"] == "0" * 16
    assert state["no_new_privileges"] == "1"
    refused = {folder: word for folder, word in state["writes"].items() if word is not True}
    assert refused == dict.fromkeys(["/", "/opt/harness", "/work"], "Read-only file system")
    assert state["runs_in_tmp"]
    assert "init" in state["init"]
    assert state["without_bytecode"] == []
    assert state["interfaces"] == ["lo"]
    assert state["shm_bytes"] >= 2**30
    assert state["home"].startswith("/tmp")


def test_a_stopped_study_is_sealed_and_the_same_command_completes_it(
    compose: Compose, ready: Ready, results: Path
):
    give(ready, results, FOREIGN)
    long = short(40, "sft-steps.full.*")
    name = fresh_name("stopped")
    process = compose.start(name, *long, results=results, user=FOREIGN)
    wait_until(lambda: _steps(results) > 3, 120)
    ready.engine.docker("stop", name)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    state = json.loads(ready.engine.docker("inspect", "--format", "{{json .State}}", name))
    assert (state["ExitCode"], state["OOMKilled"]) == (143, False)
    assert "interrupted: what finished is kept" in output
    store = Store(results / "cpu")
    for attempt in (results / "cpu").glob("runs/*/attempt-1"):
        assert json.loads((attempt / "attempt.json").read_text())["status"] in ("cancelled", "ok")
        assert (attempt / "sampler.json").is_file(), "the sampler was not ended in order"
    assert _steps(results) > 3
    done = compose.run(*long, results=results, user=FOREIGN)
    assert done.returncode == 0, done.stderr
    for run in store.read_study().planned:
        record = store.read_record(run.run_id)
        assert record is not None
        assert record.status is Status.OK
        assert store.verify(run.run_id) == []
    assert len(list((results / "cpu").glob("runs/*/attempt-2"))) >= 1


def _steps(results: Path) -> int:
    files = list((results / "cpu").glob("runs/*/attempt-1/steps.jsonl"))
    return sum(len(file.read_bytes().splitlines()) for file in files)


def test_without_nvidia_s_runtime_the_engine_refuses_the_gpu_service_and_doctor_explains_it(
    compose: Compose, ready: Ready
):
    if "nvidia" in ready.engine.docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine has NVIDIA's runtime")
    words = 'could not select device driver "nvidia" with capabilities'
    refused = compose.run("doctor", service=GPU)
    assert refused.returncode != 0
    assert words in refused.stderr
    command = [sys.executable, "-m", "harness.cli", "doctor", "--matrix", "blog", "--json"]
    told = subprocess.run(
        command, env=ready.engine.environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 7
    checks = {c["name"]: c["text"] for c in map(json.loads, told.stdout.splitlines())}
    assert words in checks["gpu runtime"]
    assert "NVIDIA Container Toolkit" in checks["gpu runtime"]
