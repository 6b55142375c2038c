"""Did a change of TRL, PEFT or transformers change training? Trains two stacks, then compares them.

    gate.py [COMMAND …]       what stands before `bench` and `compare`; default: harness

    GATE_TRL, GATE_TRANSFORMERS, GATE_PEFT: a release that the candidate trains with
    GATE_TRL_PATH, …: a checkout in the workspace instead
    GATE_WITH: more of its packages, one NAME==VERSION or NAME=PATH a line
    GATE_BASE, GATE_BASE_WITH: TRL and packages of the base; nothing is what the harness is installed with
    GATE_BASELINE: a baseline's name or folder; then no base is trained
    GATE_MATRIX, GATE_FILTER, GATE_SEEDS, GATE_OUTPUT_DIR: what is trained, and where it is kept
    GATE_FAIL_ON: which answers fail the step: changed, undecided, unsupported; default changed

Runs that failed or are unsupported don't end it: the comparison says what they mean. The outputs are
`word` and `exit-code`, always the comparison's own, and `comparison`, its folder. Where there was no
comparison, the exit code is that of the command that ended it, and the step has it too. `harness compare`
writes annotations and the job's summary itself. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import MEANINGS, SOME_RUNS_FAILED, execute, write_output

MATRIX = "upgrade"
OUTPUT_DIR = "results/gate"
PACKAGES = ("trl", "transformers", "peft")
CODES = {"changed": 4, "undecided": 6, "unsupported": 7}  # what fail-on may name → compare's code
WORDS = ("same", "rounding", "not comparable", "unsupported here", "undecided", "changed")
FILES = ("comparison.json", "comparison.md", "index.html", "junit.xml")
ANSWERS = {
    4: "training changed; the job's summary says where, and what may have caused it",
    6: "not enough evidence, or sides that can't be compared; the job's summary says what to do",
    7: "the candidate's releases can't train this on this machine, which is no regression",
}
OF_ENVIRONMENT = (
    "an environment can't be made or can't start, or this machine is unfit; see the log above"
)


def main() -> int:
    """Train, compare, and return what the step should exit with."""
    inputs = {name: value.strip() for name, value in os.environ.items() if value.strip()}
    if problems := list(find_problems(inputs)):
        raise SystemExit("gate.py: " + "; ".join(problems))
    folder = Path(inputs.get("GATE_OUTPUT_DIR", OUTPUT_DIR))
    comparison = folder / "comparison"
    for name in FILES:  # of an earlier gate: nobody may take them for this one's
        (comparison / name).unlink(missing_ok=True)
    for command in preparations(inputs, folder):
        if (code := run(command)) not in (0, SOME_RUNS_FAILED):
            return stop(command[0], code)
    base = inputs.get("GATE_BASELINE") or str(folder / "base")
    files = f"--output-dir={comparison}"
    code = run(["compare", files, "--", base, str(folder / "candidate")])
    return conclude(code, comparison, fail_on(inputs))


def find_problems(inputs: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with the inputs, as far as the harness could not say it as well."""
    for package in PACKAGES:
        release, path = f"GATE_{package.upper()}", f"GATE_{package.upper()}_PATH"
        if release in inputs and path in inputs:
            yield (
                f"{package} is asked for as release {inputs[release]!r} and as folder "
                f"{inputs[path]!r}; expected one of them"
            )
        if path in inputs and not place(inputs, path).is_dir():
            yield (
                f"{package}-path is {inputs[path]!r}, which is no folder; expected a checkout in the "
                "workspace, made by an earlier step"
            )
    base = inputs.get("GATE_BASE", "current")
    if not (base == "current" or base[0].isdigit() or Path(base).exists()):
        yield f"base is {base!r}; expected a release such as 1.16.0, or a checkout in the workspace"
    trained = [name for name in ("GATE_BASE", "GATE_BASE_WITH") if name in inputs]
    if "GATE_BASELINE" in inputs and trained:
        yield "both a baseline and a base to train are given; expected one of them"
    if "GATE_BASELINE" not in inputs and not trained and not stack(inputs):
        yield (
            "nothing differs between base and candidate; expected one of trl, trl-path, transformers, "
            "transformers-path, peft, peft-path, with, base, base-with, baseline"
        )
    unknown = [word for word in fail_on(inputs) if word not in CODES]
    if unknown:
        yield f"fail-on has {unknown[0]!r}; expected some of {', '.join(CODES)}"


