"""What a job is about: its release of TRL, its names, what it installs, what of it may be published."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.ci_scripts import REPOSITORY, SCRIPTS, run_script, serve

ROOT = SCRIPTS.parents[1]
STUDY = ROOT / "reports" / "smollm2"


# versions.py


def test_pinned_is_the_release_of_the_lock_and_no_release_comes_twice(tmp_path: Path) -> None:
    pinned = next(
        line.removeprefix("trl==").split()[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("trl==")
    )
    output = tmp_path / "output"
    done = run_script("versions", f"pinned, 1.14.2  {pinned}", GITHUB_OUTPUT=str(output))
    assert output.read_text() == done.stdout
    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert json.loads(lines["versions"]) == [pinned, "1.14.2"]
    assert lines["pinned"] == pinned


def test_nothing_asked_for_is_the_pinned_release() -> None:
    assert run_script("versions", "").stdout == run_script("versions", "pinned").stdout


@pytest.mark.parametrize("word", ["latest", "1.16.0;id", "$(id)", "1.16.0\nx=1", "==1.16", "../x"])
def test_what_is_no_release_is_refused(word: str) -> None:
    done = run_script("versions", word)
    assert done.returncode == 1
    assert "is no release of TRL" in done.stderr
    assert done.stdout == ""


def pip_that_answers(folder: Path, answer: str, code: int) -> str:
    """A folder for PYTHONPATH in which `python -m pip` answers as told."""
    (folder / "pip").mkdir()
    (folder / "pip" / "__init__.py").touch()
    (folder / "pip" / "__main__.py").write_text(
        f"import sys\nassert sys.argv[-3:] == ['index', 'versions', 'trl']\n"
        f"print({answer!r})\nsys.exit({code})\n"
    )
    return str(folder)


def test_newest_is_what_pip_finds(tmp_path: Path) -> None:
    path = pip_that_answers(tmp_path, "trl (9.9.9)\nAvailable versions: 9.9.9, 1.16.0", 0)
    done = run_script("versions", "pinned newest", PYTHONPATH=path)
    assert "newest=9.9.9\n" in done.stdout
    assert '"9.9.9"]' in done.stdout


def test_an_index_that_does_not_answer_is_said(tmp_path: Path) -> None:
    done = run_script("versions", "newest", PYTHONPATH=pip_that_answers(tmp_path, "no network", 1))
    assert done.returncode == 1
    assert "no network" in done.stderr


# gpu_job.py

JOB = {
    "BENCH_MATRIX": "smollm3",
    "TRL": "1.16.0",
    "GITHUB_RUN_ID": "77",
    "GITHUB_RUN_ATTEMPT": "1",
}


def test_a_second_attempt_finds_the_study_of_the_first(tmp_path: Path) -> None:
    first = job(tmp_path)
    assert first["STUDY_IS_NEW"] == "true"
    assert Path(first["HARNESS_RESULTS"]).is_dir()
    Path(first["STUDY_FOLDER"]).mkdir()
    second = job(tmp_path, GITHUB_RUN_ATTEMPT="2")
    assert second["STUDY_FOLDER"] == first["STUDY_FOLDER"]
    assert second["STUDY_IS_NEW"] == "false"
    assert second["BENCH_CONTAINER"] != first["BENCH_CONTAINER"]
    assert second["HARNESS_USER"] == f"{os.getuid()}:{os.getgid()}"


def test_two_releases_of_trl_have_two_studies(tmp_path: Path) -> None:
    assert job(tmp_path)["STUDY_FOLDER"] != job(tmp_path, TRL="1.14.2")["STUDY_FOLDER"]


def test_a_named_study_is_found_by_another_run_of_the_workflow(tmp_path: Path) -> None:
    first, second = job(tmp_path, STUDY="mine"), job(tmp_path, STUDY="mine", GITHUB_RUN_ID="78")
    assert first["STUDY_FOLDER"] == second["STUDY_FOLDER"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("STUDY", "../../etc"),
        ("STUDY", "a\nPATH=/tmp"),
        ("BENCH_MATRIX", "benchmarks/cpu.yaml"),
        ("BENCH_MATRIX", ""),
        ("TRL", "1.16.0 --help"),
        ("STATE_FOLDER", "relative"),
        ("STATE_FOLDER", "/tmp/x\nPATH=/tmp"),
    ],
)
def test_a_name_that_could_leave_its_folder_or_its_line_is_refused(
    tmp_path: Path, part: str, value: str
) -> None:
    environment = tmp_path / "environment"
    given = {**JOB, "STATE_FOLDER": str(tmp_path / "state"), part: value}
    done = run_script("gpu_job", GITHUB_ENV=str(environment), **given)
    assert done.returncode == 1
    assert "expected" in done.stderr
    assert not environment.exists()


def job(folder: Path, **changes: str) -> dict[str, str]:
    environment = folder / "environment"
    environment.unlink(missing_ok=True)
    given = {**JOB, "STATE_FOLDER": str(folder / "state"), **changes}
    done = run_script("gpu_job", GITHUB_ENV=str(environment), **given)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in environment.read_text().splitlines())


# install.py


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"BENCH_TRL": "1.16.0", "BENCH_TRL_PATH": "trl"}, "expected one of them"),
        ({"BENCH_TRL": "1.16 --index-url x"}, "expected a version"),
        ({"BENCH_PEFT_PATH": "nowhere"}, "neither pyproject.toml nor setup.py"),
    ],
)
def test_what_can_not_be_installed_is_refused_before_pip_starts(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    done = run_script("install", RUNNER_TEMP=str(tmp_path), GITHUB_WORKSPACE=str(tmp_path), **given)
    assert done.returncode == 1
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_asked_for_is_loosened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import install

    checkout = tmp_path / "a trl"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    asked = install.requirements(
        {"BENCH_TRL_PATH": "a trl", "BENCH_PEFT": "0.20.0", "GITHUB_WORKSPACE": str(tmp_path)}
    )
    assert asked == {"trl": f"trl @ {checkout.as_uri()}", "peft": "peft==0.20.0"}
    pinned = "# a lock\ntorch==2.13.0\ntrl==1.16.0 ; python_version > '3'\npeft==0.21.2\ntrl-x==1\n"
    assert install.without(pinned, asked) == "# a lock\ntorch==2.13.0\ntrl-x==1\n"


def test_what_is_installed_has_every_shipped_matrix() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for path in (ROOT / "benchmarks").glob("*.yaml"):
        assert included[f"benchmarks/{path.name}"] == f"harness/benchmarks/{path.name}"


def test_an_index_is_added_to_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import install

    added = install.with_index(
        {"PIP_EXTRA_INDEX_URL": "https://a", "BENCH_TORCH_INDEX": "https://b"}
    )
    assert added["PIP_EXTRA_INDEX_URL"] == "https://a https://b"


# artifacts.py


@pytest.mark.parametrize(
    ("artifacts", "expected"),
    [
        ([], "false"),
        ([{"expired": True}], "false"),
        ([{"expired": True}, {"expired": False}], "true"),
    ],
)
def test_an_artifact_is_there_while_it_can_be_downloaded(
    artifacts: list[dict[str, bool]], expected: str
) -> None:
    with serve({"GET actions/artifacts": {"artifacts": artifacts}}) as github:
        done = run_script("artifacts", "exists", "nightly-x", **github.variables())
        assert done.stdout == f"exists={expected}\n"
        assert "name=nightly-x" in github.asked[0][0]


@pytest.mark.parametrize(
    ("event", "origin", "is_trusted"),
    [
        ("workflow_dispatch", REPOSITORY, True),
        ("schedule", REPOSITORY, True),
        ("pull_request", REPOSITORY, False),
        ("pull_request", "stranger/lora-harness", False),
        ("push", "stranger/lora-harness", False),
        ("push", None, False),
    ],
)
def test_only_runs_of_the_repositorys_own_code_are_published(
    event: str, origin: str | None, is_trusted: bool
) -> None:
    repository = None if origin is None else {"full_name": origin}
    answer = {"event": event, "head_repository": repository, "head_sha": "abc"}
    with serve({"GET actions/runs/12": answer}) as github:
        done = run_script("artifacts", "trusted", "12", **github.variables())
    assert (done.returncode == 0) is is_trusted
    assert is_trusted or "not published" in done.stderr


def test_a_run_id_that_is_no_number_is_never_asked_for() -> None:
    with serve({}) as github:
        assert run_script("artifacts", "trusted", "12/../..", **github.variables()).returncode == 1
        assert github.asked == []


# pages.py


def test_the_site_lists_every_report_and_takes_only_its_known_files(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    shutil.copytree(STUDY, reports / "smollm2")
    other = reports / "a&b"
    (other / "figures").mkdir(parents=True)
    (other / "index.html").write_text("page")
    (other / "figures" / "x.svg").write_text("<svg/>")
    (other / "figures" / "x.js").write_text("no figure")
    (other / ".env").write_text("SECRET=1")
    data = {"study": {"title": "<b>T</b>"}, "sentence": "S & S"}
    (other / "data.json").write_text(json.dumps(data))
    (reports / "no-report").mkdir()
    assert run_script("pages", str(reports), str(tmp_path / "site")).returncode == 0
    page = (tmp_path / "site" / "index.html").read_text()
    assert '<a href="a&amp;b/">&lt;b&gt;T&lt;/b&gt;</a><br>S &amp; S' in page
    assert "LoRA matches full fine-tuning" in page
    taken = {
        p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site" / "a&b").rglob("*")
    }
    assert taken == {"a&b/index.html", "a&b/data.json", "a&b/figures", "a&b/figures/x.svg"}
    assert (tmp_path / "site" / "smollm2" / "index.html").is_file()


def test_a_comparison_is_listed_with_its_answer(tmp_path: Path) -> None:
    report = tmp_path / "reports" / "upgrade"
    report.mkdir(parents=True)
    (report / "index.html").write_text("page")
    (report / "comparison.md").write_text("<!-- x -->\n### A → B: <changed>\n\n**GRPO & SFT.**\n")
    assert run_script("pages", str(tmp_path / "reports"), str(tmp_path / "site")).returncode == 0
    page = (tmp_path / "site" / "index.html").read_text()
    assert '<a href="upgrade/">A → B: &lt;changed&gt;</a><br>GRPO &amp; SFT.' in page
    assert (tmp_path / "site" / "upgrade" / "comparison.md").is_file()


def test_a_folder_without_reports_is_no_site(tmp_path: Path) -> None:
    done = run_script("pages", str(tmp_path), str(tmp_path / "site"))
    assert done.returncode == 1
    assert "no folder" in done.stderr
