"""The commands as a person types them: exit codes, messages, answers; never a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from harness import cli
from harness.launch.local import LocalLauncher
from tests.conftest import MATRIX
from tests.doctor_cases import exit_code_for
from tests.fake_worker import COMMAND

LOCAL = LocalLauncher(True, COMMAND)


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command line in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(MATRIX)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.run(words)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bench", "--matrix", "cpuu"], "did you mean 'cpu'"),
        (["benhc"], "did you mean 'bench'"),
        (["runs", "lss"], "did you mean 'ls'"),
        (["bench", "-m", "tiny.yaml", "--set", "learning_rat=1"], "did you mean 'learning_rate'"),
        (["bench", "-m", "tiny.yaml", "--set", "learning_rate=-1"], "expected a number above 0"),
        (["bench", "-m", "tiny.yaml", "--set", "learning_rate"], "expected key=value"),
        (["bench", "-m", "tiny.yaml", "--set", "num_generations=3"], "groups of num_generations=3"),
        (["bench", "-m", "tiny.yaml", "--filter", "sft-micr"], "did you mean 'sft-micro'"),
        (["bench", "-m", "tiny.yaml", "--seeds", ""], "expected"),
        (["bench", "-m", "tiny.yaml", "--seeds", "x"], "expected seeds such as"),
        (["bench", "-m", "tiny.yaml", "--seeds", "1,1"], "distinct seeds"),
        (["bench", "-m", "tiny.yaml", "--jobs", "0"], "x>=1"),
        (["bench", "-m", "tiny.yaml", "--jobs", "999"], "usable CPU cores"),
        (["bench", "-m", "tiny.yaml", "--launcher", "docke"], "local"),
        (["bench", "-m", "tiny.yaml", "--output-dir", "tiny.yaml"], "is a file"),
        (["bench", "-m", "none.yaml"], "can't be read"),
        (["report", "nothing"], "holds no study"),
        (["runs", "ls", "nothing"], "holds no study"),
        (["matrix", "show", "smolm2"], "did you mean 'smollm2'"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_do(typed, words, expected):
    code, _, err = typed(*words)
    assert code == 2
    assert expected in err


def test_all_problems_of_a_file_are_listed_at_once(typed):
    text = MATRIX.replace("r: 4", "r: 0").replace("seeds: [0, 1]", "seeds: []")
    Path("bad.yaml").write_text(text)
    code, _, err = typed("bench", "-m", "bad.yaml")
    assert code == 2
    assert "bad.yaml:6: seeds" in err
    assert "bad.yaml:20" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_exits_7(typed, tmp_path):
    (tmp_path / "ro").mkdir(mode=0o500)
    assert typed("bench", "-m", "tiny.yaml", "-o", "ro/study")[0] == 7


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_where_nobody_can_write_exits_7(typed):
    code, _, err = typed("bench", "-m", "tiny.yaml", "-o", "/proc/harness")
    assert code == 7
    assert "--output-dir" in err


def test_a_folder_below_a_file_exits_7(typed):
    assert typed("bench", "-m", "tiny.yaml", "-o", "tiny.yaml/study")[0] == 7


def test_a_matrix_that_needs_a_gpu_exits_7_without_one(typed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("gpu.yaml").write_text(MATRIX.replace("device: cpu", "device: gpu"))
    code, _, err = typed("bench", "-m", "gpu.yaml")
    assert code == 7
    assert "needs a CUDA GPU" in err
    assert "harness bench --matrix cpu" in err
    assert "`harness plan --matrix gpu.yaml` says what it needs" in err
    assert "`harness bench --matrix gpu.yaml --rehearse`" in err


def test_a_dry_run_lists_the_runs_and_makes_nothing(typed):
    code, out, _ = typed("bench", "-m", "tiny.yaml", "--dry-run", "--filter", "*.full.s0")
    assert code == 0
    assert [line.rsplit("-", 1)[0] for line in out.splitlines()] == [
        "sft-micro.full.s0",
        "grpo-micro.full.s0",
    ]
    assert not Path("results").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished study of two runs, made through the command with a stand-in worker program."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(MATRIX)
    words = ("-m", "tiny.yaml", "-o", "s", "--filter", "sft-micro.*.s0", "--no-report", "--quiet")
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as err:
        patch.chdir(folder)
        patch.setenv("HARNESS_LOCKS", str(folder))  # another process of these tests makes one too
        patch.setattr("harness.ready.LocalLauncher", lambda is_cold: LOCAL)
        assert (cli.run(["bench", *words]), err.getvalue()) == (0, "")
    return folder / "s"


@pytest.fixture
def study(typed, made):
    shutil.copytree(made, "s")
    return "s"


def test_runs_are_listed_shown_and_their_logs_printed(typed, study):
    code, out, _ = typed("runs", "ls", study, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [r["status"] for r in rows] == ["ok", "ok"]
    code, out, _ = typed("runs", "show", study, "sft-micro.full.s0")
    assert json.loads(out)["record"]["status"] == "ok"
    code, out, _ = typed("runs", "logs", study, rows[0]["run_id"])
    assert "stdout.log" in out
    code, out, _ = typed("runs", "ls", study)
    assert "sft-micro.full.s0" in out
    code, _, err = typed("runs", "show", study, "sft-micro.ful.s0")
    assert code == 2
    assert "harness runs ls" in err
    assert typed("runs", "logs", study, "sft-micro.full.s0", "--attempt", "7")[0] == 2


def test_an_edit_of_the_matrix_while_a_command_runs_is_not_read(typed, study, monkeypatch):
    def start(is_cold: bool) -> LocalLauncher:
        Path("tiny.yaml").write_text("name: [")
        return LOCAL

    monkeypatch.setattr("harness.ready.LocalLauncher", start)
    words = ("-m", "tiny.yaml", "-o", study, "--filter", "sft-micro.*.s0", "--no-report")
    assert typed("bench", *words)[0] == 0
    assert Path("tiny.yaml").read_text() == "name: ["


def test_a_damaged_study_exits_8_and_still_renders(typed, study):
    assert typed("runs", "verify", study)[0] == 0
    record = next(Path(study).glob("runs/*/record.json"))
    record.write_text(record.read_text().replace('"ok"', '"nan"', 1))
    code, _, err = typed("runs", "verify", study)
    assert code == 8
    assert record.parent.name in err
    code, out, err = typed("report", study)
    assert code == 8
    assert record.parent.name in err
    assert Path(study, "report/index.html").is_file()
    assert "report:" in out


def test_escape_codes_and_markup_of_a_run_reach_the_terminal_as_text(typed, study, monkeypatch):
    attempt = next(Path(study).glob("runs/*full*/attempt-1"))
    (attempt / "stderr.log").write_text("\x1b[31mred\x1b[0m [bold]x[/bold] <script>{{7*7}}\x07\n")
    _, out, _ = typed("runs", "logs", study, "sft-micro.full.s0")
    assert "red [bold]x[/bold] <script>{{7*7}}" in out
    assert "\x1b" not in out


def test_json_events_are_one_object_a_line(typed, monkeypatch):
    monkeypatch.setattr("harness.ready.LocalLauncher", lambda is_cold: LOCAL)
    code, out, _ = typed(
        "bench", "-m", "tiny.yaml", "--filter", "sft-micro.full.s0", "--no-report", "--json"
    )
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    # Progress is told by the clock, so a slow machine tells some.
    kinds = [e["kind"] for e in events if e["kind"] != "progress"]
    assert kinds == ["plan", "start", "end"]


@pytest.mark.slow
def test_matrices_are_listed_and_explained(typed):
    code, out, _ = typed("matrix", "ls")
    assert code == 0
    assert "cpu" in out
    code, out, _ = typed("matrix", "show", "cpu", "--json")
    first = json.loads(out.splitlines()[0])
    assert first["origin"]["learning_rate"].endswith(".trainer")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(typed, shell):
    code, out, _ = typed("completion", shell)
    assert code == 0
    assert "_HARNESS_COMPLETE" in out


def test_doctor_and_env_answer(typed):
    code, out, _ = typed("doctor", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == exit_code_for(rows)
    assert {"packages", "gpu", "results"} <= {row["name"] for row in rows}
    code, out, _ = typed("env")
    assert json.loads(out)["format"] == 1


def test_help_shows_examples(typed):
    code, out, _ = typed("--help")
    assert code == 0
    assert "harness bench --matrix smollm2" in out


def test_the_installed_command_answers():
    command = [sys.executable, "-m", "harness.cli", "--version"]
    assert "harness" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_lies_where_the_command_is_given_hides_no_installed_package(tmp_path):
    """In a checkout of TRL its folder `trl` would otherwise be what workers import."""
    (tmp_path / "shadow.py").write_text("")
    code = (
        "import subprocess, sys\nfrom harness.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(subprocess.call([sys.executable, '-m', 'shadow']))\n"
    )
    command = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named shadow" in done.stderr