def fail_on(inputs: Mapping[str, str]) -> list[str]:
    """List the answers that fail the step."""
    words = inputs.get("GATE_FAIL_ON", "changed").replace(",", " ")
    return words.split()


def preparations(inputs: Mapping[str, str], folder: Path) -> Iterator[list[str]]:
    """Yield what runs before the comparison. The candidate is first: it is likelier to be refused."""
    baseline = inputs.get("GATE_BASELINE")
    if baseline:
        yield ["baseline", "show", "--", baseline]
    yield bench(inputs, folder / "candidate", stack(inputs))
    if not baseline:
        yield bench(inputs, folder / "base", base_stack(inputs))


def bench(inputs: Mapping[str, str], folder: Path, packages: list[str]) -> list[str]:
    """Write the command that trains one side; `--name=value`, so that a value can't pass for an option."""
    chosen = [f"--matrix={inputs.get('GATE_MATRIX', MATRIX)}"]
    chosen += [
        f"--{name}={value}"
        for name in ("filter", "seeds")
        if (value := inputs.get(f"GATE_{name.upper()}"))
    ]
    return ["bench", *chosen, *packages, "--no-report", f"--output-dir={folder}"]


def stack(inputs: Mapping[str, str]) -> list[str]:
    """Write the options that choose the candidate's packages; none is what is installed."""
    found = []
    for package in PACKAGES:
        name = f"GATE_{package.upper()}"
        option = "--trl=" if package == "trl" else f"--with={package}="
        if release := inputs.get(name):
            found.append(f"{option}{release}" if package == "trl" else f"{option}={release}")
        if f"{name}_PATH" in inputs:
            found.append(f"{option}{place(inputs, f'{name}_PATH')}")
    return [*found, *lines(inputs, "GATE_WITH")]


def base_stack(inputs: Mapping[str, str]) -> list[str]:
    """Write the options that choose the base's packages."""
    base = [f"--trl={inputs['GATE_BASE']}"] if "GATE_BASE" in inputs else []
    return [*base, *lines(inputs, "GATE_BASE_WITH")]


def lines(inputs: Mapping[str, str], name: str) -> list[str]:
    """Write an option for every line of an input."""
    given = (line.strip() for line in inputs.get(name, "").splitlines())
    return [f"--with={line}" for line in given if line]


def place(inputs: Mapping[str, str], name: str) -> Path:
    """Find a folder of the workspace; the whole path, which can't pass for a release."""
    return (Path(inputs.get("GITHUB_WORKSPACE", ".")) / inputs[name]).resolve()


def run(arguments: list[str]) -> int:
    """Run a command of the harness to its end."""
    command = [*(sys.argv[1:] or ["harness"]), *arguments]
    sys.stderr.write(f"+ {' '.join(command)}\n")
    sys.stderr.flush()
    return execute(command)


def stop(command: str, code: int) -> int:
    """End without a comparison."""
    tell("", code, "")
    meaning = OF_ENVIRONMENT if code == 7 else MEANINGS.get(code, "see the log above")
    print(f"::error title=No comparison: harness {command} ended with exit code {code}::{meaning}")
    return code


def conclude(code: int, comparison: Path, failing: list[str]) -> int:
    """Tell what the comparison came to, and decide whether the step fails."""
    word = read_word(comparison)
    tell(word, code, str(comparison) if word else "")
    if code == 0:
        return 0
    is_answer = bool(word) and code in CODES.values()
    is_accepted = is_answer and code not in {CODES[each] for each in failing}
    level = "warning" if is_accepted else "error"
    meaning = (ANSWERS if is_answer else MEANINGS).get(code, "see the log above")
    print(f"::{level} title=Gate: {word or 'no answer'}, exit code {code}::{meaning}")
    return 0 if is_accepted else code


def read_word(comparison: Path) -> str:
    """Read the comparison's word; nothing if there is no comparison."""
    try:
        word = json.loads((comparison / "comparison.json").read_bytes())["word"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return word if word in WORDS else ""


def tell(word: str, code: int, comparison: str) -> None:
    """Hand the answer to the workflow."""
    for name, value in {"word": word, "exit-code": str(code), "comparison": comparison}.items():
        write_output(name, value)


if __name__ == "__main__":
    sys.exit(main())
