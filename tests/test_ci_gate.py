"""The gate's script: which commands it runs, what it ends with, what it tells the workflow."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from harness.compare import concluding
from harness.compare.explain import explain
from harness.compare.markdown import render_markdown
from harness.compare.model import Word
from tests.ci_scripts import SCRIPTS, run_script
from tests.comparison_pages import make, only

# Notes how it is called and from where it would import, writes a comparison, ends with the code for it.
HARNESS = """\
import json, os, pathlib, subprocess, sys
home = pathlib.Path({home!r})
arguments = sys.argv[1:]
with (home / "calls").open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
if arguments[0] == "bench":
    hidden = subprocess.run([sys.executable, "-m", "shadow"], capture_output=True).returncode == 0
    (home / "imports").write_text("workspace" if hidden else "environment")
side = next((pathlib.Path(a).name for a in arguments if a.startswith("--output-dir=")), arguments[0])
codes = json.loads((home / "codes").read_text())
if arguments[0] == "compare" and (word := (home / "word").read_text()):
    folder = pathlib.Path(arguments[1].partition("=")[2])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps({{"word": word}}))
sys.exit(codes.get(side, 0))
"""


@dataclass
class Gate:
    """A workspace with a harness that answers as told, and what a gate in it came to."""

    home: Path
    returncode: int = 0
    log: str = ""
    errors: str = ""

    def run(self, word: str = "same", codes: dict[str, int] | None = None, **inputs: str) -> Gate:
        """Run the script; `codes` are what the commands end with, by the folder that they write."""
        program = self.home / "harness"
        program.write_text(f"#!{sys.executable}\n{HARNESS.format(home=str(self.home))}")
        program.chmod(0o755)
        (self.home / "codes").write_text(json.dumps(codes or {}))
        (self.home / "word").write_text(word)
        for name in ("calls", "output"):
            (self.home / name).unlink(missing_ok=True)
        before = Path.cwd()
        os.chdir(self.home)  # a step runs in the workspace
        try:
            done = run_script(
                "gate",
                str(program),
                GITHUB_OUTPUT=str(self.home / "output"),
                GITHUB_WORKSPACE=str(self.home),
                **{f"GATE_{name}": value for name, value in inputs.items()},
            )
        finally:
            os.chdir(before)
        self.returncode, self.log, self.errors = done.returncode, done.stdout, done.stderr
        return self

    @property
    def calls(self) -> list[list[str]]:
        path = self.home / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def outputs(self) -> dict[str, str]:
        lines = (self.home / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (tmp_path / "trl").mkdir()
    return Gate(tmp_path)


ALL_INPUTS = {
    "TRL": "1.17.0",
    "PEFT_PATH": "trl",
    "TRANSFORMERS": "5.23.0",
    "WITH": "accelerate==1.15.0\n\n  datasets==5.2.0",
    "BASE": "1.14.2",
    "BASE_WITH": "transformers==4.57.6",
    "MATRIX": "mine.yaml",
    "FILTER": "grpo-*",
    "SEEDS": "0-2",
    "OUTPUT_DIR": "out",
}


def test_the_candidate_then_the_base_are_trained_and_compared(gate: Gate) -> None:
    assert gate.run(**ALL_INPUTS).returncode == 0
    chosen = ["bench", "--matrix=mine.yaml", "--filter=grpo-*", "--seeds=0-2"]
    assert gate.calls == [
        [
            *chosen,
            "--trl=1.17.0",
            "--with=transformers==5.23.0",
            f"--with=peft={gate.home / 'trl'}",
            "--with=accelerate==1.15.0",
            "--with=datasets==5.2.0",
            "--no-report",
            "--output-dir=out/candidate",
        ],
        [
            *chosen,
            "--trl=1.14.2",
            "--with=transformers==4.57.6",
            "--no-report",
            "--output-dir=out/base",
        ],
        ["compare", "--output-dir=out/comparison", "--", "out/base", "out/candidate"],
    ]


def test_a_pull_request_is_held_against_what_is_pinned_on_the_probes(gate: Gate) -> None:
    gate.run(TRL_PATH=".", FILTER=" ", BASELINE="")
    candidate, base, _ = gate.calls
    assert candidate[1:3] == ["--matrix=upgrade", f"--trl={gate.home}"]
    assert base[1:3] == ["--matrix=upgrade", "--no-report"]


def test_a_baseline_is_looked_at_first_and_no_base_is_trained(gate: Gate) -> None:
    gate.run(TRL_PATH="trl", BASELINE="upgrade-trl-1.16.0")
    assert [call[0] for call in gate.calls] == ["baseline", "bench", "compare"]
    assert gate.calls[-1][2:] == ["--", "upgrade-trl-1.16.0", "results/gate/candidate"]
    gate.run(BASELINE="no-such", codes={"baseline": 2})
    assert [call[0] for call in gate.calls] == ["baseline"]
    assert gate.returncode == 2


def test_a_checkout_in_the_workspace_does_not_hide_what_an_environment_has(gate: Gate) -> None:
    (gate.home / "shadow.py").touch()
    gate.run(TRL_PATH=".")
    assert (gate.home / "imports").read_text() == "environment"


ANSWERS = [("same", 0), ("changed", 4), ("undecided", 6), ("unsupported here", 7)]


@pytest.mark.parametrize(("word", "code"), [*ANSWERS, ("not comparable", 6), ("changed", 0)])
@pytest.mark.parametrize("bench_code", [0, 3])
def test_word_and_code_are_the_comparisons_and_only_a_change_fails(
    gate: Gate, word: str, code: int, bench_code: int
) -> None:
    gate.run(word, {"compare": code, "comparison": code, "candidate": bench_code}, TRL="1.17.0")
    comparison = "results/gate/comparison"
    assert gate.outputs == {"word": word, "exit-code": str(code), "comparison": comparison}
    assert gate.returncode == (4 if code == 4 else 0)
    levels = re.findall(r"^::(\w+) title=Gate: ", gate.log, re.MULTILINE)
    assert levels == ({0: [], 4: ["error"]}.get(code, ["warning"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [("changed", {4}), ("undecided,unsupported", {6, 7}), ("changed undecided", {4, 6})],
)
def test_which_answers_fail_can_be_chosen(gate: Gate, fail_on: str, failing: set[int]) -> None:
    for word, code in ANSWERS:
        gate.run(word, {"comparison": code}, TRL="1.17.0", FAIL_ON=fail_on)
        assert gate.returncode == (code if code in failing else 0)
        assert gate.outputs["exit-code"] == str(code)


@pytest.mark.parametrize("code", [1, 2, 8])
def test_a_comparison_that_could_not_be_made_always_fails(gate: Gate, code: int) -> None:
    gate.run("", {"comparison": code}, TRL="1.17.0")
    assert gate.returncode == code
    assert gate.outputs == {"word": "", "exit-code": str(code), "comparison": ""}


@pytest.mark.parametrize("code", [4, 6, 7])
def test_a_code_without_a_comparison_is_no_answer(gate: Gate, code: int) -> None:
    gate.run("", {"comparison": code}, TRL="1.17.0")
    assert gate.returncode == code
    assert "::error title=Gate: no answer" in gate.log


@pytest.mark.parametrize("side", ["candidate", "base"])
@pytest.mark.parametrize("code", [1, 2, 7, 8, 143])
def test_a_training_that_could_not_begin_ends_the_gate_with_its_code(
    gate: Gate, side: str, code: int
) -> None:
    gate.run("same", {side: code}, TRL="1.17.0")
    assert gate.returncode == code
    assert gate.outputs == {"word": "", "exit-code": str(code), "comparison": ""}
    assert "compare" not in [call[0] for call in gate.calls]
    assert f"harness bench ended with exit code {code}::" in gate.log


def test_an_earlier_comparison_in_the_folder_is_not_taken_for_this_one(gate: Gate) -> None:
    assert gate.run("changed", {"comparison": 4}, TRL="1.17.0").outputs["word"] == "changed"
    assert gate.run("", {"comparison": 8}, TRL="1.17.0").outputs["word"] == ""


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"word": "same\\nexit-code=0"}', "{}"])
def test_a_comparison_that_can_not_be_read_has_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gate as script

    (tmp_path / "comparison.json").write_text(content)
    assert script.read_word(tmp_path) == ""


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "nothing differs"),
        ({"TRL": "  "}, "nothing differs"),
        ({"TRL": "1.17.0", "TRL_PATH": "trl"}, "expected one of them"),
        ({"PEFT_PATH": "nowhere"}, "peft-path is 'nowhere', which is no folder"),
        ({"BASE": "nowhere/trl"}, "base is 'nowhere/trl'; expected a release"),
        ({"BASELINE": "x", "BASE": "1.14.2"}, "both a baseline and a base"),
        ({"BASELINE": "x", "BASE_WITH": "peft==0.20.0"}, "both a baseline and a base"),
        ({"TRL": "1.17.0", "FAIL_ON": "changed,refuted"}, "fail-on has 'refuted'"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(
    gate: Gate, inputs: dict[str, str], said: str
) -> None:
    gate.run(**inputs)
    assert gate.returncode == 1
    assert said in gate.errors
    assert "Traceback" not in gate.errors
    assert gate.calls == []


def test_everything_that_is_wrong_is_said_at_once(gate: Gate) -> None:
    errors = gate.run(TRL_PATH="nowhere", PEFT_PATH="nowhere", FAIL_ON="x").errors
    assert all(said in errors for said in ("trl-path", "peft-path", "fail-on"))


@pytest.mark.parametrize("value", ["--dry-run", "x; touch pwned", "$(id)", "a b", "-o"])
def test_an_input_stays_one_value_whatever_it_holds(gate: Gate, value: str) -> None:
    gate.run(TRL=value, FILTER=value, WITH=value, BASE=f"1{value}", BASE_WITH=value)
    candidate, base, _ = gate.calls
    assert {f"--trl={value}", f"--filter={value}", f"--with={value}"} <= set(candidate)
    assert {f"--trl=1{value}", f"--filter={value}", f"--with={value}"} <= set(base)
    gate.run(BASELINE=value)
    assert gate.calls[0] == ["baseline", "show", "--", value]
    assert gate.calls[-1][2:4] == ["--", value]


def test_the_script_knows_the_harness_words_and_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gate as script

    assert set(script.WORDS) == set(get_args(Word))
    codes = (concluding.EXIT_CHANGED, concluding.EXIT_UNDECIDED, concluding.EXIT_UNSUPPORTED)
    assert tuple(script.CODES.values()) == codes
    assert set(script.CODES) <= set(concluding.FAILURES)


def test_the_summary_shows_a_comparisons_top_and_where_the_rest_is(tmp_path: Path) -> None:
    folder = tmp_path / "comparison-upgrade"
    folder.mkdir()
    made = make(only("grpo", gradients=lambda g: 2 * g), trl=("0.22.1", "0.22.2"))
    text = render_markdown(explain(*made.all))
    (folder / "comparison.md").write_text(text)
    shown = run_script("summary", str(folder)).stdout
    assert "TRL 0.22.1 → TRL 0.22.2: changed" in shown
    assert "What a user will notice" in shown
    assert "Likely causes" in shown
    assert "Where each cell begins to differ" in text
    assert "Where each cell begins to differ" not in shown
    assert "artifact `comparison-upgrade`" in shown
